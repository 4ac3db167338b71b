//! `GET /v1/instance`: what an operator has to know of one instance to see whether an installation is wired right. `streamgate doctor` asks it.
//!
//! No secret is told, and of single users' limits a digest alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::Door;
use super::caller::Caller;
use super::error::ApiError;
use super::health::{AccessLogDetail, Phase};
use super::path::parameters;
use super::responses::Inspected;
use crate::config::{self, Backend};

/// One instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(super) struct InstanceBody {
    /// What it calls itself, made anew at each start: two addresses that tell the same one lead to one instance.
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
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = InstanceStore)]
pub(super) struct StoreBody {
    /// Whether it counts in a Redis; else it counts in its own memory.
    shared: bool,
    /// Whether that answers.
    up: bool,
    /// Why it doesn't, or what else is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trouble: Option<String>,
    /// The Redis that it counts in at the moment; absent without a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server: Option<String>,
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
/// For whoever looks for the reason why an installation doesn't limit as it should; `streamgate doctor` tells what follows from it. What is counted
/// is at `/metrics`.
#[utoipa::path(
    get,
    operation_id = "instance",
    path = "/v1/instance",
    tag = "operator",
    responses((status = 200, description = "The instance.", body = InstanceBody), Inspected),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<Door>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<InstanceBody>, ApiError> {
    caller.may_see_all()?;
    parameters(uri.query().unwrap_or_default(), &[])?;
    let settings = settings(&door).await;
    Ok(Json(InstanceBody {
        instance: door.id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        phase: door.readiness.phase(),
        grpc: GrpcBody {
            listen: door.config.grpc.listen.to_string(),
            exposed: door.config.grpc.exposed(),
        },
        store: StoreBody::of(&door).await,
        access_log: AccessLogDetail::of(&door.ledger),
        settings_digest: config::digest(&settings),
        settings,
    }))
}

/// The settings that other instances should have too. To digest a million users' limits takes a while.
async fn settings(door: &Door) -> BTreeMap<String, String> {
    let (door, in_force) = (Arc::clone(door), door.ledger.in_force());
    let read = tokio::task::spawn_blocking(move || door.config.shared(&in_force.limits));
    // It doesn't panic, and nobody cancels it.
    read.await.unwrap_or_default()
}

impl StoreBody {
    /// That of an instance, asked now.
    async fn of(door: &Door) -> Self {
        // Why it can't tell, its health says, or it lacks the rights.
        let identity = door.ledger.server_identity().await.ok().flatten();
        let health = door.ledger.store_health();
        let told = Self {
            shared: door.config.store.backend == Backend::Redis,
            up: health.up,
            trouble: health.trouble,
            server: door.ledger.store_server(),
            ..Self::default()
        };
        match identity {
            None => told,
            Some(identity) => Self {
                run_id: identity.run_id,
                database: Some(identity.database),
                eviction_policy: identity.eviction_policy,
                ..told
            },
        }
    }
}
