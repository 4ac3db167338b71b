//! Owns serving the page in `docs/clients/` and its module, as any web server would, on an origin of their own.

use std::net::SocketAddr;

use axum::Router;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::docs;

/// A web server that is gone when this is dropped.
pub(super) struct Pages {
    pub(super) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Pages {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, routes()).await.unwrap();
        });
        Self {
            address,
            _serving: serving,
        }
    }

    /// What browsers call it.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The page, which finds the API there.
    pub(super) fn watch(&self, api: &str) -> String {
        format!("{}/watch.html?api={api}", self.origin())
    }

    /// A page that has nothing to do with it.
    pub(super) fn elsewhere(&self) -> String {
        format!("{}/elsewhere.html", self.origin())
    }
}

fn routes() -> Router {
    let module = async || {
        let text = docs::file("docs/clients/playback.js");
        ([("content-type", "text/javascript")], text).into_response()
    };
    let page = async || Html(docs::file("docs/clients/watch.html"));
    let elsewhere = async || Html("<!doctype html><title>Elsewhere</title>Elsewhere");
    Router::new()
        .route("/playback.js", get(module))
        .route("/watch.html", get(page))
        .route("/elsewhere.html", get(elsewhere))
}
