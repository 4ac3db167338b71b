//! Clients that are slow, silent, or too many: they are disconnected or have to wait, and all
//! others are served as before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rustls::ClientConfig;
use streamgate::clock::Stopwatch;
use streamgate::server::ConnectionTimes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use testkit::app::TestApp;
use testkit::frames;
use testkit::gateway_client::{Check, Gateway};
use testkit::pki::{Authority, Folder, client, connect};
use testkit::streamgate::Streamgate;
use testkit::talk::{ask, ended, hear, trickle};
use testkit::watch::{PATIENCE, measured_many, measured_memory, within};

/// Soon enough to wait for, late enough for a busy machine to say something in time.
const SHORT: ConnectionTimes = ConnectionTimes {
    handshake: Duration::from_secs(2),
    quiet: Duration::from_secs(2),
};

/// The number of connections in a crowd: all of them must be open before the first is closed for
/// its silence. The figures are those of an optimised build. A system that lets a process open
/// fewer files gets fewer.
const CROWD: u64 = if cfg!(debug_assertions) {
    1_000
} else {
    10_000
};

/// How many connections are opened together, so that the system drops none from a queue.
const AT_ONE_TIME: usize = 64;

/// Asks again and again until `slow` has been disconnected, each time over a new connection; each
/// request must be answered.
async fn everybody_is_answered_until<T>(app: &TestApp, slow: impl Future<Output = T>) -> T {
    let others = async {
        loop {
            let answer = within(PATIENCE, "others are answered", app.get("/livez")).await;
            assert_eq!(answer.status(), 200);
        }
    };
    tokio::select! {
        left = within(PATIENCE, "the slow one is left", slow) => left,
        never = others => never,
    }
}

fn http_of(app: &TestApp) -> String {
    app.url("").replace("http://", "")
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_and_holds_nobody_up() {
    let app = TestApp::plan().connection_times(SHORT).start().await;
    let head = b"GET /livez HTTP/1.1\r\nhost: streamgate\r\nx-slow: ";
    let connection = TcpStream::connect(http_of(&app)).await.unwrap();
    let slow = trickle(connection, head, Duration::from_millis(20));
    let heard = everybody_is_answered_until(&app, slow).await;
    assert!(heard.is_empty(), "it made no mistake but to be slow");
    app.stop().await;
}

#[tokio::test]
async fn idle_and_half_finished_clients_are_disconnected() {
    let app = TestApp::plan().connection_times(SHORT).start().await;
    let mut connections = Vec::new();
    for said in [
        "",
        "P",
        "GET /livez HTTP/1.1\r\nhost: ",
        // A client of HTTP/2 that only says that it is one; its settings never come.
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut connection = TcpStream::connect(http_of(&app)).await.unwrap();
        connection.write_all(said.as_bytes()).await.unwrap();
        connections.push(connection);
    }
    let mut kept = TcpStream::connect(http_of(&app)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&mut kept, "/livez").await.unwrap().status, 200);
    }
    connections.push(kept);
    let all = async {
        for connection in &mut connections {
            ended(connection).await;
        }
    };
    everybody_is_answered_until(&app, all).await;
    app.stop().await;
}

#[tokio::test]
async fn an_idle_connection_of_http_2_is_told_to_go() {
    let app = TestApp::plan().connection_times(SHORT).start().await;
    let connection = TcpStream::connect(http_of(&app)).await.unwrap();
    let (mut client, driving) = h2::client::handshake(connection).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move { driving.await.is_ok() });
    let request = http::Request::get("http://streamgate/livez").body(());
    let (answer, _) = client.send_request(request.unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let told = within(PATIENCE, "it is told to go", driver.join_next()).await;
    assert!(told.unwrap().unwrap(), "in good order");
    app.stop().await;
}

