//! The viewers in `check`: real clients that report what they got, and hold what they opened until
//! dropped.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::failure::{Doing, Failure};
use crate::ports::loopback;

/// The time limit for any answer, and for the first second of video.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the backend's first chunk, so that this much proves a continuing stream.
const ENOUGH_VIDEO: usize = 1000;
const TS_SYNC: u8 = 0x47;

/// The protocol between a viewer and the gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// How a viewer identifies itself.
#[derive(Debug)]
pub(crate) enum Identity {
    /// By name: the demo's gateway trusts it.
    Name,
    /// By a token that the gateway verifies, one for each user.
    Token(HashMap<String, String>),
}

/// The gateway, and a tally of its answers.
#[derive(Debug)]
pub(crate) struct Gateway {
    authority: String,
    identity: Identity,
    http1: Client,
    http2: Client,
    allowed: AtomicU64,
    full: AtomicU64,
}

impl Identity {
    /// The identifying header. A user without a token sends an empty one, and is nobody.
    fn of(&self, user: &str) -> (&'static str, String) {
        match self {
            Self::Name => ("x-user-id", user.to_owned()),
            Self::Token(tokens) => {
                let token = tokens.get(user).map_or("", String::as_str);
                ("authorization", format!("Bearer {token}"))
            }
        }
    }
}

impl Gateway {
    pub(crate) fn new(port: u16, identity: Identity) -> Result<Self, Failure> {
        let client = || Client::builder().no_proxy();
        Ok(Self {
            authority: loopback(port).to_string(),
            identity,
            http1: client()
                .http1_only()
                .build()
                .doing(|| "make an HTTP/1.1 client".to_owned())?,
            http2: client()
                .http2_prior_knowledge()
                .build()
                .doing(|| "make an HTTP/2 client".to_owned())?,
            allowed: AtomicU64::new(0),
            full: AtomicU64::new(0),
        })
    }

    /// How many requests were let in, and how many were refused because all of the user's slots
    /// were taken.
    pub(crate) fn tally(&self) -> (u64, u64) {
        (
            self.allowed.load(Ordering::Relaxed),
            self.full.load(Ordering::Relaxed),
        )
    }

    /// A request of `user`, to be completed and passed to `send`.
    pub(crate) fn get(&self, protocol: Protocol, user: &str, path: &str) -> RequestBuilder {
        let client = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let (name, value) = self.identity.of(user);
        client
            .get(format!("http://{}{path}", self.authority))
            .header(name, value)
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = patiently("get an answer from the gateway", request.send()).await?;
        if response.status().is_success() {
            self.allowed.fetch_add(1, Ordering::Relaxed);
            return Ok(Answer::LetIn(Playing {
                session: session_of(response.headers()),
                response,
            }));
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = patiently("read a refusal", response.text()).await?;
        Ok(Answer::Refused(self.refusal(status, headers, &body)))
    }

    /// Opens a WebSocket and waits for its first tick.
    pub(crate) async fn websocket(&self, user: &str) -> Result<Result<Socket, Refusal>, Failure> {
        let mut request = format!("ws://{}/ws", self.authority)
            .into_client_request()
            .doing(|| "make a WebSocket request".to_owned())?;
        let (name, value) = self.identity.of(user);
        let value = value.parse().doing(|| format!("send the user {user}"))?;
        request.headers_mut().insert(name, value);
        match timeout(PATIENCE, connect_async(request))
            .await
            .doing(|| "open a WebSocket in time".to_owned())?
        {
            Ok((socket, _)) => {
                self.allowed.fetch_add(1, Ordering::Relaxed);
                Ok(Ok(Socket(socket)))
            }
            Err(tungstenite::Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body =
                    String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
                Ok(Err(self.refusal(head.status, head.headers, &body)))
            }
            Err(error) => Err(Failure::new(format!("could not open a WebSocket: {error}"))),
        }
    }

    /// A stream on a separate connection, which can be cut.
    pub(crate) async fn connection(&self, user: &str, path: &str) -> Result<Connection, Failure> {
        let mut socket = patiently(
            "connect to the gateway",
            TcpStream::connect(&self.authority),
        )
        .await?;
        let (name, value) = self.identity.of(user);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n{name}: {value}\r\n\r\n",
            self.authority
        );
        patiently("send a request", socket.write_all(request.as_bytes())).await?;
        let mut received = Vec::new();
        while received.len() < ENOUGH_VIDEO {
            if patiently("read a stream", socket.read_buf(&mut received)).await? == 0 {
                break;
            }
        }
        let text = String::from_utf8_lossy(&received);
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        if !head.starts_with("HTTP/1.1 200") {
            return Err(Failure::new(format!(
                "expected a stream that plays, got: {text}"
            )));
        }
        self.allowed.fetch_add(1, Ordering::Relaxed);
        let session = head
            .lines()
            .find_map(|line| line.strip_prefix("x-streamgate-session: "));
        Ok(Connection {
            session: session.unwrap_or_default().to_owned(),
            socket,
        })
    }

