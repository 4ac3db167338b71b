//! Liveness, readiness with its reasons, and the metrics.
//!
//! Readiness describes only this instance and doesn't depend on the store: otherwise a blip of
//! Redis would remove every instance at once. The answer includes the store's state separately.

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
use crate::ledger::{AccessLog, Ledger, ShardsHealth, UNWIRED};
use crate::telemetry::metrics::LabelValue;

/// Whether this instance wants requests: from when its ports are bound until it is asked to stop.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Receiver<Phase>);

/// The lifecycle phase of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not all ports are listening yet.
    Starting,
    /// It serves.
    Serving,
    /// It has been asked to stop, and serves clients that haven't noticed.
    Draining,
}

impl Readiness {
    /// Readiness derived from that phase.
    #[must_use]
    pub const fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(phase)
    }

    /// The current phase.
    pub(super) fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

/// The body of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether this instance wants requests.
    ready: bool,
    /// The phase that explains it.
    phase: Phase,
    /// The store's state.
    store: StoreDetail,
    /// The state of Envoy's access log.
    access_log: AccessLogDetail,
}

/// Whether Envoy's access log arrives. Readiness doesn't depend on it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccessLogDetail {
    /// Whether it arrives, as far as this instance can tell.
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
    /// Not known yet.
    Unknown,
    /// It arrives.
    Arrives,
    /// Nothing renews or ends the sessions that start here.
    Missing,
}

impl AccessLogDetail {
    /// What that instance knows about it.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let (state, trouble) = match ledger.access_log() {
            AccessLog::Unknown => (AccessLogState::Unknown, None),
            AccessLog::Arrives => (AccessLogState::Arrives, None),
            AccessLog::Missing => (AccessLogState::Missing, Some(UNWIRED)),
        };
        Self { state, trouble }
    }
}

/// The store's state. Readiness doesn't depend on it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoreDetail {
    /// Whether the store, or any shard of it, answers.
    up: bool,
    /// The Redis server in use, such as the master that the sentinels named; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server: Option<String>,
    /// Why it doesn't answer, or what else is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trouble: Option<String>,
    /// What decides about new streams while it doesn't answer or is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = outage_rules)]
    outage_rule: Option<&'static str>,
    /// The shards of a cluster; absent if the store is one piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    shards: Option<ShardsDetail>,
}

/// The shards of a cluster. Each has one master, and fails on its own: the outage rule decides about
/// the users of that shard and nobody else.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoreShards)]
struct ShardsDetail {
    /// How many shards have users.
    known: usize,
    /// How many of them answer.
    up: usize,
    /// Those that don't answer, or with which something else is wrong.
    troubles: Vec<ShardTrouble>,
}

/// A shard with which something is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoreShardTrouble)]
struct ShardTrouble {
    /// The address of its master; `unowned` for the slots that no master owns.
    shard: String,
    /// Why it doesn't answer, or what else is wrong with it.
    trouble: String,
}

impl StoreDetail {
    /// The state of an instance's store.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let health = ledger.store_health();
        Self {
            up: health.up,
            server: ledger.store_server(),
            trouble: health.trouble,
            outage_rule: health.rule.map(LabelValue::as_str),
            shards: health.shards.map(ShardsDetail::of),
        }
    }
}

impl ShardsDetail {
    /// The state of these shards.
    fn of(shards: ShardsHealth) -> Self {
        let troubles = shards.troubles.into_iter();
        Self {
            known: shards.tally.known,
            up: shards.tally.up,
            troubles: troubles
                .map(|(shard, trouble)| ShardTrouble {
                    shard: shard.to_string(),
                    trouble,
                })
                .collect(),
        }
    }
}

/// The schema of the outage rules.
fn outage_rules() -> Object {
    let rules = [OutageRule::Allow, OutageRule::Deny, OutageRule::Local].map(LabelValue::as_str);
    ObjectBuilder::new()
        .description(Some(
            "What decides about new streams while the store, or their shard of it, doesn't answer or is full.",
        ))
        .schema_type(Type::String)
        .enum_values(Some(rules))
        .build()
}

/// Check that the process is alive
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, description = "It is.", body = String), TooMuch))]
pub(super) async fn livez() -> &'static str {
    "alive\n"
}

/// Check whether this instance wants requests
///
/// The answer includes the store's state, but doesn't depend on it.
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = 200, description = "It does.", body = Ready),
    (status = 503, description = "It is starting or stopping.", body = Ready),
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

/// Read the metrics, for Prometheus
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
