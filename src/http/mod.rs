//! The HTTP doors: the API on sessions, the small API, the release hook, the operator's list, the
//! console, and the endpoints for probes and Prometheus. The table in [`routes()`] is the whole surface.

mod console;
mod error;
mod events;
mod front;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod health;
mod html;
mod instance;
mod json;
mod layers;
mod limits;
mod listing;
mod openapi;
mod operated;
mod problems;
mod release_hook;
mod request;
mod sessions;
mod start_service;
mod stats;
mod video_api;

pub use health::{Phase, Readiness};
pub use request::Tokens;
pub(crate) use request::escaped;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{self, DefaultBodyLimit};
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state, map_response, map_response_with_state};
use axum::response::{IntoResponse, Response};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{Backend, EffectiveSettings, Grpc, Http, SharedSettings};
use crate::doors::DecisionLog;
use crate::events::Events;
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::reload::Reloaded;
use crate::telemetry::{Gateways, Metrics};
use error::ApiError;

/// The largest accepted body: a hundred releases with the longest possible names, escaped.
const MAX_BODY_BYTES: usize = 512 * 1024;

/// The time limit for a request to arrive and be answered; no store operation takes nearly as long.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What the handlers share.
#[derive(Debug)]
pub struct HttpDoor {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Whether this instance wants requests.
    pub readiness: Readiness,
    /// Accepts releases that can't be done now, and starts to take back.
    pub outbox: Outbox,
    /// Tells operators what happens.
    pub events: Arc<Events>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Tracks work at the store, which a shutdown waits for.
    pub tasks: TaskTracker,
    /// The accepted tokens; without such a file everything is allowed.
    pub tokens: Option<Arc<Reloaded<Tokens>>>,
    /// `http`: which browsers may call, and where the small API says a video is.
    pub http: Http,
    /// `grpc`: the port for Envoy.
    pub grpc: Grpc,
    /// `store.backend`
    pub backend: Backend,
    /// The settings that other instances should share.
    pub settings: SharedSettings,
    /// Every setting in force, and where it was written.
    pub effective: Arc<EffectiveSettings>,
    /// The gateways that send their access logs.
    pub gateways: Arc<Gateways>,
    /// A random id, new at each start.
    pub id: String,
    /// Logs decisions.
    pub log: DecisionLog,
    /// The time limit for a request to arrive and be answered.
    pub request_timeout: Duration,
}

/// The handlers' shared handle.
type ApiState = Arc<HttpDoor>;

/// All HTTP routes, with their descriptions.
fn routes() -> OpenApiRouter<ApiState> {
    let api = OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(
            sessions::get_all,
            sessions::post,
            sessions::delete_all
        ))
        .routes(routes!(
            sessions::get_one,
            sessions::put,
            sessions::delete_one
        ))
        .routes(routes!(limits::get, limits::put, limits::delete))
        .routes(routes!(release_hook::release))
        .routes(routes!(listing::get))
        .routes(routes!(instance::get))
        .routes(routes!(events::get))
        .routes(routes!(stats::get))
        .routes(routes!(
            video_api::get,
            video_api::post,
            video_api::patch,
            video_api::delete
        ))
        .layer(map_response(layers::not_stored));
    let probes = OpenApiRouter::new()
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::serve))
        .routes(routes!(problems::serve))
        .routes(routes!(console::page))
        .routes(routes!(console::file));
    api.merge(probes)
}

/// The OpenAPI document of all routes.
#[must_use]
pub fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| openapi::as_json(routes().into_openapi()))
}

/// The doors, with the layers that all requests share.
pub fn router(door: HttpDoor) -> Router {
    let door = Arc::new(door);
    let explaining = Arc::clone(&door);
    let cors = layers::cors(&door.http.cors_origins);
    let (routes, _) = routes().split_for_parts();
    let plain = routes
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    let for_scripts = match cors {
        Some(cors) => plain.clone().layer(cors),
        None => plain.clone(),
    };
    let [plain, for_scripts] = [plain, for_scripts].map(|routes| {
        routes
            .layer(from_fn_with_state(Arc::clone(&door), layers::bounded))
            .layer(from_fn_with_state(Arc::clone(&door), operated::told))
            .layer(from_fn_with_state(Arc::clone(&door), layers::counted))
            .with_state(Arc::clone(&door))
    });
    // A preflight is answered before a handler is chosen; other `OPTIONS` requests go to the path's
    // own handler.
    let chosen = tower::service_fn(move |request: extract::Request| {
        let is_plain = request.method() == Method::OPTIONS && !layers::is_preflight(&request);
        let chosen = if is_plain { &plain } else { &for_scripts };
        chosen.clone().oneshot(request)
    });
    Router::new()
        .fallback_service(chosen)
        .layer(map_response(layers::options_allowed))
        .layer(map_response_with_state(explaining, layers::explained))
        .layer(from_fn(layers::identified))
}

/// Answers a method that a path doesn't support, including `OPTIONS`.
async fn other_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        ApiError::MethodNotAllowed.into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document() {
        let (router, document) = routes().split_for_parts();
        // A router exposes its paths only in its debug output.
        let shown = format!("{router:?}");
        let texts = shown.split('"').filter(|text| text.starts_with('/'));
        // Where axum keeps its fallback.
        let routed: BTreeSet<&str> = texts.filter(|path| !path.contains("__private")).collect();
        let documented = document.paths.paths.keys().map(String::as_str);
        assert_eq!(routed, documented.collect());
    }
}
