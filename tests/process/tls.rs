//! TLS on both ports: which clients are served, and that certificates are replaced without an
//! interruption.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::envoy_files::{at_mut, fragment};
use testkit::gateway::Setup;
use testkit::gateway_client::{Check, Gateway, LogStream, end};
use testkit::origin::Origin;
use testkit::pki::{Authority, Folder, NAME, client, connect, grpc_client, seen};
use testkit::streamgate::{Streamgate, run};
use testkit::talk::{ask, ended};
use testkit::viewers::Viewers;
use testkit::watch::eventually;

const PORTS: [&str; 2] = ["grpc", "http"];
const WITHOUT_CLIENT_CA: &[&str] = &["cert", "key"];
const WITH_CLIENT_CA: &[&str] = &["cert", "key", "client_ca"];

/// A streamgate that speaks TLS on both ports, with these of a folder's files.
async fn serve(folder: &Folder, names: &[&str]) -> Streamgate {
    let settings: Vec<_> = PORTS
        .iter()
        .flat_map(|port| folder.settings(port, names))
        .collect();
    let settings = settings.iter().map(|(key, value)| (&**key, &**value));
    Streamgate::start(&settings.collect::<Vec<_>>()).await
}

/// The answer to a request over a new connection to the HTTP port, if its client is accepted.
async fn get(
    address: SocketAddr,
    client: &std::sync::Arc<rustls::ClientConfig>,
    path: &str,
) -> std::io::Result<String> {
    let mut connection = connect(address, client).await?;
    let told = ask(&mut connection, path).await?;
    assert_eq!(told.status, 200, "{}", told.body);
    Ok(told.body)
}

/// How often files have been reloaded with that outcome.
async fn reloads(
    address: SocketAddr,
    client: &std::sync::Arc<rustls::ClientConfig>,
    file: &str,
    outcome: &str,
) -> u64 {
    let text = get(address, client, "/metrics").await.unwrap();
    let series = format!("streamgate_reloads_total{{file=\"{file}\",outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&*series));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn both_ports_speak_tls_and_http_in_either_version() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let service = serve(&folder, WITHOUT_CLIENT_CA).await;
    let http = service.http;
    for protocols in [&["http/1.1"][..], &[]] {
        let client = client(&authority, None, protocols);
        assert_eq!(get(http, &client, "/livez").await.unwrap(), "alive\n");
    }

    let client = client(&authority, None, &["h2", "http/1.1"]);
    let connection = connect(http, &client).await.unwrap();
    assert_eq!(connection.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut asking, driving) = h2::client::handshake(connection).await.unwrap();
    let request = http::Request::get("https://streamgate.internal/livez").body(());
    let (answer, _) = asking.send_request(request.unwrap(), true).unwrap();
    tokio::select! {
        answer = answer => assert_eq!(answer.unwrap().status(), 200),
        ended = driving => panic!("{ended:?}"),
    }

    let grpc = service.grpc;
    let gateway = Gateway::connect_over_tls(grpc, grpc_client(&authority, None)).await;
    let answer = gateway.unwrap().check(Check::of("anna", "r1")).await;
    assert!(answer.is_allowed(), "{answer:?}");
}

#[tokio::test]
async fn plain_text_at_a_tls_port_is_refused_without_harm_to_others() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let service = serve(&folder, WITHOUT_CLIENT_CA).await;
    let (grpc, http) = (service.grpc, service.http);
    let client = client(&authority, None, &[]);
    let mut kept = connect(http, &client).await.unwrap();
    let gateway = Gateway::connect_over_tls(grpc, grpc_client(&authority, None)).await;
    let gateway = gateway.unwrap();
    for address in [grpc, http] {
        for said in [
            "GET /livez HTTP/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut plain = TcpStream::connect(address).await.unwrap();
            plain.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            drop(plain.read_to_end(&mut heard).await);
            let heard = String::from_utf8_lossy(&heard);
            assert!(!heard.contains("HTTP") && heard.len() < 32, "{heard}");
        }
    }
    assert_eq!(ask(&mut kept, "/livez").await.unwrap().status, 200);
    assert!(gateway.check(Check::of("anna", "r1")).await.is_allowed());
}