#[tokio::test]
async fn a_request_that_takes_its_time_is_not_taken_for_silence() {
    let app = TestApp::plan().connection_times(SHORT).start().await;
    let mut connection = TcpStream::connect(http_of(&app)).await.unwrap();
    let head = "POST /v1/release HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    // Another one that began later is left before this one's body comes.
    let mut later = TcpStream::connect(http_of(&app)).await.unwrap();
    ended(&mut later).await;
    let mut later = TcpStream::connect(http_of(&app)).await.unwrap();
    ended(&mut later).await;
    connection.write_all(b"[]").await.unwrap();
    let told = hear(&mut connection).await.unwrap();
    assert!((200..500).contains(&told.status), "{told:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let app = TestApp::plan().start().await;
    let mut connection = TcpStream::connect(http_of(&app)).await.unwrap();
    let head = format!(
        "GET /livez HTTP/1.1\r\nx-large: {}\r\n\r\n",
        "a".repeat(128 * 1024)
    );
    // It may be cut off before it has said all.
    drop(connection.write_all(head.as_bytes()).await);
    let mut heard = vec![0; 12];
    if connection.read_exact(&mut heard).await.is_ok() {
        assert_eq!(heard, b"HTTP/1.1 431");
    }
    everybody_is_answered_until(&app, ended(&mut connection)).await;
    app.stop().await;
}

#[tokio::test]
async fn a_handshake_that_stands_still_is_cut_off_and_holds_nobody_up() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let app = TestApp::plan()
        .connection_times(SHORT)
        .grpc_tls(folder.path("cert"), folder.path("key"));
    let app = app.start().await;
    let tls = client(&authority, None, &["h2"]);
    let mut stalled = Vec::new();
    for said in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0]] {
        for _ in 0..50 {
            let mut connection = TcpStream::connect(app.grpc()).await.unwrap();
            connection.write_all(said).await.unwrap();
            stalled.push(connection);
        }
    }
    let others = async {
        loop {
            let shaken = within(PATIENCE, "another handshake", connect(app.grpc(), &tls)).await;
            shaken.unwrap();
        }
    };
    let left = async {
        for connection in &mut stalled {
            ended(connection).await;
        }
    };
    tokio::select! {
        () = within(PATIENCE, "they are all left", left) => {}
        never = others => never,
    }
    app.stop().await;
}

#[tokio::test]
async fn a_client_idle_at_envoys_port_is_disconnected() {
    let app = TestApp::plan().connection_times(SHORT).start().await;
    let gateway = app.gateway().await;
    assert!(gateway.check(Check::of("anna", "r1")).await.is_allowed());
    for said in [Vec::new(), b"P".to_vec(), frames::hello()] {
        let mut silent = TcpStream::connect(app.grpc()).await.unwrap();
        silent.write_all(&said).await.unwrap();
        within(PATIENCE, "the silent one is left", ended(&mut silent)).await;
    }
    let answer = gateway.check(Check::of("anna", "r2")).await;
    assert!(answer.is_allowed(), "a gateway that has asked stays");
    let labels = "{port=\"grpc\",cause=\"silence\"}";
    let closed = format!("streamgate_connections_closed_total{labels}");
    assert_eq!(app.metric(&closed).await, 3);
    app.stop().await;
}

#[tokio::test]
async fn a_client_idle_after_the_handshake_is_disconnected() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let app = TestApp::plan()
        .connection_times(SHORT)
        .grpc_tls(folder.path("cert"), folder.path("key"));
    let app = app.start().await;
    let tls = client(&authority, None, &["h2"]);
    let mut silent = connect(app.grpc(), &tls).await.unwrap();
    within(PATIENCE, "the silent one is left", ended(&mut silent)).await;
    app.stop().await;
}

// === The real program, and many ===

/// How many connections a crowd has here.
fn crowd() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    usize::try_from(CROWD.min(files / 2)).unwrap()
}

/// Opens so many connections, a bounded number at one time, each by `open`.
async fn open_many<C>(count: usize, open: impl AsyncFn(usize) -> C) -> Vec<C> {
    let opening = stream::iter(0..count).map(|n| open(n));
    opening.buffer_unordered(AT_ONE_TIME).collect().await
}

/// One that has asked something, and is kept.
async fn idle<C: AsyncRead + AsyncWrite + Unpin>(mut connection: C) -> C {
    assert_eq!(ask(&mut connection, "/livez").await.unwrap().status, 200);
    connection
}

