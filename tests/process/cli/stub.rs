//! A server that gives every request the same answer, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Runs until it is dropped.
pub(super) struct Stub {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its method and address.
    pub(super) line: String,
    /// Its `Authorization`.
    pub(super) authorization: Option<String>,
    /// All the rest of its head.
    pub(super) rest: String,
}

/// Takes connections that speak TLS, and forgets those that fail at it.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Stub {
    /// Answers so.
    pub(super) async fn start<A: IntoResponse>(
        answer: impl Fn() -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("http", listener().await, answer)
    }

    /// Answers so to who speaks TLS.
    pub(super) async fn start_tls<A: IntoResponse>(
        config: ServerConfig,
        answer: impl Fn() -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TlsListener {
            tcp: listener().await,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        Self::start_on("https", listener, answer)
    }

    fn start_on<L: Listener<Addr = SocketAddr>, A: IntoResponse>(
        scheme: &'static str,
        listener: L,
        answer: impl Fn() -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            remembered.lock().unwrap().push(Asked::of(&request));
            let response: Response = answer().into_response();
            async move { response }
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            scheme,
            address,
            asked,
            _serving: serving,
        }
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The methods and addresses of all requests so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

impl Asked {
    fn of(request: &Request) -> Self {
        let mut headers = request.headers().clone();
        let authorization = headers.remove("authorization");
        Self {
            line: format!("{} {}", request.method(), request.uri()),
            authorization: authorization.map(|header| header.to_str().unwrap().to_owned()),
            rest: format!("{headers:?}"),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}
