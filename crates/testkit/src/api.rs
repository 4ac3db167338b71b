//! A client of the HTTP API, and the answers it gets.

use std::time::Duration;

use http::StatusCode;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::app::{Plan, TestApp};
use crate::redis::RedisServer;

/// A client of an app's.
#[derive(Debug, Clone)]
pub struct Api<'a> {
    /// The app that is asked.
    pub app: &'a TestApp,
    /// What sends the requests.
    pub client: Client,
    /// Headers that go with each request.
    headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug)]
pub struct Told {
    /// The status of the answer.
    pub status: StatusCode,
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// The body, as JSON; null where it is none.
    pub body: Value,
}

// === impl Api ===

impl<'a> Api<'a> {
    /// A client of that app, without a token.
    pub fn of(app: &'a TestApp) -> Self {
        let client = Client::new();
        Self {
            app,
            client,
            headers: Vec::new(),
        }
    }

    /// The same client with one more header.
    pub fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut api = self.clone();
        api.headers.push((name, value.into()));
        api
    }

    /// The same client with that token.
    pub fn with_token(&self, token: &str) -> Self {
        self.with("authorization", format!("Bearer {token}"))
    }

    /// A request, not sent yet.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.app.url(path));
        let headers = self.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(*name, value)
        })
    }

    /// Sends a request with that body, if any.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Told {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        Told::by(request).await
    }

    /// Starts or renews a playback.
    pub async fn put(&self, user: &str, session: &str, body: Value) -> Told {
        let path = format!("/v1/users/{user}/sessions/{session}");
        self.call(Method::PUT, &path, Some(body)).await
    }

    /// Sends a GET.
    pub async fn get(&self, path: &str) -> Told {
        self.call(Method::GET, path, None).await
    }

    /// Sends a DELETE.
    pub async fn delete(&self, path: &str) -> Told {
        self.call(Method::DELETE, path, None).await
    }

    /// The ids of the user's live sessions.
    pub async fn live(&self, user: &str) -> Vec<String> {
        let told = self.get(&format!("/v1/users/{user}/sessions")).await;
        assert_eq!(told.status, 200, "{told:?}");
        let sessions = told.body["sessions"].as_array().expect("a list");
        assert_eq!(told.body["active"], sessions.len());
        let ids = sessions.iter().map(|session| session["session"].as_str());
        ids.map(|id| id.expect("an id").to_owned()).collect()
    }
}

// === impl Told ===

impl Told {
    /// Sends a request and reads the answer.
    pub async fn by(request: RequestBuilder) -> Self {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers["x-request-id"].is_empty());
        let body = answer.bytes().await.expect("a body");
        Self {
            status,
            headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    /// The value of a header; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a text"))
    }

    /// It is a problem of that status and reason.
    pub fn is_problem(&self, status: u16, reason: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["reason"], reason, "{self:?}");
        assert!(self.body["detail"].as_str().is_some_and(|it| it.len() > 10));
    }
}

/// Plays something on the embedded store, and on a Redis.
pub async fn on_both(play: impl AsyncFn(Plan)) {
    play(TestApp::plan()).await;
    let redis = RedisServer::start();
    // The deadline is not what this test is about.
    play(TestApp::plan().redis(&redis.url(), Duration::from_secs(10))).await;
}
