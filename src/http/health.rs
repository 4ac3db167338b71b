//! Liveness, readiness with its reasons, and the metrics.
//!
//! Readiness is this instance's own: it doesn't depend on the store, or a blip of Redis would have every instance thrown out at
//! once. The store's state is told beside it.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::ApiState;
use crate::config::OutageRule;
use crate::http::openapi::responses::TooMuch;
use crate::ledger::{AccessLog, Ledger, UNWIRED};
use crate::telemetry::metrics::LabelValue;

/// Whether this instance wants requests: from when its ports are bound until it is asked to stop.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Receiver<Phase>);

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not all of it listens yet.
    Starting,
    /// It serves.
    Serving,
    /// It has been asked to stop, and serves those who haven't noticed.
    Draining,
}

impl Readiness {
    /// Readiness as that phase has it.
    #[must_use]
    pub const fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(phase)
    }

    /// The phase now.
    pub(super) fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

/// What `/readyz` tells.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether this instance wants requests.
    ready: bool,
    /// Why, or why not.
    phase: Phase,
    /// The store beside it.
    store: StoreDetail,
    /// Envoy's access log.
    access_log: AccessLogDetail,
}

/// Whether Envoy's access log arrives, which readiness doesn't depend on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccessLogDetail {
    /// Whether it does, as far as this instance can tell.
    pub(super) state: AccessLogState,
    /// What is wrong, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trouble: Option<&'static str>,
}

/// Whether Envoy's access log arrives.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AccessLogState {
    /// Nothing is known yet.
    Unknown,
    /// It does.
    Arrives,
    /// Nobody renews or ends what starts here.
    Missing,
}

impl AccessLogDetail {
    /// What that instance knows of it.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let (state, trouble) = match ledger.access_log() {
            AccessLog::Unknown => (AccessLogState::Unknown, None),
            AccessLog::Arrives => (AccessLogState::Arrives, None),
            AccessLog::Missing => (AccessLogState::Missing, Some(UNWIRED)),
        };
        Self { state, trouble }
    }
}

/// The store's state, which readiness doesn't depend on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreDetail {
    /// Whether it answers.
    up: bool,
    /// The Redis that it counts in at the moment, such as the master that the sentinels have named; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server: Option<String>,
    /// Why it doesn't, or what else is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trouble: Option<String>,
    /// What decides about new streams in its place, while it doesn't answer or is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = outage_rules)]
    outage_rule: Option<&'static str>,
}

impl StoreDetail {
    /// That of an instance.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let health = ledger.store_health();
        Self {
            up: health.up,
            server: ledger.store_server(),
            trouble: health.trouble,
            outage_rule: health.rule.map(LabelValue::as_str),
        }
    }
}

/// The rules that there are, described.
fn outage_rules() -> Object {
    let rules = [OutageRule::Allow, OutageRule::Deny, OutageRule::Local].map(LabelValue::as_str);
    ObjectBuilder::new()
        .description(Some(
            "What decides about new streams in its place, while it doesn't answer or is full.",
        ))
        .schema_type(Type::String)
        .enum_values(Some(rules))
        .build()
}

/// See whether the process is there
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, description = "It is.", body = String), TooMuch))]
pub(super) async fn livez() -> &'static str {
    "alive\n"
}

/// See whether this instance wants requests
///
/// The store's state stands beside it, and does not decide it.
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = 200, description = "It does.", body = Ready),
    (status = 503, description = "It starts, or is about to stop.", body = Ready),
    TooMuch,
))]
pub(super) async fn readyz(State(door): State<ApiState>) -> Response {
    let phase = door.readiness.phase();
    let ready = Ready {
        ready: phase == Phase::Serving,
        phase,
        store: StoreDetail::of(&door.ledger),
        access_log: AccessLogDetail::of(&door.ledger),
    };
    let status = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(ready)).into_response()
}

/// See the metrics, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, description = "Prometheus text.", body = String), TooMuch))]
pub(super) async fn metrics(State(door): State<ApiState>) -> Response {
    door.ledger.sweep();
    let text = door.metrics.render();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