/// How long each of many requests takes, each over a connection of its own, and each check at the
/// same time.
async fn others(streamgate: &Streamgate, gateway: &Gateway) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..200 {
        let asking = Stopwatch::start();
        let connection = within(PATIENCE, "it listens", TcpStream::connect(streamgate.http)).await;
        within(PATIENCE, "others are answered", idle(connection.unwrap())).await;
        times.push(asking.elapsed());
        is_let_in(gateway, &format!("u{n}")).await;
    }
    times
}

/// A check that has to be answered, and lets its stream in.
async fn is_let_in(gateway: &Gateway, user: &str) {
    let check = Box::pin(gateway.check(Check::of(user, "r1")));
    let answer = within(PATIENCE, "checks are answered", check).await;
    assert!(answer.is_allowed(), "{answer:?}");
}

/// Waits until so many connections to the HTTP port are open.
async fn are_open(streamgate: &Streamgate, count: usize) {
    // The question itself comes over one more.
    let labels = [("port", "http")];
    streamgate
        .metric_becomes("streamgate_connections", &labels, |open| {
            open > count as f64
        })
        .await;
}

/// What each of so many takes of the process's memory.
fn memory_each(what: &str, before: u64, after: u64, count: usize) {
    let bytes = after.saturating_sub(before) * 1024 / count as u64;
    measured_memory(&format!("memory of one of {count} {what}"), bytes);
}

#[tokio::test]
async fn a_crowd_of_idle_connections_holds_nobody_up() {
    let count = crowd();
    let streamgate = Streamgate::start(&[("limits.grace", "0s")]).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    let before = others(&streamgate, &gateway).await;
    let (memory_before, _) = streamgate.memory();
    let connections = open_many(count, async |n| {
        let mut connection = TcpStream::connect(streamgate.http).await.unwrap();
        // Of each ten, one says nothing, one stops in the middle of its head, and the others have
        // sent a request.
        match n % 10 {
            0 => connection,
            1 => {
                connection.write_all(b"GET /livez HT").await.unwrap();
                connection
            }
            _ => idle(connection).await,
        }
    })
    .await;
    are_open(&streamgate, count).await;
    let (memory_after, _) = streamgate.memory();
    memory_each("idle connections", memory_before, memory_after, count);
    let meanwhile = others(&streamgate, &gateway).await;
    drop(connections);
    measured_many("a request over a new connection, nobody else there", before);
    let what = format!("a request over a new connection, {count} idle ones beside it");
    measured_many(&what, meanwhile);
}

#[tokio::test]
async fn a_crowd_of_idle_connections_over_tls_holds_nobody_up() {
    let count = crowd() / 10;
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let settings = folder.settings("http", &["cert", "key"]);
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let streamgate = Streamgate::start(&settings).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    let tls: Arc<ClientConfig> = client(&authority, None, &["http/1.1"]);
    let open = async |address: SocketAddr| idle(connect(address, &tls).await.unwrap()).await;
    drop(open(streamgate.http).await);
    let (memory_before, _) = streamgate.memory();
    let mut connections = open_many(count, async |_| open(streamgate.http).await).await;
    let (memory_after, _) = streamgate.memory();
    memory_each(
        "idle connections over TLS",
        memory_before,
        memory_after,
        count,
    );
    within(PATIENCE, "one more is served", open(streamgate.http)).await;
    is_let_in(&gateway, "anna").await;
    for connection in connections.iter_mut().step_by(100) {
        let told = within(PATIENCE, "an idle one is served", ask(connection, "/livez")).await;
        assert_eq!(told.unwrap().status, 200);
    }
}

#[tokio::test]
async fn http_clients_that_are_too_many_wait_and_leave_gateways_their_file_descriptors() {
    let streamgate = Streamgate::start_with_open_files(256, &[]).await;
    // Five eighths of 256 are let in, and each has made a request.
    let mut crowd = Vec::new();
    for _ in 0..160 {
        crowd.push(idle(TcpStream::connect(streamgate.http).await.unwrap()).await);
    }
    let mut last = TcpStream::connect(streamgate.http).await.unwrap();
    let request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    last.write_all(request).await.unwrap();
    streamgate
        .says("connection limit reached; new clients wait in the accept queue")
        .await;
    for n in 0..20 {
        let gateway = Gateway::connect(streamgate.grpc).await;
        let check = gateway.check(Check::of(&format!("u{n}"), "r1")).await;
        assert!(check.is_allowed());
    }
    drop(crowd);
    let told = within(PATIENCE, "it is its turn", hear(&mut last)).await;
    assert_eq!(told.unwrap().status, 200);
}

