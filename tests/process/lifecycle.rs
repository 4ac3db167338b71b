//! From start to end: ports, signals, the order of the drain, the log, and exit codes.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamgate::app::RunError;
use streamgate::clock::{ManualClock, Stopwatch};
use tokio::io::AsyncWriteExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use streamgate::store::faulty::FaultyStore;
use testkit::app::TestApp;
use testkit::gateway_client::{Check, Gateway, LogStream, end};
use testkit::process::Process;
use testkit::streamgate::{Streamgate, program, run};
use testkit::watch::{PATIENCE, eventually};

/// The status by gRPC health, over each of its calls.
async fn health(address: SocketAddr) -> i32 {
    let mut client = HealthClient::new(Gateway::connect(address).await.channel());
    let mut told = Vec::new();
    for service in [
        "",
        "envoy.service.auth.v3.Authorization",
        "envoy.service.accesslog.v3.AccessLogService",
    ] {
        let service = service.to_owned();
        let answer = client.check(HealthCheckRequest { service }).await.unwrap();
        told.push(answer.into_inner().status);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    told[0]
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_key_and_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (key, grpc, http) in [
        ("grpc.listen", &*address, free),
        ("http.listen", free, &*address),
    ] {
        let environment = [
            ("STREAMGATE_GRPC__LISTEN", grpc),
            ("STREAMGATE_HTTP__LISTEN", http),
        ];
        let (code, _, told) = run(&["serve"], &environment).await;
        assert_eq!(code, 2, "{told}");
        let expected = format!("failed to listen on {address} ({key}): Address already in use");
        assert!(told.contains(&expected), "{told}");
    }
}

#[tokio::test]
async fn wrong_settings_are_told_before_anything_starts() {
    let (code, _, told) = run(&["serve"], &[("STREAMGATE_LIMITS__DEFAULT", "many")]).await;
    assert_eq!(code, 2);
    assert!(
        told.contains("STREAMGATE_LIMITS__DEFAULT") && told.contains("\"many\""),
        "{told}"
    );
    let (code, _, told) = run(&["serve", "--config", "/nowhere.yaml"], &[]).await;
    assert_eq!(code, 2);
    assert!(told.contains("/nowhere.yaml"), "{told}");
    assert_eq!(run(&["serve", "--confg"], &[]).await.0, 2);
    assert_eq!(run(&[], &[]).await.0, 2);
    assert_eq!(run(&["--version"], &[]).await.0, 0);
}

#[tokio::test]
async fn check_config_tells_a_good_file_from_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "limits: {default: 2}\n").unwrap();
    let (code, printed, _) = run(&["check-config", name], &[]).await;
    assert!(code == 0 && printed.contains("default: 2"), "{printed}");
    std::fs::write(&file, "limits: {defualt: 2}\n").unwrap();
    let (code, _, told) = run(&["check-config", name], &[]).await;
    assert_eq!(code, 2);
    assert!(told.contains("defualt") && told.contains(name), "{told}");
}

