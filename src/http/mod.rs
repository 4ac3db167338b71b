//! The HTTP doors: the API on sessions, the release hook, and what probes and Prometheus ask. The whole surface is the table in [`router`].

mod body;
mod error;
mod health;
mod path;
mod release;
mod sessions;
mod shapes;

pub use health::{Phase, Readiness};
pub(crate) use path::escaped;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use tokio_util::task::TaskTracker;

use crate::config::Shown;
use crate::ledger::Ledger;
use crate::releaser::Releaser;
use crate::telemetry::Metrics;
use error::ApiError;

/// The largest body that is read: a hundred releases with the longest names there are, escaped.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct HttpDoor {
    /// Whom they ask.
    pub ledger: Arc<Ledger>,
    /// Whether this instance wants requests.
    pub readiness: Readiness,
    /// Takes the releases that can't be done now, and what is to be taken back.
    pub releaser: Releaser,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What a refusal tells of other sessions.
    pub show: Arc<BTreeSet<Shown>>,
    /// Waits for what is done for the store at shutdown.
    pub tasks: TaskTracker,
}

/// Everything that can be asked over HTTP.
pub fn router(door: HttpDoor) -> Router {
    let api = Router::new()
        .route(
            "/v1/users/{user}/sessions",
            get(sessions::get_all)
                .post(sessions::post)
                .delete(sessions::delete_all),
        )
        .route(
            "/v1/users/{user}/sessions/{session}",
            get(sessions::get_one)
                .put(sessions::put)
                .delete(sessions::delete_one),
        )
        .route("/v1/release", post(release::release))
        .layer(map_response(not_stored));
    let probes = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics));
    api.merge(probes)
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(door)
}

/// An answer about who watches what, which no cache on the way may keep.
async fn not_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