#[tokio::test]
async fn with_a_client_ca_nobody_is_served_without_a_certificate_of_its_own() {
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let folder = Folder::with(&ours.issue(), &ours);
    let service = serve(&folder, WITH_CLIENT_CA).await;
    let (grpc, http) = (service.grpc, service.http);
    let (known, unknown) = (ours.issue(), strangers.issue());
    for (shown, is_served) in [(None, false), (Some(&unknown), false), (Some(&known), true)] {
        let answer = get(http, &client(&ours, shown, &[]), "/livez").await;
        assert_eq!(answer.is_ok(), is_served, "{answer:?}");
        let allowed = match Gateway::connect_over_tls(grpc, grpc_client(&ours, shown)).await {
            Ok(gateway) => gateway.try_check(Check::of("anna", "r1")).await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(allowed, is_served, "gRPC");
    }
}

#[tokio::test]
async fn health_over_tls_needs_a_client_certificate() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let service = serve(&folder, WITH_CLIENT_CA).await;
    let named = service.grpc.to_string();
    let path = |name: &str| folder.path(name).display().to_string();
    let (ca, cert, key) = (path("client_ca"), path("cert"), path("key"));
    let (trust, show) = (["--ca", &ca], ["--cert", &cert, "--key", &key]);
    let nothing = ["--ca", "/nowhere"];
    for (flags, code) in [
        ([&trust[..], &show, &["--server-name", NAME]].concat(), 0),
        ([&trust[..], &show].concat(), 0),
        (
            [&trust[..], &show, &["--server-name", "somebody.else"]].concat(),
            3,
        ),
        (trust.to_vec(), 3),
        (vec![], 3),
        (nothing.to_vec(), 2),
        (show.to_vec(), 2),
    ] {
        let asked = [&["health", "--grpc", &named], &flags[..]].concat();
        let (ended, _, told) = run(&asked, &[]).await;
        assert_eq!(ended, code, "{asked:?}: {told}");
    }
}

#[tokio::test]
async fn envoy_plays_and_releases_over_mutual_tls_with_the_shipped_fragment() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let envoys = Folder::with(&authority.issue(), &authority);
    let settings = folder.settings("grpc", WITH_CLIENT_CA);
    let mut settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (&**key, &**value))
        .collect();
    settings.push(("limits.default", "2"));
    let streamgate = Streamgate::start(&settings).await;
    let origin = Origin::start().await;

    let mut tls = fragment("tls");
    let context = "/transport_socket/typed_config/common_tls_context";
    for (file, name) in [
        ("tls_certificates/0/certificate_chain", "cert"),
        ("tls_certificates/0/private_key", "key"),
        ("validation_context/trusted_ca", "client_ca"),
    ] {
        let path = Value::from(envoys.path(name).display().to_string());
        *at_mut(&mut tls, &format!("{context}/{file}/filename")) = path;
    }
    let setup = Setup::demo(&[streamgate.grpc], origin.address).ways(&tls);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let first = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let second = viewers.watch(viewers.http2("alice", "/live/2")).await;
    viewers.assert_full("alice", &[&first, &second]).await;
    drop(first);
    let next = || viewers.http1("alice", "/live/3");
    let bound = std::time::Duration::from_secs(1);
    viewers.let_in_within(bound, next).await;
    assert!(
        streamgate
            .metric("streamgate_connections", &[("port", "grpc")])
            .await
            > 0.0
    );
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections_and_old_ones_go_on() {
    let authority = Authority::new("ours");
    let (old, new) = (authority.issue_until(2100), authority.issue_until(2101));
    let folder = Folder::with(&old, &authority);
    let service = serve(&folder, WITHOUT_CLIENT_CA).await;
    let (grpc, http) = (service.grpc, service.http);
    let client = client(&authority, None, &[]);
    let shown = async |address| -> CertificateDer<'static> {
        seen(&connect(address, &client).await.unwrap())
    };
    let runs_out = async |port: &str, at: &str| {
        let name = "streamgate_certificate_expires_timestamp_seconds";
        let line = format!("{name}{{port=\"{port}\"}} {at}\n");
        eventually(&line, async || {
            let text = get(http, &client, "/metrics").await.unwrap();
            text.contains(&line)
        })
        .await;
    };
    for port in ["grpc", "http"] {
        runs_out(port, "4102444800").await;
    }
    let mut kept = connect(http, &client).await.unwrap();
    assert_eq!(ask(&mut kept, "/livez").await.unwrap().status, 200);
    let gateway = Gateway::connect_over_tls(grpc, grpc_client(&authority, None)).await;
    let gateway = gateway.unwrap();
    let playing = gateway.check(Check::of("anna", "r1")).await;
    let mut log = LogStream::over(connect(grpc, &client).await.unwrap()).await;
    assert_eq!(shown(grpc).await, old.der());

    // As a person does it: one file after the other.
    folder.write("cert", &new.cert);
    folder.write("key", &new.key);
    for address in [grpc, http] {
        eventually("the new certificate is shown", async || {
            shown(address).await == new.der()
        })
        .await;
    }
    let message = "the changed files have been read and are in force";
    service.line(message).await;
    for port in ["grpc", "http"] {
        runs_out(port, "4133980800").await;
    }

    assert_eq!(ask(&mut kept, "/livez").await.unwrap().status, 200);
    assert_eq!(seen(&kept), old.der());
    log.send(vec![end("r1", &playing)]);
    eventually("the end has arrived over the old connection", async || {
        let text = get(http, &client, "/metrics").await.unwrap();
        text.contains("streamgate_releases_total{cause=\"access_log\"} 1\n")
    })
    .await;
    assert!(gateway.check(Check::of("anna", "r2")).await.is_allowed());
    for file in ["grpc_tls", "http_tls"] {
        assert_eq!(reloads(http, &client, file, "ok").await, 1, "{file}");
    }
}