/// Opens more connections than a port accepts, one after the other; each sends these bytes and no
/// more.
async fn crowd_out(address: SocketAddr, said: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(said).await.unwrap();
        crowd.push(connection);
    }
    crowd
}

#[tokio::test]
async fn silent_connections_do_not_lock_a_new_gateway_out() {
    // Of 256 files, 64 are for gateways. An HTTP/2 client sends only a preface and settings before
    // its first request.
    let preface = frames::hello();
    for said in [&b""[..], b"P", &preface] {
        let streamgate = Streamgate::start_with_open_files(256, &[]).await;
        let old = Gateway::connect(streamgate.grpc).await;
        is_let_in(&old, "old").await;
        let mut crowd = crowd_out(streamgate.grpc, said).await;
        let new = within(
            PATIENCE,
            "a new gateway gets in",
            Gateway::connect(streamgate.grpc),
        );
        is_let_in(&new.await, "new").await;
        is_let_in(&old, "old again").await;
        within(
            PATIENCE,
            "the first to be silent is closed",
            ended(&mut crowd[0]),
        )
        .await;
        streamgate
            .says("connection limit reached; closing connections that have made no request")
            .await;
        let labels = [("port", "grpc"), ("cause", "crowded")];
        let closed = "streamgate_connections_closed_total";
        assert!(streamgate.metric(closed, &labels).await >= 1.0);
    }
}

#[tokio::test]
async fn handshakes_that_stand_still_do_not_lock_a_new_gateway_out() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let settings = folder.settings("grpc", &["cert", "key"]);
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    let streamgate = Streamgate::start_with_open_files(256, &settings).await;
    let tls = client(&authority, None, &["h2"]);
    let mut crowd = crowd_out(streamgate.grpc, &[0x16, 3, 1, 2, 0, 1, 0]).await;
    let new = within(
        PATIENCE,
        "a new one is let in",
        connect(streamgate.grpc, &tls),
    )
    .await;
    // After its handshake it says nothing, and so is like the others when still more come.
    let mut new = new.unwrap();
    within(PATIENCE, "the first is closed", ended(&mut crowd[0])).await;
    crowd.extend(crowd_out(streamgate.grpc, b"").await);
    within(PATIENCE, "the silent one is closed", ended(&mut new)).await;
}

#[tokio::test]
async fn silent_connections_do_not_lock_a_new_http_client_out() {
    let streamgate = Streamgate::start_with_open_files(256, &[]).await;
    let crowd = crowd_out(streamgate.http, b"GET /livez HT").await;
    let new = TcpStream::connect(streamgate.http).await.unwrap();
    within(PATIENCE, "a new client is served", idle(new)).await;
    drop(crowd);
}

#[tokio::test]
async fn a_process_that_is_out_of_file_descriptors_says_so_and_goes_on_when_it_has_some() {
    let streamgate = Streamgate::start(&[]).await;
    let mut kept = idle(TcpStream::connect(streamgate.http).await.unwrap()).await;
    let (soft, hard) = streamgate.open_files(None);
    let open = std::fs::read_dir(format!("/proc/{}/fd", streamgate.id()));
    let taken = u64::try_from(open.unwrap().count()).unwrap();
    streamgate.open_files(Some((taken, hard)));
    let mut waiting = TcpStream::connect(streamgate.http).await.unwrap();
    let request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    waiting.write_all(request).await.unwrap();
    let trouble = "failed to accept a connection; retrying";
    streamgate.says(trouble).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut kept, "/livez").await.unwrap().status, 200);
    }
    streamgate.open_files(Some((soft, hard)));
    let told = within(PATIENCE, "it is let in", hear(&mut waiting)).await;
    assert_eq!(told.unwrap().status, 200);
    assert_eq!(streamgate.log().matches(trouble).count(), 1);
}
