//! `health`: asks a running instance for its health, for a container's health check; over TLS if
//! `--ca` is given.

use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;

use super::tls::{TlsArgs, TlsError};
use super::{CommandStatus, complain};
use crate::config::Listen;

/// The arguments of `health`.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// The gRPC address of the instance: IP:PORT, or `unix:` and a path. For an unspecified IP,
    /// loopback is asked.
    #[arg(
        long,
        value_name = "ADDR",
        env = "STREAMGATE_GRPC__LISTEN",
        default_value = "127.0.0.1:50051"
    )]
    pub(super) grpc: Listen,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// The name in the server's certificate, if it isn't the IP.
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub(super) server_name: Option<String>,
}

/// The time for connecting, asking and the answer together.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why the arguments can't be used.
#[derive(Debug, thiserror::Error)]
enum HealthUsageError {
    /// The files for TLS can't be used.
    #[error(transparent)]
    TlsFiles(#[from] TlsError),
    /// Arguments for TLS without `--ca`.
    #[error(
        "--cert, --key and --server-name need --ca with the certificates to trust; add it, or leave them out"
    )]
    NobodyToTrust,
    /// Arguments for TLS with a Unix socket, which has none.
    #[error("a Unix socket has no TLS; leave out --ca, --cert, --key and --server-name")]
    Socket,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum HealthError {
    /// The runtime didn't start.
    #[error("failed to start: {0}")]
    Runtime(#[from] std::io::Error),
    /// The connection failed.
    #[error("failed to connect: {}", innermost(.0))]
    Connect(#[from] tonic::transport::Error),
    /// The call failed.
    #[error("the call failed: {}", told(.0))]
    Call(Box<Status>),
    /// No answer came in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl HealthArgs {
    /// The settings for TLS, if it is used.
    fn tls(&self) -> Result<Option<ClientTlsConfig>, HealthUsageError> {
        if self.tls.is_empty() && self.server_name.is_none() {
            return Ok(None);
        }
        if let Listen::Unix(_) = self.grpc {
            return Err(HealthUsageError::Socket);
        }
        if self.tls.ca.is_none() {
            return Err(HealthUsageError::NobodyToTrust);
        }
        let tls = self.tls.load()?.for_grpc();
        Ok(Some(match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        }))
    }
}

/// Asks the instance, and prints its answer.
pub(super) fn run(
    args: &HealthArgs,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let (grpc, tls) = match args.tls() {
        Ok(tls) => (&args.grpc, tls),
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(ask(grpc, tls)))
    {
        Ok(Ok(ServingStatus::Serving)) => {
            let _ = writeln!(out, "SERVING");
            CommandStatus::Ok
        }
        Ok(Ok(status)) => complain(
            errors,
            format_args!("{grpc} is {}", status.as_str_name()),
            CommandStatus::Refused,
        ),
        Ok(Err(error)) => complain(
            errors,
            format_args!("{grpc}: {error}"),
            CommandStatus::Outage,
        ),
        Err(error) => complain(errors, HealthError::from(error), CommandStatus::Outage),
    }
}

/// The answer of the instance, if it comes in time.
async fn ask(grpc: &Listen, tls: Option<ClientTlsConfig>) -> Result<ServingStatus, HealthError> {
    let asking = async {
        let channel = endpoint(grpc, tls)?.connect().await?;
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let answer = HealthClient::new(channel.map_response(only_grpc))
            .check(request)
            .await
            .map_err(|status| HealthError::Call(status.into()))?;
        Ok(answer.into_inner().status())
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .unwrap_or(Err(HealthError::Timeout))
}

/// Checks that an answer is one of gRPC. Otherwise its bytes would be read as messages.
fn only_grpc(answer: http::Response<Body>) -> http::Response<Body> {
    let called = answer.headers().get(http::header::CONTENT_TYPE);
    if called.is_some_and(|called| called.as_bytes().starts_with(b"application/grpc")) {
        return answer;
    }
    let status = answer.status().as_u16();
    Status::unavailable(format!(
        "got HTTP {status} instead of gRPC; --grpc takes the address of grpc.listen, and this may be that of http.listen"
    ))
    .into_http()
}

/// The endpoint of the instance, with or without TLS.
fn endpoint(
    grpc: &Listen,
    tls: Option<ClientTlsConfig>,
) -> Result<Endpoint, tonic::transport::Error> {
    match tls {
        Some(tls) => Endpoint::from_shared(target(grpc, "https"))?.tls_config(tls),
        None => Endpoint::from_shared(target(grpc, "http")),
    }
}

/// The address to connect to for an address to listen on: loopback for the unspecified one.
fn target(grpc: &Listen, scheme: &str) -> String {
    match grpc {
        Listen::Unix(_) => grpc.to_string(),
        Listen::Tcp(address) => format!(
            "{scheme}://{}",
            SocketAddr::new(reachable(address.ip()), address.port())
        ),
    }
}

/// Parses a name that a certificate can have.
fn server_name(text: &str) -> Result<String, &'static str> {
    ServerName::try_from(text)
        .map(|_| text.to_owned())
        .map_err(|_| "allowed: a host name or an IP address")
}

/// The address at which an address to listen on is reached.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Describes a failed call: why it failed here, or what the server said.
fn told(status: &Status) -> String {
    match (status.source(), status.message()) {
        (Some(cause), _) => innermost(cause),
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

/// The innermost cause: the outer errors only say that there was one.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};
    use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
    use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:50051", "http://127.0.0.1:50051"),
            ("[::]:50051", "http://[::1]:50051"),
            ("10.1.2.3:50051", "http://10.1.2.3:50051"),
            ("unix:/run/streamgate.sock", "unix:/run/streamgate.sock"),
        ] {
            assert_eq!(target(&listen.parse().unwrap(), "http"), asked);
        }
    }

    /// Asks in plain text.
    async fn outcome(grpc: Listen) -> (CommandStatus, String) {
        outcome_of(HealthArgs {
            grpc,
            tls: TlsArgs::default(),
            server_name: None,
        })
        .await
    }

    /// Asks from another thread, as another process would.
    async fn outcome_of(args: HealthArgs) -> (CommandStatus, String) {
        let asking = move || {
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            let outcome = run(&args, &mut out, &mut errors);
            out.extend(errors);
            (outcome, String::from_utf8(out).unwrap())
        };
        tokio::task::spawn_blocking(asking).await.unwrap()
    }

    #[tokio::test]
    async fn the_exit_code_tells_serving_from_not_serving() {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let asking = async {
            assert_eq!(
                outcome(listen.clone()).await,
                (CommandStatus::Ok, "SERVING\n".to_owned())
            );
            reporter
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
            let expected = format!("streamgate: {listen} is NOT_SERVING\n");
            assert_eq!(outcome(listen).await, (CommandStatus::Refused, expected));
        };
        tokio::select! { ended = serving => panic!("{ended:?}"), () = asking => () }
    }

    /// The files of a server that requires client certificates, in a directory. Its own
    /// certificate, for `tv.example`, is also the authority for clients.
    fn certificate() -> (tempfile::TempDir, ServerTlsConfig) {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["tv.example".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(dir.path().join("cert.pem"), &cert).unwrap();
        std::fs::write(dir.path().join("key.pem"), &key).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&cert, &key))
            .client_ca_root(Certificate::from_pem(&cert));
        (dir, tls)
    }

    #[tokio::test]
    async fn who_speaks_tls_is_asked_over_tls_and_must_be_who_it_should_be() {
        let (dir, tls) = certificate();
        let (_reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = Listen::Tcp(listener.local_addr().unwrap());
        let serving = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let file = |name: &str| Some(dir.path().join(name));
        let ask = |named: bool, known: bool| {
            outcome_of(HealthArgs {
                grpc: grpc.clone(),
                tls: TlsArgs {
                    ca: file("cert.pem"),
                    cert: file("cert.pem").filter(|_| known),
                    key: file("key.pem").filter(|_| known),
                },
                server_name: named.then(|| "tv.example".to_owned()),
            })
        };
        let asking = async {
            let good = (CommandStatus::Ok, "SERVING\n".to_owned());
            assert_eq!(ask(true, true).await, good);
            for (wrong, expected) in [
                (ask(false, true).await, "certificate not valid for name"),
                // In these two, either connecting or the call fails, depending on timing.
                (ask(true, false).await, "failed"),
                (outcome(grpc.clone()).await, "failed"),
            ] {
                assert_eq!(wrong.0, CommandStatus::Outage);
                assert!(wrong.1.contains(expected), "{wrong:?}");
            }
        };
        tokio::select! { ended = serving => panic!("{ended:?}"), () = asking => () }
    }

    #[tokio::test]
    async fn tls_without_anybody_to_trust_or_to_a_socket_is_a_mistake() {
        for (grpc, ca, server_name, expected) in [
            (
                "127.0.0.1:1",
                None,
                Some("tv.example"),
                "need --ca with the certificates to trust",
            ),
            (
                "unix:/a.sock",
                Some("ca.pem"),
                None,
                "a Unix socket has no TLS; leave out --ca",
            ),
            (
                "127.0.0.1:1",
                Some("/nowhere/ca.pem"),
                None,
                "failed to read /nowhere/ca.pem: ",
            ),
        ] {
            let (outcome, told) = outcome_of(HealthArgs {
                grpc: grpc.parse().unwrap(),
                tls: TlsArgs {
                    ca: ca.map(Into::into),
                    ..TlsArgs::default()
                },
                server_name: server_name.map(str::to_owned),
            })
            .await;
            assert_eq!(outcome, CommandStatus::Usage);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_asked_too() {
        let (_reporter, service) = tonic_health::server::health_reporter();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grpc.sock");
        let listener = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(listener);
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            answer = outcome(Listen::Unix(path)) => assert_eq!(answer, (CommandStatus::Ok, "SERVING\n".to_owned())),
        }
    }

    #[tokio::test]
    async fn what_is_no_grpc_port_is_named_as_such() {
        let refuses = || async { (http::StatusCode::NOT_FOUND, "{\"status\": 404}") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(refuses);
        let serving = axum::serve(listener, app).into_future();
        let expected = format!(
            "streamgate: {listen}: the call failed: got HTTP 404 instead of gRPC; \
             --grpc takes the address of grpc.listen, and this may be that of http.listen\n"
        );
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            answer = outcome(listen) => assert_eq!(answer, (CommandStatus::Outage, expected)),
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_know_the_service_is_quoted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let other = tonic_reflection::server::Builder::configure();
        let other = other.build_v1().unwrap();
        let serving = Server::builder()
            .add_service(other)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            (outcome, told) = outcome(listen.clone()) => {
                assert_eq!(outcome, CommandStatus::Outage);
                let expected = format!("streamgate: {listen}: the call failed: Operation is not implemented");
                assert!(told.starts_with(&expected) && !told.contains("code:"), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_there_or_nobody_answering_is_an_outage() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let (silent, text) = outcome(listen.clone()).await;
        assert_eq!(silent, CommandStatus::Outage);
        assert_eq!(
            text,
            format!("streamgate: {listen}: no answer within 1 s\n")
        );
        drop(listener);
        let (gone, text) = outcome(listen.clone()).await;
        assert_eq!(gone, CommandStatus::Outage);
        assert!(
            text.starts_with(&format!(
                "streamgate: {listen}: failed to connect: Connection refused"
            )),
            "{text}"
        );
    }
}
