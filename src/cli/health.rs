//! `health`: one question to a running instance, for a container's health check.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Outcome, complain};
use crate::config::Listen;

/// For all of it: connecting, asking, hearing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How to speak TLS with it.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Tls {
    /// Speak TLS with what shows a certificate of this authority's (PEM).
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name in that certificate, where it isn't the IP that is asked.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    /// Show this certificate (PEM); needed where `grpc.tls.client_ca` is set.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Tls {
    /// What tonic makes of it, if TLS is to be spoken; which file can't be read, otherwise.
    fn config(&self) -> Result<Option<ClientTlsConfig>, String> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| format!("failed to read {}: {error}", path.display()))
        };
        let Some(ca) = &self.tls_ca else {
            return Ok(None);
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let Some(name) = &self.tls_name {
            config = config.domain_name(name);
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(Some(config))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("failed to start: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("failed to connect: {}", innermost(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("failed to ask: {0}")]
    Call(Box<tonic::Status>),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Asks, and says the answer.
pub(super) fn run(
    grpc: &Listen,
    tls: &Tls,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> Outcome {
    let tls = match tls.config() {
        Ok(tls) => tls,
        Err(problem) => return complain(errors, problem, Outcome::Usage),
    };
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(ask(grpc, tls)))
    {
        Ok(Ok(ServingStatus::Serving)) => {
            let _ = writeln!(out, "SERVING");
            Outcome::Ok
        }
        Ok(Ok(status)) => complain(
            errors,
            format_args!("{grpc} is {}", status.as_str_name()),
            Outcome::Refused,
        ),
        Ok(Err(error)) => complain(errors, format_args!("{grpc}: {error}"), Outcome::Outage),
        Err(error) => complain(errors, NoAnswer::from(error), Outcome::Outage),
    }
}

async fn ask(grpc: &Listen, tls: Option<ClientTlsConfig>) -> Result<ServingStatus, NoAnswer> {
    let asking = async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(target(grpc, scheme))?;
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls)?;
        }
        let channel = endpoint.connect().await?;
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let answer = HealthClient::new(channel)
            .check(request)
            .await
            .map_err(|status| NoAnswer::Call(status.into()))?;
        Ok(answer.into_inner().status())
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .unwrap_or(Err(NoAnswer::Timeout))
}

/// Where to reach what listens there: nobody can be reached at the unspecified address.
fn target(grpc: &Listen, scheme: &str) -> String {
    match grpc {
        Listen::Unix(_) => grpc.to_string(),
        Listen::Tcp(address) => format!(
            "{scheme}://{}",
            SocketAddr::new(reachable(address.ip()), address.port())
        ),
    }
}

fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The cause that says something: the outer ones only say that there was an error.
fn innermost(error: &dyn std::error::Error) -> String {
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
    use tonic::transport::Server;

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

    /// Asks from another thread, as another process would.
    async fn outcome(listen: Listen) -> (Outcome, String) {
        let asking = move || {
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            let outcome = run(&listen, &Tls::default(), &mut out, &mut errors);
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
                (Outcome::Ok, "SERVING\n".to_owned())
            );
            reporter
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
            let expected = format!("streamgate: {listen} is NOT_SERVING\n");
            assert_eq!(outcome(listen).await, (Outcome::Refused, expected));
        };
        tokio::select! { ended = serving => panic!("{ended:?}"), () = asking => () }
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
            answer = outcome(Listen::Unix(path)) => assert_eq!(answer, (Outcome::Ok, "SERVING\n".to_owned())),
        }
    }

    #[tokio::test]
    async fn nobody_there_or_nobody_answering_is_an_outage() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let (silent, text) = outcome(listen.clone()).await;
        assert_eq!(silent, Outcome::Outage);
        assert_eq!(
            text,
            format!("streamgate: {listen}: no answer within 1 s\n")
        );
        drop(listener);
        let (gone, text) = outcome(listen.clone()).await;
        assert_eq!(gone, Outcome::Outage);
        assert!(
            text.starts_with(&format!(
                "streamgate: {listen}: failed to connect: Connection refused"
            )),
            "{text}"
        );
    }
}
