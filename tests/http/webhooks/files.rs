//! The file of webhooks: it is followed, mistakes are named, no secret shows; receivers over TLS,
//! and the one in the documents.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::receiver::{Receiver, Reply, SECRETS, WebhooksFile};
use testkit::api::Api;
use testkit::app::TestApp;
use testkit::pki::{Authority, Folder};
use testkit::process::{Process, command};
use testkit::streamgate::{Streamgate, run};
use testkit::tools::{repository, tool};
use testkit::watch::{PATIENCE, within};

/// The setting that names a file.
fn setting(file: &Path) -> (&str, &str) {
    ("events.webhooks_file", file.to_str().unwrap())
}

/// Starts a session of that name.
async fn start(service: &Streamgate, session: &str) {
    let url = format!("http://{}/v1/users/anna/sessions/{session}", service.http);
    let answer = reqwest::Client::new().put(url).json(&json!({}));
    assert_eq!(answer.send().await.unwrap().status(), 201);
}

/// How often the file was read again with that outcome, in the end.
async fn was_read(service: &Streamgate, outcome: &str, times: f64) {
    let labels = [("file", "webhooks"), ("outcome", outcome)];
    let name = "streamgate_reloads_total";
    service
        .metric_becomes(name, &labels, |count| count == times)
        .await;
}

#[tokio::test]
async fn a_changed_file_applies_and_a_mistake_in_it_does_not() {
    let (mut first, mut second) = (Receiver::start().await, Receiver::start().await);
    let file = WebhooksFile::of(&[first.line(&SECRETS[..1])]);
    let path = file.path();
    let service = Streamgate::start(&[setting(&path)]).await;
    start(&service, "p1").await;
    assert_eq!(first.events(1).await, ["started p1"]);
    file.write(&[first.line(&SECRETS[..1]), "hunter2".to_owned()]);
    was_read(&service, "failed", 1.0).await;
    let told = service
        .line("the changed files can't be used; what was read before stays in force")
        .await;
    let problem = told["problem"].as_str().unwrap();
    assert!(
        problem.contains("webhooks: line 2: it begins with"),
        "{problem}"
    );
    file.write(&[second.line(&SECRETS[..1])]);
    was_read(&service, "ok", 1.0).await;
    start(&service, "p2").await;
    let told = ["configuration_changed", "started p2"];
    assert_eq!(second.events(2).await, told);
    assert!(!first.has_more());
    file.write(&[]);
    was_read(&service, "ok", 2.0).await;
    start(&service, "p3").await;
    assert!(!service.log().contains("hunter2"));
}

