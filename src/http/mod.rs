//! The HTTP doors: the release hook, and what probes and Prometheus ask. The whole surface is the table in [`router`].

mod error;
mod health;
mod release;

pub use health::{Phase, Readiness};

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

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
    /// Takes the releases that can't be done now.
    pub releaser: Releaser,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
}

/// Everything that can be asked over HTTP.
pub fn router(door: HttpDoor) -> Router {
    Router::new()
        .route("/v1/release", post(release::release))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(door)
}