    fn refusal(&self, status: StatusCode, headers: HeaderMap, body: &str) -> Refusal {
        let problem = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        let refusal = Refusal {
            status,
            headers,
            problem,
        };
        if refusal.problem.get("reason").and_then(Value::as_str) == Some("full") {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        refusal
    }
}

// === What comes back ===

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    LetIn(Playing),
    Refused(Refusal),
}

/// A response that was let in. Dropping it means that the player has gone: HTTP/1.1 closes the
/// connection, HTTP/2 resets the stream.
#[derive(Debug)]
pub(crate) struct Playing {
    pub(crate) session: String,
    response: Response,
}

impl Playing {
    /// Reads until it is certain that video keeps arriving.
    pub(crate) async fn plays(&mut self) -> Result<(), Failure> {
        let mut received = Vec::new();
        while received.len() < ENOUGH_VIDEO {
            match patiently("read a stream", self.response.chunk()).await? {
                Some(chunk) => received.extend_from_slice(&chunk),
                None => {
                    return Err(Failure::new(format!(
                        "expected an endless stream, it ended after {} bytes",
                        received.len()
                    )));
                }
            }
        }
        is_video(&received)
    }

    /// Reads to the end; returns the content type and the bytes.
    pub(crate) async fn whole(self) -> Result<(String, Vec<u8>), Failure> {
        let content_type = header(self.response.headers(), "content-type").to_owned();
        let body = patiently("read a response", self.response.bytes()).await?;
        Ok((content_type, body.into()))
    }
}

/// A stream on a raw connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: String,
    socket: TcpStream,
}

impl Connection {
    /// Cuts the connection with a reset, as when a player is killed.
    pub(crate) fn cut(self) -> Result<(), Failure> {
        self.socket
            .set_zero_linger()
            .doing(|| "cut a connection".to_owned())
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Waits for the next tick.
    pub(crate) async fn ticks(&mut self) -> Result<(), Failure> {
        let message = timeout(PATIENCE, self.0.next())
            .await
            .doing(|| "see the WebSocket tick in time".to_owned())?;
        match message {
            Some(Ok(tungstenite::Message::Text(text))) if text.starts_with("tick ") => Ok(()),
            other => Err(Failure::new(format!(
                "expected a tick on the WebSocket, got {other:?}"
            ))),
        }
    }

    /// Closes it with the protocol's handshake.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        patiently("close the WebSocket", self.0.close(None)).await
    }
}

/// A refused request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) problem: Value,
}

impl Refusal {
    pub(crate) fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }

    pub(crate) fn reason(&self) -> &str {
        self.problem
            .get("reason")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The sessions that hold the slots, according to the refusal.
    pub(crate) fn holders(&self) -> BTreeSet<&str> {
        let sessions = self.problem.get("sessions").and_then(Value::as_array);
        sessions
            .into_iter()
            .flatten()
            .filter_map(|session| session.get("session")?.as_str())
            .collect()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.problem)
    }
}

// === Small things ===

/// An empty string if the header is missing, so that it differs from any expected value.
fn header<'headers>(headers: &'headers HeaderMap, name: &str) -> &'headers str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn session_of(headers: &HeaderMap) -> String {
    header(headers, "x-streamgate-session").to_owned()
}

pub(crate) fn is_video(bytes: &[u8]) -> Result<(), Failure> {
    match bytes.first() {
        Some(&TS_SYNC) => Ok(()),
        other => Err(Failure::new(format!(
            "expected MPEG-TS, whose first byte is {TS_SYNC:#x}, got {other:x?}"
        ))),
    }
}

pub(crate) async fn patiently<T, E: fmt::Display>(
    doing: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    timeout(PATIENCE, work)
        .await
        .doing(|| format!("{doing} in time"))?
        .doing(|| doing.to_owned())
}
