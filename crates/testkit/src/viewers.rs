//! Owns the clients: players that behave, and rude ones that write bytes and cut connections.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::watch::{PATIENCE, within};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use streamgate::clock::Stopwatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// More than the backend's first chunk, so that reading this much proves that the stream continues.
const ENOUGH_VIDEO: usize = 1000;

/// Clients of one gateway.
#[derive(Debug)]
pub struct Viewers {
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    http1: Client,
    http2: Client,
}

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// It was let in, and plays.
    LetIn(Playing),
    /// It was refused.
    Refused(Refusal),
}

/// The response of an admitted stream. Dropping it means that the player leaves: HTTP/1.1 closes
/// the connection, HTTP/2 resets the stream.
#[derive(Debug)]
pub struct Playing {
    /// Empty where streamgate was not asked.
    pub session: String,
    response: Response,
}

/// A request that was not let in.
#[derive(Debug)]
pub struct Refusal {
    /// The status of the refusal.
    pub status: StatusCode,
    headers: HeaderMap,
    /// The body of the refusal: a problem, or a text.
    pub problem: Value,
}

/// A connection on which everything can be said, and which can be cut.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
    received: Vec<u8>,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

// === impl Viewers ===

impl Viewers {
    /// Clients of the gateway at that address.
    pub fn of(gateway: SocketAddr) -> Self {
        let client = || Client::builder().no_proxy();
        Self {
            gateway,
            http1: client().http1_only().build().unwrap(),
            http2: client().http2_prior_knowledge().build().unwrap(),
        }
    }

    /// A request over HTTP/1.1 without a signed token.
    pub fn anonymous(&self, path: &str) -> RequestBuilder {
        self.http1.get(format!("http://{}{path}", self.gateway))
    }

    /// A user's request over HTTP/1.1.
    pub fn http1(&self, user: &str, path: &str) -> RequestBuilder {
        self.anonymous(path).header("x-user-id", user)
    }

    /// A user's request over HTTP/2, all on one connection.
    pub fn http2(&self, user: &str, path: &str) -> RequestBuilder {
        let request = self.http2.get(format!("http://{}{path}", self.gateway));
        request.header("x-user-id", user)
    }