#[tokio::test]
async fn a_changed_configuration_is_an_event_that_names_what_has_changed() {
    let mut receiver = Receiver::start().await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let path = file.path();
    let config = path.with_file_name("config");
    let write = |limit: u32, lease: &str| {
        let text = format!(
            "events: {{webhooks_file: {}}}\nlimits: {{default: {limit}, users: {{anna: {limit}}}}}\n\
             leases: {{request: {lease}}}\n# end\n",
            path.display()
        );
        std::fs::write(&config, text).unwrap();
    };
    write(3, "15s");
    let _service = Streamgate::start(&[("config", config.to_str().unwrap())]).await;
    write(7, "20s");
    let message = receiver.message(&SECRETS[..1]).await;
    let event = &message.events[0];
    assert_eq!(event["type"], "configuration_changed");
    let told = "leases.request: 15s to 20s, after a restart; limits.default: 3 to 7; \
                limits.users of anna: 3 to 7";
    assert_eq!(event["detail"], told);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_the_file_changes() {
    let mut receiver = Receiver::replying(&[Reply::Status(410)]).await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let path = file.path();
    let service = Streamgate::start(&[setting(&path)]).await;
    start(&service, "p1").await;
    assert_eq!(receiver.events(1).await, ["started p1"]);
    let name = "streamgate_webhook_events_total";
    let refused = [("outcome", "refused")];
    service
        .metric_becomes(name, &refused, |count| count == 1.0)
        .await;
    service.says("the receiver answered 410").await;
    start(&service, "p2").await;
    service
        .metric_becomes(name, &refused, |count| count == 2.0)
        .await;
    file.write(&[format!("{} types=started", receiver.line(&SECRETS[..1]))]);
    was_read(&service, "ok", 1.0).await;
    start(&service, "p3").await;
    let message = receiver.message(&SECRETS[..1]).await;
    let gap = &message.events[0];
    assert_eq!(
        (&gap["type"], &gap["detail"]),
        (&json!("gap"), &json!("2 events could not be delivered"))
    );
    assert_eq!(message.events[1]["session"], "p3");
}

#[tokio::test]
async fn each_mistake_in_the_file_is_named_before_the_start() {
    let secret = SECRETS[0].0;
    for (line, told) in [
        (
            "http://hunter2/",
            "line 1: it begins with the receiver's secrets",
        ),
        (
            &*format!("{secret} hunter2"),
            "line 1: after the secrets comes the receiver's address",
        ),
        (
            &*format!("{secret} http://a/ hunter2"),
            "line 1: after the address comes only types=",
        ),
    ] {
        let file = WebhooksFile::of(&[line.to_owned()]);
        let path = file.path();
        let config = path.with_file_name("config");
        let text = format!("events: {{webhooks_file: {}}}\n", path.display());
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap();
        for arguments in [
            &["check-config", config][..],
            &["serve", "--config", config],
        ] {
            let (code, shown, errors) = run(arguments, &[]).await;
            assert_eq!(code, 2, "{errors}");
            let expected = format!("events.webhooks_file: {}: {told}", path.display());
            assert!(errors.contains(&expected), "{errors}");
            let all = shown + &errors;
            assert!(!all.contains("hunter2") && !all.contains(secret), "{all}");
        }
    }
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let replies = [Reply::Status(500), Reply::Status(404)];
    let mut receiver = Receiver::replying(&replies).await;
    let file = WebhooksFile::of(&[receiver.line(&SECRETS[..1])]);
    let path = file.path();
    let trace = ("telemetry.log_level", "trace");
    let service = Streamgate::start(&[setting(&path), trace]).await;
    start(&service, "p1").await;
    receiver.message(&SECRETS[..1]).await;
    receiver.message(&SECRETS[..1]).await;
    service.says("a receiver refuses events").await;
    let mut told = service.log();
    for page in ["/v1/instance", "/metrics"] {
        told += &service.get(page).await.text().await.unwrap();
    }
    assert!(told.contains("events.webhooks_file"));
    let secret = SECRETS[0].0.trim_start_matches("whsec_");
    assert!(!told.contains(secret), "{told}");
    // The path of an address may be a secret too.
    assert!(!told.contains("hunter2"), "{told}");
}

/// Takes one POST over TLS with that certificate, and answers 204; the body.
async fn take_over_tls(listener: TcpListener, folder: &Folder) -> Value {
    let read = |name| std::fs::read(folder.path(name)).unwrap();
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(&read("cert"))
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let (stream, _) = listener.accept().await.unwrap();
    let stream = acceptor.accept(stream).await.unwrap();
    let (sender, mut body) = tokio::sync::mpsc::unbounded_channel();
    let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
        let sender = sender.clone();
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await?;
            sender.send(body.to_bytes()).unwrap();
            let answer = hyper::Response::builder().status(204);
            let nothing = http_body_util::Empty::<bytes::Bytes>::new();
            Ok::<_, hyper::Error>(answer.body(nothing).unwrap())
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(connection.serve_connection(TokioIo::new(stream), service));
    let body = within(PATIENCE, "a POST comes", body.recv()).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_receiver_over_tls_needs_a_certificate_of_a_known_authority() {
    let authority = Authority::new("known");
    let folder = Folder::with(&authority.issue(), &authority);
    folder.write("trusted", &authority.pem);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let file = WebhooksFile::of(&[format!("{} https://{address}/in", SECRETS[0].0)]);
    let path = file.path();
    let trusted = folder.path("trusted");
    let service = Streamgate::start_trusting(&trusted, &[setting(&path)]).await;
    start(&service, "p1").await;
    let body = take_over_tls(listener, &folder).await;
    assert_eq!(body["data"]["events"][0]["session"], "p1");
    // Another authority's certificate is refused, and the log says why.
    let stranger = Authority::new("unknown");
    let folder = Folder::with(&stranger.issue(), &stranger);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    file.write(&[format!("{} https://{address}/in", SECRETS[0].0)]);
    was_read(&service, "ok", 1.0).await;
    let mut refusing = tokio::task::JoinSet::new();
    refusing.spawn(async move { take_over_tls(listener, &folder).await });
    start(&service, "p2").await;
    let told = service
        .line("a receiver doesn't take events; they wait, and are sent again")
        .await;
    let problem = told["problem"].as_str().unwrap();
    assert!(problem.contains("certificate"), "{problem}");
}

#[tokio::test]
async fn the_receiver_in_the_documents_takes_events_and_nothing_else() {
    let mut receiver = command(tool("python3", "python3"));
    receiver.arg(repository("docs/clients/webhook.py"));
    let secrets = SECRETS.map(|(text, _)| text).join(",");
    receiver.env("SECRETS", secrets).env("PORT", "0");
    let mut receiver = Process::start("webhook.py", receiver);
    let find = |text: &str| {
        let (_, rest) = text.split_once("listening on ")?;
        Some(rest.split_once('\n')?.0.to_owned())
    };
    let port = receiver.says("it listens", find).await;
    let url = format!("http://127.0.0.1:{port}/in");
    let file = WebhooksFile::of(&[format!("{} {url}", SECRETS[1].0)]);
    let app = TestApp::plan().webhooks(file.path()).start().await;
    Api::of(&app).put("anna", "p1", json!({})).await;
    let line = |text: &str| text.contains("started anna p1\n").then_some(());
    receiver.says("the start", line).await;
    app.stop().await;
    let forged = reqwest::Client::new().post(&url).body("{}").send();
    assert_eq!(forged.await.unwrap().status(), 401);
}
