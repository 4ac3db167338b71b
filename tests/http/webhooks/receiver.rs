//! A receiver of webhooks: it hands each message to the test, and answers as the test has said.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use testkit::watch::{PATIENCE, within};

/// Two secrets, as they are written, and their bytes.
pub(super) const SECRETS: [(&str, &[u8]); 2] = [
    (
        "whsec_b25lIHNlY3JldCBvZiB0aGUgcmVjZWl2ZXIncyBvd24=",
        b"one secret of the receiver's own",
    ),
    (
        "whsec_dGhlIG90aGVyIHNlY3JldCBvZiB0aGUgcmVjZWl2ZXI=",
        b"the other secret of the receiver",
    ),
];

/// How the receiver answers a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    /// By this status.
    Status(u16),
    /// Never.
    Hang,
}

/// A message that has come.
#[derive(Debug)]
pub(super) struct Message {
    /// Its id.
    pub(super) id: String,
    /// Its events.
    pub(super) events: Vec<Value>,
}

/// A receiver, until it is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What has come.
    came: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    _serving: JoinSet<()>,
}

/// What the receiver's answers need.
#[derive(Debug, Clone)]
struct Shared {
    came: mpsc::UnboundedSender<(HeaderMap, Bytes)>,
    /// The next replies; then it is 204, or for ever the last one.
    replies: Arc<Mutex<VecDeque<Reply>>>,
    is_last_for_ever: bool,
}

/// A file of webhooks, which lies in a folder of its own until it is dropped.
#[derive(Debug)]
pub(super) struct WebhooksFile(TempDir);

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let _ = shared.came.send((headers, body));
    let reply = {
        let mut replies = shared.replies.lock().unwrap();
        match (&*replies.make_contiguous(), shared.is_last_for_ever) {
            ([last], true) => Some(*last),
            _ => replies.pop_front(),
        }
    };
    match reply {
        None => StatusCode::NO_CONTENT,
        Some(Reply::Status(status)) => StatusCode::from_u16(status).unwrap(),
        Some(Reply::Hang) => std::future::pending().await,
    }
}

impl Receiver {
    /// One that takes everything.
    pub(super) async fn start() -> Self {
        Self::replying(&[]).await
    }

    /// One that replies so, and then takes everything.
    pub(super) async fn replying(replies: &[Reply]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(free, replies, false)
    }

    /// One that always replies so.
    pub(super) async fn always(reply: Reply) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(free, &[reply], true)
    }

    /// One that listens there.
    pub(super) fn on(listener: TcpListener, replies: &[Reply], is_last_for_ever: bool) -> Self {
        let (sender, came) = mpsc::unbounded_channel();
        let shared = Shared {
            came: sender,
            replies: Arc::new(Mutex::new(replies.iter().copied().collect())),
            is_last_for_ever,
        };
        let address = listener.local_addr().unwrap();
        let service = Router::new().route("/in", post(answer)).with_state(shared);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self {
            address,
            came,
            _serving: serving,
        }
    }

    /// Its line in a file, with these of the secrets.
    pub(super) fn line(&self, secrets: &[(&str, &[u8])]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|(text, _)| *text).collect();
        format!(
            "{} http://{}/in?key=hunter2",
            secrets.join(","),
            self.address
        )
    }

    /// The next message, which each of these secrets has signed.
    pub(super) async fn message(&mut self, secrets: &[(&str, &[u8])]) -> Message {
        let came = within(PATIENCE, "a message comes", self.came.recv()).await;
        let (headers, body) = came.unwrap();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let (id, sent) = (header("webhook-id"), header("webhook-timestamp"));
        assert!(sent.parse::<u64>().unwrap() > 1_700_000_000, "{sent}");
        let signed = [format!("{id}.{sent}.").as_bytes(), &body].concat();
        let expected = secrets.iter().map(|(_, bytes)| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
            format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)))
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(header("webhook-signature"), expected.join(" "));
        assert_eq!(header("content-type"), "application/json");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "streamgate.events");
        let events = body["data"]["events"].as_array().unwrap().clone();
        Message { id, events }
    }

    /// The next events, each as `type session`.
    pub(super) async fn events(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let message = self.message(&SECRETS[..1]).await;
            seen.extend(message.events.iter().map(shown));
        }
        seen
    }

    /// Whether a message has come that was not looked at.
    pub(super) fn has_more(&self) -> bool {
        !self.came.is_empty()
    }
}

/// An event as `type session`.
pub(super) fn shown(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    format!("{} {}", text("type"), text("session"))
        .trim()
        .to_owned()
}

impl WebhooksFile {
    /// A file with these lines.
    pub(super) fn of(lines: &[String]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(lines);
        file
    }

    /// Where the file is.
    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("webhooks")
    }

    /// Puts other lines in their place, at one stroke.
    pub(super) fn write(&self, lines: &[String]) {
        let new = self.0.path().join("new");
        std::fs::write(&new, lines.join("\n") + "\n# end\n").unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}