    /// What becomes of a request.
    pub async fn ask(&self, request: RequestBuilder) -> Answer {
        let answer = within(PATIENCE, "the gateway answers", request.send()).await;
        let response = answer.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            let session = text_of(&headers, "x-streamgate-session");
            return Answer::LetIn(Playing { session, response });
        }
        let body = within(PATIENCE, "a refusal is read", response.text()).await;
        Answer::Refused(Refusal::of(status, headers, &body.unwrap()))
    }

    /// Opens what must be let in.
    pub async fn let_in(&self, request: RequestBuilder) -> Playing {
        match self.ask(request).await {
            Answer::LetIn(playing) => playing,
            Answer::Refused(refusal) => panic!("expected to be let in, got {refusal}"),
        }
    }

    /// Opens a live stream that must be let in, and sees it play.
    pub async fn watch(&self, request: RequestBuilder) -> Playing {
        let mut playing = self.let_in(request).await;
        playing.plays().await;
        playing
    }

    /// Asks for what must be refused.
    pub async fn refused(&self, request: RequestBuilder) -> Refusal {
        match self.ask(request).await {
            Answer::Refused(refusal) => refusal,
            Answer::LetIn(playing) => panic!("expected a refusal, was let in as {playing:?}"),
        }
    }

    /// Asks again and again until let in; the stream, and how long that took.
    pub async fn let_in_within(
        &self,
        bound: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> (Playing, Duration) {
        let asking = Stopwatch::start();
        loop {
            match self.ask(request()).await {
                Answer::LetIn(playing) => return (playing, asking.elapsed()),
                Answer::Refused(refusal) => {
                    let asked = asking.elapsed();
                    let patient = refusal.reason() == "full" && asked < bound;
                    assert!(patient, "still refused after {asked:?}: {refusal}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Checks that exactly these sessions hold the user's slots, which must all be taken, by asking
    /// for one more.
    pub async fn assert_full(&self, user: &str, holders: &[&Playing]) {
        let refusal = self.refused(self.http1(user, "/live/one-too-many")).await;
        refusal.assert_full(holders);
    }

    /// Sends bytes of one's own making on a connection of one's own.
    pub async fn raw(&self, request: &[u8]) -> Raw {
        let mut socket = TcpStream::connect(self.gateway).await.unwrap();
        socket.set_nodelay(true).unwrap();
        // The server may close the connection before it has read all of an invalid request.
        let _ = socket.write_all(request).await;
        Raw {
            socket,
            received: Vec::new(),
        }
    }

    /// A plain request on a connection of its own; `headers` are whole lines.
    pub async fn raw_get(&self, user: &str, path: &str, headers: &[&str]) -> Raw {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nx-user-id: {user}\r\n");
        for line in headers {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.raw(request.as_bytes()).await
    }

    /// Opens a WebSocket and waits for its first tick.
    ///
    /// # Errors
    ///
    /// Fails if it is not let in.
    pub async fn websocket(&self, user: &str) -> Result<Socket, Refusal> {
        self.websocket_with("x-user-id", user).await
    }

    /// The same for whom that header names.
    ///
    /// # Errors
    ///
    /// Fails if it is not let in.
    pub async fn websocket_with(
        &self,
        header: &'static str,
        value: &str,
    ) -> Result<Socket, Refusal> {
        let mut request = format!("ws://{}/ws", self.gateway)
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        match within(PATIENCE, "a WebSocket opens", connect_async(request)).await {
            Ok((socket, _)) => {
                let mut socket = Socket(socket);
                socket.ticks().await;
                Ok(socket)
            }
            Err(tungstenite::Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body =
                    String::from_utf8_lossy(body.as_deref().unwrap_or_default()).into_owned();
                Err(Refusal::of(head.status, head.headers, &body))
            }
            Err(error) => panic!("a WebSocket could not be opened: {error}"),
        }
    }
}

// === impl Playing ===

impl Playing {
    /// Reads until video has arrived more than once.
    pub async fn plays(&mut self) {
        let mut received = 0;
        while received < ENOUGH_VIDEO {
            let chunk = within(PATIENCE, "video arrives", self.response.chunk()).await;
            received += chunk.unwrap().expect("an endless stream").len();
        }
    }

    /// Reads to the end, an error or not; returns how many bytes came.
    pub async fn rest(mut self) -> usize {
        let reading = async {
            let mut received = 0;
            while let Ok(Some(chunk)) = self.response.chunk().await {
                received += chunk.len();
            }
            received
        };
        within(PATIENCE, "the stream ends", reading).await
    }
}

// === impl Refusal ===

impl Refusal {
    fn of(status: StatusCode, headers: HeaderMap, body: &str) -> Self {
        let problem = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        Self {
            status,
            headers,
            problem,
        }
    }

    /// The value of a header; empty where it is missing.
    pub fn header(&self, name: &str) -> String {
        text_of(&self.headers, name)
    }

    /// The reason that the problem gives; empty where it gives none.
    pub fn reason(&self) -> &str {
        let reason = self.problem.get("reason").and_then(Value::as_str);
        reason.unwrap_or_default()
    }

    /// It says that these sessions, and no others, hold all of the user's slots.
    pub fn assert_full(&self, holders: &[&Playing]) {
        let expected: BTreeSet<&str> = holders.iter().map(|held| held.session.as_str()).collect();
        assert_eq!(
            (self.status.as_u16(), self.reason()),
            (429, "full"),
            "{self}"
        );
        assert_eq!(self.holders(), expected, "{self}");
        assert_eq!(
            self.problem.get("active"),
            Some(&holders.len().into()),
            "{self}"
        );
    }

    /// The sessions that it says hold the slots.
    pub fn holders(&self) -> BTreeSet<&str> {
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

// === impl Raw ===

impl Raw {
    /// Reads the answer's head; the status, or `None` if the connection ended without one.
    pub async fn status(&mut self) -> Option<u16> {
        let head =
            self.read_until(|received| received.windows(4).any(|bytes| bytes == b"\r\n\r\n"));
        head.await;
        let text = String::from_utf8_lossy(&self.received);
        text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// The value of a header in the answer's head, byte for byte.
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        let start = [b"\r\n", name.as_bytes(), b": "].concat();
        let at = self
            .received
            .windows(start.len())
            .position(|bytes| bytes == start)?;
        let rest = self.received.get(at + start.len()..)?;
        rest.split(|byte| *byte == b'\r').next().map(<[u8]>::to_vec)
    }

    /// Reads until video has come.
    pub async fn plays(&mut self) {
        self.read_until(|received| received.len() > ENOUGH_VIDEO)
            .await;
        let text = String::from_utf8_lossy(&self.received);
        assert!(
            text.starts_with("HTTP/1.1 200"),
            "expected to be let in, got {text}"
        );
    }

    async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.received) {
            let reading = self.socket.read_buf(&mut self.received);
            match within(PATIENCE, "the gateway answers", reading).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Resets the connection, as the system does for a player that is killed with data unread.
    pub fn cut(self) {
        self.socket.set_zero_linger().unwrap();
    }
}

// === impl Socket ===

impl Socket {
    /// Waits for the next tick.
    pub async fn ticks(&mut self) {
        let message = within(PATIENCE, "the WebSocket ticks", self.0.next()).await;
        assert!(matches!(message, Some(Ok(Message::Text(_)))), "{message:?}");
    }

    /// Closes it as the protocol wants it.
    pub async fn close(mut self) {
        self.0.close(None).await.unwrap();
    }
}

/// A header's value; an empty text if it is missing or not text, which then differs from any
/// expected value.
fn text_of(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(|value| value.as_bytes().to_vec());
    value
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default()
}
