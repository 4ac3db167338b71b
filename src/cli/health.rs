//! `health`: one question to a running instance, for a container's health check.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Outcome, complain};
use crate::config::Listen;

/// For all of it: connecting, asking, hearing.
const TIMEOUT: Duration = Duration::from_secs(1);

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
pub(super) fn run(grpc: &Listen, out: &mut impl Write, errors: &mut impl Write) -> Outcome {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(ask(grpc)))
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

async fn ask(grpc: &Listen) -> Result<ServingStatus, NoAnswer> {
    let asking = async {
        let channel = Endpoint::from_shared(target(grpc))?.connect().await?;
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
fn target(grpc: &Listen) -> String {
    match grpc {
        Listen::Unix(_) => grpc.to_string(),
        Listen::Tcp(address) => format!(
            "http://{}",
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
            assert_eq!(target(&listen.parse().unwrap()), asked);
        }
    }

    /// Asks from another thread, as another process would.
    async fn outcome(listen: Listen) -> (Outcome, String) {
        let asking = move || {
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            let outcome = run(&listen, &mut out, &mut errors);
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
