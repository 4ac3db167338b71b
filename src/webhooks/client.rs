//! The HTTP client: it sends one POST, and says what became of it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tracing::warn;

/// How long one POST may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may wait for the next POST.
const IDLE: Duration = Duration::from_secs(30);

/// How many bytes of an answer are read, so that its connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;

/// What became of a POST.
#[derive(Debug, Clone)]
pub(super) enum PostAnswer {
    /// The receiver has answered with this status, and perhaps `Retry-After`.
    Status(StatusCode, Option<HeaderValue>),
    /// It hasn't answered in time.
    Late,
    /// There was no connection, or it broke.
    Failed(String),
}

/// Sends POSTs.
#[async_trait]
pub(super) trait Post: fmt::Debug + Send + Sync + 'static {
    /// Sends one.
    async fn post(&self, request: Request<Bytes>) -> PostAnswer;
}

/// Sends POSTs over HTTP/1.1. It follows no redirect.
#[derive(Debug)]
pub(super) struct WebhookClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

// === impl PostAnswer ===

impl fmt::Display for PostAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, _) => write!(f, "it answered {status}"),
            Self::Late => write!(f, "no answer within {} s", TIMEOUT.as_secs()),
            Self::Failed(problem) => f.write_str(problem),
        }
    }
}

// === impl WebhookClient ===

impl WebhookClient {
    /// A client that trusts the authorities that the system trusts.
    ///
    /// # Errors
    /// TLS can't be used at all.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self(client))
    }
}

#[async_trait]
impl Post for WebhookClient {
    async fn post(&self, request: Request<Bytes>) -> PostAnswer {
        let exchange = async {
            let answer = match self.0.request(request.map(Full::new)).await {
                Ok(answer) => answer,
                Err(problem) => return PostAnswer::Failed(cause(&problem)),
            };
            let after = answer.headers().get(header::RETRY_AFTER).cloned();
            let status = answer.status();
            // The status says it all.
            let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            PostAnswer::Status(status, after)
        };
        timeout(TIMEOUT, exchange).await.unwrap_or(PostAnswer::Late)
    }
}

/// The settings of TLS. Where the system has no authorities, no receiver is trusted.
fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let trusting = match settings.clone().try_with_platform_verifier() {
        Ok(trusting) => trusting,
        Err(problem) => {
            warn!(%problem, "webhooks trust no receiver over https: the certificates of the system's authorities can't be read; SSL_CERT_FILE can name a file with some");
            settings.with_root_certificates(RootCertStore::empty())
        }
    };
    Ok(trusting.with_no_client_auth())
}

/// The innermost cause of an error; the outer ones only say at which step it happened.
fn cause(problem: &dyn Error) -> String {
    let mut cause = problem;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
