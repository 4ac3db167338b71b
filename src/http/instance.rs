//! `GET /v1/instance`: what an operator has to know of one instance to see whether an installation is wired right. `streamgate doctor` asks it.
//!
//! Contains no secret; users' own limits appear as a digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::error::ApiError;
use super::health::{AccessLogDetail, Phase, StoreDetail};
use crate::config::{Backend, Shared};
use crate::http::openapi::responses::{Detached, Inspected};
use crate::http::request::caller::Caller;
use crate::http::request::path::parameters;

/// One instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(super) struct InstanceBody {
    /// A random id, new at each start: two addresses that return the same one lead to one instance.
    instance: String,
    /// The version that runs.
    version: &'static str,
    /// Where it is in its life.
    phase: Phase,
    /// Envoy's port.
    grpc: GrpcBody,
    /// Where it counts.
    store: StoreBody,
    /// Envoy's access log.
    access_log: AccessLogDetail,
    /// The settings that instances which count together should have alike, by their keys, as `check-config` shows them. Single users' limits are
    /// a number and a digest.
    #[schema(example = json!({"limits.default": "3"}))]
    settings: BTreeMap<String, String>,
    /// A digest of these settings: equal where all of them are.
    settings_digest: String,
}

/// Envoy's port.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceGrpc)]
pub(super) struct GrpcBody {
    /// Where it listens.
    listen: String,
    /// What is wrong where other machines reach it without showing a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exposed: Option<String>,
}

/// Where an instance counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceStore)]
pub(super) struct StoreBody {
    /// Whether it counts in a Redis; else it counts in its own memory.
    shared: bool,
    /// The same as `/readyz` reports.
    #[serde(flatten)]
    detail: StoreDetail,
    /// The `run_id` of that Redis; absent where Redis doesn't let us ask (`INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run_id: Option<String>,
    /// The number of its database; absent without a Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    database: Option<i64>,
    /// Its `maxmemory-policy`; absent where Redis doesn't let us ask (`CONFIG GET`, `INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    eviction_policy: Option<String>,
}

/// See how this instance is wired
///
/// Facts for finding out why an installation doesn't limit as it should; `streamgate doctor` interprets them. Counts are at `/metrics`.
#[utoipa::path(
    get,
    operation_id = "instance",
    path = "/v1/instance",
    tag = "operator",
    responses((status = 200, description = "The instance.", body = InstanceBody), Inspected, Detached),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<InstanceBody>, ApiError> {
    caller.may_see_all()?;
    parameters(uri.query().unwrap_or_default(), &[])?;
    let shared = shared(&door).await?;
    Ok(Json(InstanceBody {
        instance: door.id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        phase: door.readiness.phase(),
        grpc: GrpcBody {
            listen: door.grpc.listen.to_string(),
            exposed: door.grpc.exposed(),
        },
        store: StoreBody::of(&door).await,
        access_log: AccessLogDetail::of(&door.ledger),
        settings: shared.settings.clone(),
        settings_digest: shared.digest.clone(),
    }))
}

/// The settings that other instances should have too. After a change it may take a while to find them.
async fn shared(door: &ApiState) -> Result<Arc<Shared>, ApiError> {
    let (door, in_force) = (Arc::clone(door), door.ledger.in_force());
    let found = tokio::task::spawn_blocking(move || door.settings.now(&in_force));
    found.await.map_err(|_| ApiError::Internal)
}

impl StoreBody {
    /// That of an instance, asked now.
    async fn of(door: &ApiState) -> Self {
        // Why it can't tell, its health says, or it lacks the rights.
        let identity = door.ledger.server_identity().await.ok().flatten();
        let (database, run_id, eviction_policy) = match identity {
            None => (None, None, None),
            Some(it) => (Some(it.database), it.run_id, it.eviction_policy),
        };
        Self {
            shared: door.backend == Backend::Redis,
            detail: StoreDetail::of(&door.ledger),
            run_id,
            database,
            eviction_policy,
        }
    }
}