#[tokio::test]
async fn sigterm_says_so_and_goes_on_answering_before_it_ends() {
    let grace = [
        ("STREAMGATE_SHUTDOWN__GRACE", "2s"),
        ("STREAMGATE_LIMITS__DEFAULT", "1"),
    ];
    let mut service = Streamgate::start(&grace).await;
    let (address, named) = (service.grpc, service.grpc.to_string());
    assert_eq!(service.get("/readyz").await.status(), 200);
    assert_eq!(health(address).await, SERVING);
    assert_eq!(run(&["health", "--grpc", &named], &[]).await.0, 0);
    let gateway = service.gateway().await;
    let first = gateway.check(Check::of("anna", "r1")).await;
    let mut log = LogStream::open(address).await;
    let watch = Stopwatch::start();
    service.signal("TERM").await;
    eventually("it isn't ready", async || {
        service.get("/readyz").await.status() == 503
    })
    .await;
    assert_eq!(health(address).await, NOT_SERVING);
    let (code, _, told) = run(&["health", "--grpc", &named], &[]).await;
    assert_eq!(code, 1, "{told}");
    // Checks are answered, over old connections and new, and access logs are read.
    log.send(vec![end("r1", &first)]);
    let late = service.gateway().await;
    eventually("the slot is free", async || {
        late.check(Check::of("anna", "r2")).await.is_allowed()
    })
    .await;
    assert_eq!(log.ended().await, 0, "its end is in good order");
    drop(log);
    assert_eq!(service.stopped().await.code(), Some(0));
    let took = watch.elapsed();
    assert!((2..10).contains(&took.as_secs()), "it took {took:?}");
    service.line("stopped: everything was delivered").await;
    assert_eq!(run(&["health", "--grpc", &named], &[]).await.0, 3);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_not_in_good_order() {
    for signals in [["TERM", "TERM"], ["INT", "TERM"]] {
        let mut service = Streamgate::start(&[("STREAMGATE_SHUTDOWN__GRACE", "10s")]).await;
        let watch = Stopwatch::start();
        service.signal(signals[0]).await;
        service.line("asked to stop: draining").await;
        service.signal(signals[1]).await;
        assert_eq!(service.stopped().await.code(), Some(3));
        assert!(
            watch.elapsed() < Duration::from_secs(8),
            "{:?}",
            watch.elapsed()
        );
    }
}

#[tokio::test]
async fn queued_notices_are_delivered_before_the_outbox_ends() {
    let store = FaultyStore::at(Arc::new(ManualClock::default()));
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let mut log = gateway.access_log().await;
    let mut ends = Vec::new();
    for user in 0..300 {
        let answer = gateway.check(Check::of(&format!("u{user}"), "r")).await;
        ends.push(end("r", &answer));
    }
    store.hold();
    log.send(ends);
    log.finish().await;
    app.ask_to_stop();
    let stopping = app.stopped();
    let letting_go = async {
        store.asked("release", 1).await;
        store.let_go();
    };
    let (stopped, ()) = tokio::join!(stopping, letting_go);
    stopped.unwrap();
    for user in 0..300 {
        assert_eq!(store.live(&format!("u{user}")).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_drain_that_reaches_its_deadline_says_what_is_lost() {
    let store = FaultyStore::new();
    let deadline = Duration::from_millis(300);
    let app = TestApp::plan()
        .store(store.clone())
        .drain(Duration::ZERO, deadline);
    let app = app.start().await;
    let gateway = app.gateway().await;
    let answer = gateway.check(Check::of("anna", "r1")).await;
    store.hold();
    let mut log = gateway.access_log().await;
    log.send(vec![end("r1", &answer)]);
    log.finish().await;
    match app.stopped().await {
        Err(RunError::CutShort(1)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_can_hold_up_the_drain_by_doing_nothing() {
    let app = TestApp::plan().start().await;
    let mut watcher = HealthClient::new(app.gateway().await.channel());
    let mut watching = watcher
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status, SERVING);
    let http = app.url("").replace("http://", "");
    let mut half = tokio::net::TcpStream::connect(&http).await.unwrap();
    half.write_all(b"POST /v1/release HTTP/1.1\r\ncontent-length: 10\r\n\r\n{")
        .await
        .unwrap();
    let silent = tokio::net::TcpStream::connect(&http).await.unwrap();
    let idle = app.gateway().await;
    let log = idle.access_log().await;
    let watch = Stopwatch::start();
    app.stop().await;
    let took = watch.elapsed();
    assert!(took < PATIENCE / 2, "the drain took {took:?}");
    drop((watching, half, silent, idle, log));
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_even_where_a_dead_process_left_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grpc.sock");
    let listen = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener leaves its file behind");
    let environment = [
        ("STREAMGATE_GRPC__LISTEN", &*listen),
        ("STREAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
        ("STREAMGATE_SHUTDOWN__GRACE", "0s"),
    ];
    let mut service = Process::start("streamgate", program(&["serve"], &environment));
    service
        .says("it serves there", |log| log.contains(&listen).then_some(()))
        .await;
    assert_eq!(run(&["health", "--grpc", &listen], &[]).await.0, 0);
    let (code, _, told) = run(&["serve"], &environment).await;
    assert_eq!(code, 2, "somebody listens there: {told}");
    assert!(
        told.contains(&format!("failed to listen on {listen} (grpc.listen)")),
        "{told}"
    );
    assert_eq!(
        run(&["health", "--grpc", &listen], &[]).await.0,
        0,
        "it still listens"
    );
    service.signal("TERM").await;
    assert_eq!(service.ended().await.code(), Some(0));
    assert!(!path.exists(), "the file goes with its listener");
    assert_eq!(run(&["health", "--grpc", &listen], &[]).await.0, 3);
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(run(&["serve"], &environment).await.0, 2);
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"precious",
        "no socket, not ours"
    );
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_socket_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grpc.sock");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = format!("unix:{}", path.display());
    let environment = [
        ("STREAMGATE_GRPC__LISTEN", &*listen),
        ("STREAMGATE_HTTP__LISTEN", &*address),
    ];
    assert_eq!(run(&["serve"], &environment).await.0, 2);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_start_line_tells_what_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    std::fs::write(&file, "limits: {default: 5, enforce: false}").unwrap();
    let file = file.to_str().unwrap();
    let service = Streamgate::start(&[
        ("STREAMGATE_CONFIG", file),
        ("STREAMGATE_STORE__BACKEND", "redis"),
        // No server needs to be there.
        (
            "STREAMGATE_STORE__REDIS__URLS",
            "redis://gate:hunter2@127.0.0.1:1/2",
        ),
        ("STREAMGATE_STORE__OUTAGE", "local"),
        ("RUST_LOG", "trace"),
    ])
    .await;
    let line = service.line("serving").await;
    for (field, expected) in [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("file", json!(file)),
        ("limit", json!(5)),
        ("outage_rule", json!("local")),
        ("dry_run", json!(true)),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    let store = line["store"].as_str().unwrap();
    assert!(
        store.contains("127.0.0.1:1/2") && !store.contains("hunter2"),
        "{store}"
    );
    let ignored = "RUST_LOG is ignored; set telemetry.log_level (STREAMGATE_TELEMETRY__LOG_LEVEL)";
    assert_eq!(service.line(ignored).await["level"], "WARN");
    let alone = Streamgate::start(&[("RUST_LOG", "")]).await;
    let line = alone.line("serving").await;
    assert_eq!(
        (&line["store"], &line["dry_run"]),
        (&json!("memory"), &json!(false))
    );
    assert!(
        line.get("file").is_none() && alone.lines(ignored).is_empty(),
        "{line}"
    );
}

#[tokio::test]
async fn a_refusal_is_explained_in_one_line_a_user() {
    let limits = [
        ("STREAMGATE_LIMITS__DEFAULT", "2"),
        ("STREAMGATE_LIMITS__GRACE", "0s"),
    ];
    let service = Streamgate::start(&limits).await;
    let gateway = service.gateway().await;
    for id in ["r1", "r2"] {
        assert!(gateway.check(Check::of("anna", id)).await.is_allowed());
    }
    for n in 0..20 {
        let refused = gateway.check(Check::of("anna", &format!("late-{n}"))).await;
        assert_eq!(refused.http, 429);
    }
    assert!(
        gateway
            .check(Check::of_playback("ben", "p1"))
            .await
            .is_allowed()
    );
    for id in ["p2", "p3"] {
        gateway.check(Check::of_playback("ben", id)).await;
    }
    let message = "a stream was refused";
    service.line(message).await;
    eventually("ben has his line too", async || {
        service.lines(message).len() == 2
    })
    .await;
    let lines = service.lines(message);
    let (anna, ben) = (&lines[0], &lines[1]);
    for (line, field, expected) in [
        (anna, "level", "INFO"),
        (anna, "request.id", "late-0"),
        (anna, "user.id", "anna"),
        (anna, "session.key", "request:late-0"),
        (anna, "reason", "full"),
        (ben, "user.id", "ben"),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert_eq!(anna["holders"], json!(["request:r1", "request:r2"]));
    assert_eq!(ben["holders"], json!(["playback:p1", "playback:p2"]));
    assert_eq!(
        (&anna["count"], &anna["limit"]),
        (&2.into(), &2.into()),
        "{anna}"
    );
    service.line("the store answers").await;
    assert_eq!(service.lines("the store answers").len(), 1);
}

#[tokio::test]
async fn a_misconfigured_route_is_told_once_in_a_while_and_not_with_each_request() {
    let service = Streamgate::start(&[]).await;
    let gateway = service.gateway().await;
    for list in ["basics", "principals"] {
        for n in 0..20 {
            let check = Check::of("anna", &format!("r{n}")).route("streamgate.session", list);
            assert_eq!(gateway.check(check).await.http, 500);
        }
    }
    let told = |list: &str| {
        format!(
            "this route's context extension streamgate.session is wrong: got \"{list}\"; allowed: header:NAME, cookie:NAME, query:NAME, cmcd:KEY, jwt:CLAIM, context:KEY, path:REGEX, basic, principal or request; several joined by +"
        )
    };
    let line = service.line(&told("principals")).await;
    assert_eq!(
        (&line["level"], &line["request.id"]),
        (&"WARN".into(), &"r0".into())
    );
    for list in ["basics", "principals"] {
        assert_eq!(service.lines(&told(list)).len(), 1, "{list}");
    }
}

#[tokio::test]
async fn a_default_install_explains_a_viewer_who_was_not_even_counted() {
    let service = Streamgate::start(&[]).await;
    let gateway = service.gateway().await;
    let names_none = |id: &str| Check::of("anna", id).route("streamgate.session", "query:session");
    for n in 0..3 {
        let nobody = Check::of("anna", &format!("nobody-{n}")).without("x-user-id");
        assert_eq!(gateway.check(nobody).await.http, 401);
        assert_eq!(
            gateway.check(names_none(&format!("which-{n}"))).await.http,
            400
        );
    }
    for (told, request, user, reason) in [
        (
            "nothing in the request says which user it is from",
            "nobody-0",
            Value::Null,
            "no_user",
        ),
        (
            "nothing in the request says which playback it belongs to",
            "which-0",
            "anna".into(),
            "no_session",
        ),
    ] {
        let message = format!("a request was refused: {told}");
        let line = service.line(&message).await;
        assert_eq!(
            (
                &line["level"],
                &line["request.id"],
                &line["user.id"],
                &line["reason"]
            ),
            (&"INFO".into(), &request.into(), &user, &reason.into())
        );
        assert_eq!(service.lines(&message).len(), 1, "{told}");
    }
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let app = TestApp::plan().start().await;
    let mut client = ServerReflectionClient::new(app.gateway().await.channel());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    for service in [
        "envoy.service.auth.v3.Authorization",
        "envoy.service.accesslog.v3.AccessLogService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&service), "no {service} in {names:?}");
    }
    app.stop().await;
}