#[tokio::test]
async fn a_certificate_that_can_not_be_used_changes_nothing_and_shows() {
    let authority = Authority::new("ours");
    let (old, new) = (authority.issue(), authority.issue());
    let folder = Folder::with(&old, &authority);
    let service = serve(&folder, WITHOUT_CLIENT_CA).await;
    let http = service.http;
    let client = client(&authority, None, &[]);
    let failed = async |times| {
        eventually("it has been seen to fail", async || {
            reloads(http, &client, "http_tls", "failed").await == times
        })
        .await;
        seen(&connect(http, &client).await.unwrap())
    };
    folder.write("cert", "no certificate");
    assert_eq!(failed(1).await, old.der());
    std::fs::remove_file(folder.path("cert")).unwrap();
    assert_eq!(failed(2).await, old.der());
    folder.write("cert", &old.cert);
    // The key first, and its certificate after some time.
    folder.write("key", &new.key);
    assert_eq!(failed(3).await, old.der());
    folder.write("cert", &new.cert);
    eventually("the new pair is in force", async || {
        seen(&connect(http, &client).await.unwrap()) == new.der()
    })
    .await;
    assert_eq!(reloads(http, &client, "http_tls", "ok").await, 1);
    let unusable = "the changed files can't be used; what was read before stays in force";
    let about_http = || {
        let mut told = service.lines(unusable);
        told.retain(|line| line["file"] == "http_tls");
        told
    };
    eventually("each trouble is told", async || about_http().len() >= 3).await;
    let about_http = about_http();
    assert_eq!(about_http.len(), 3, "each trouble once: {about_http:#?}");
    let problem = about_http[2]["problem"].as_str().unwrap();
    assert!(problem.starts_with("http.tls.key: "), "{problem}");
    let secret = new.key.lines().nth(1).unwrap();
    assert!(!format!("{:?}", service.lines(unusable)).contains(secret));
}

#[tokio::test]
async fn a_client_of_a_former_ca_stays_out_even_with_an_old_tls_session() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let folder = Folder::with(&before.issue(), &before);
    let service = serve(&folder, WITH_CLIENT_CA).await;
    let http = service.http;
    let (old, new) = (before.issue(), after.issue());
    let old = client(&before, Some(&old), &[]);
    let new = client(&before, Some(&new), &[]);
    for _ in 0..3 {
        get(http, &old, "/livez").await.unwrap();
    }
    folder.write("client_ca", &after.pem);
    eventually("the new authority is trusted", async || {
        get(http, &new, "/livez").await.is_ok()
    })
    .await;
    let refused = get(http, &old, "/livez").await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named_before_anything_serves() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.issue(), authority.issue());
    let folder = Folder::with(&one, &authority);
    folder.write("key", &other.key);
    let config = folder.path("streamgate.yaml");
    let place = folder.at().display();
    let text = format!(
        "grpc: {{tls: {{cert: {place}/cert, key: {place}/key}}}}\n\
         http: {{tls: {{cert: {place}/cert, key: {place}/nothing}}}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let unfit = format!(
        "grpc.tls.key: {place}/key: is not the key of the certificate in {place}/cert (grpc.tls.cert); "
    );
    let missing =
        format!("http.tls.key: failed to read {place}/nothing: No such file or directory");
    let secret = other.key.lines().nth(1).unwrap();
    let (code, _, told) = run(&["check-config", config], &[]).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains(&unfit) && told.contains(&missing), "{told}");
    assert!(!told.contains(secret), "{told}");
    let (code, _, told) = run(&["serve", "--config", config], &[]).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains(&unfit) && !told.contains("serving"), "{told}");
    assert!(!told.contains(secret), "{told}");

    folder.write("key", &one.key);
    folder.write("nothing", &one.key);
    let (code, printed, told) = run(&["check-config", config], &[]).await;
    assert_eq!((code, &*told), (0, ""));
    assert!(
        printed.contains(&format!("    cert: \"{place}/cert\"\n")),
        "{printed}"
    );
}

#[tokio::test]
async fn connections_over_tls_end_with_the_process() {
    let authority = Authority::new("ours");
    let folder = Folder::with(&authority.issue(), &authority);
    let mut service = serve(&folder, WITHOUT_CLIENT_CA).await;
    let http = service.http;
    let mut idle = connect(http, &client(&authority, None, &[])).await.unwrap();
    assert_eq!(ask(&mut idle, "/livez").await.unwrap().status, 200);
    // One that never makes its handshake.
    let mut silent = TcpStream::connect(http).await.unwrap();
    service.signal("TERM").await;
    ended(&mut idle).await;
    ended(&mut silent).await;
    assert_eq!(service.stopped().await.code(), Some(0));
}
