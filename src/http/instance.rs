//! `GET /v1/instance`: what an operator needs to know about one instance to check an installation's
//! wiring. `streamgate doctor` uses it.
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
use crate::clock::Timestamp;
use crate::config::{Backend, EffectiveSetting, SettingOrigin, Shared};
use crate::http::openapi::responses::{Detached, Inspected};
use crate::http::request::caller::Caller;
use crate::http::request::path::parameters;
use crate::ledger::StoreServer;
use crate::problem::rfc3339;
use crate::store::ServerIdentity;
use crate::telemetry::GatewayLog;
use crate::telemetry::metrics::{LabelValue, Port};

/// One instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub(super) struct InstanceBody {
    /// A random id, new at each start: two addresses that return the same one lead to one instance.
    instance: String,
    /// The version that is running.
    version: &'static str,
    /// The lifecycle phase.
    phase: Phase,
    /// The gRPC port.
    grpc: GrpcBody,
    /// The store.
    store: StoreBody,
    /// The state of Envoy's access log.
    access_log: AccessLogDetail,
    /// The gateways that have sent their access logs to this instance.
    gateways: Vec<GatewayBody>,
    /// When the ports' certificates expire; empty without TLS.
    certificates: Vec<CertificateBody>,
    /// Every setting in force, in the order of the documentation, without secrets.
    configuration: Vec<SettingBody>,
    /// The settings that instances sharing a count should have in common, by their keys, in the
    /// format of `check-config`. Single users' limits appear as a number and a digest.
    #[schema(example = json!({"limits.default": "3"}))]
    settings: BTreeMap<String, String>,
    /// A digest of these settings: equal if all of them are.
    settings_digest: String,
}

/// The gRPC port.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceGrpc)]
pub(super) struct GrpcBody {
    /// The address it listens on.
    listen: String,
    /// What is wrong if other machines can reach it without a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exposed: Option<String>,
}

/// The store of an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceStore)]
pub(super) struct StoreBody {
    /// Whether the count is in a Redis; otherwise it is in the instance's own memory.
    shared: bool,
    /// The same as `/readyz` reports.
    #[serde(flatten)]
    detail: StoreDetail,
    /// The `run_id` of that Redis; absent if it doesn't answer, or the ACL doesn't let us read it
    /// (`INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run_id: Option<String>,
    /// The number of its database; absent without a Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    database: Option<i64>,
    /// Its `maxmemory-policy`; absent if it doesn't answer, or the ACL doesn't let us read it
    /// (`CONFIG GET`, `INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    eviction_policy: Option<String>,
    /// The masters of a cluster; absent if the store is one piece.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    masters: Vec<MasterBody>,
}

/// A master of a cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceMaster)]
pub(super) struct MasterBody {
    /// Its address.
    address: String,
    /// Its `run_id`; absent if it doesn't answer, or the ACL doesn't let us read it (`INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run_id: Option<String>,
    /// Its `maxmemory-policy`; absent if it doesn't answer, or the ACL doesn't let us read it
    /// (`CONFIG GET`, `INFO`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    eviction_policy: Option<String>,
    /// Its `cluster-require-full-coverage`: whether one dead master stops all others. Absent if it
    /// doesn't answer, or the ACL doesn't let us read it (`CONFIG GET`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    requires_full_coverage: Option<bool>,
}

/// A gateway that has sent its access log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceGateway)]
pub(super) struct GatewayBody {
    /// The id of its node (`--service-node`); may be empty.
    node: String,
    /// The name of its log.
    log: String,
    /// When this instance got the last message. Each gateway sends its log to one instance at a
    /// time, and changes it every few minutes.
    #[schema(format = DateTime)]
    last_heard_at: String,
}

/// A port's certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceCertificate)]
pub(super) struct CertificateBody {
    /// The port: `grpc` or `http`.
    port: &'static str,
    /// When the first certificate of its chain expires.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// A setting in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceSetting)]
pub(super) struct SettingBody {
    /// Its key.
    #[schema(example = "limits.default")]
    key: &'static str,
    /// Its value, in the format of `check-config`, without secrets.
    #[schema(example = "3")]
    value: String,
    /// Where it was written.
    origin: OriginBody,
}

/// Where a setting was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceSettingOrigin)]
pub(super) struct OriginBody {
    /// In the file, in the environment, or nowhere.
    kind: OriginKind,
    /// The line of the file, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line: Option<u64>,
    /// The variable of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    variable: Option<String>,
}

/// The kind of place where a setting was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceSettingOriginKind)]
#[serde(rename_all = "lowercase")]
pub(super) enum OriginKind {
    /// Nowhere.
    Default,
    /// In the configuration file.
    File,
    /// In the environment.
    Environment,
}

/// See how this instance is wired
///
/// Facts for finding out why an installation doesn't limit correctly; `streamgate doctor`
/// interprets them. Counts are at `/metrics`.
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
        gateways: gateways(&door),
        certificates: certificates(&door),
        configuration: door.effective.now().iter().map(SettingBody::of).collect(),
        settings: shared.settings.clone(),
        settings_digest: shared.digest.clone(),
    }))
}

/// The settings that other instances should share. After a change it may take a while to compute
/// them.
async fn shared(door: &ApiState) -> Result<Arc<Shared>, ApiError> {
    let (door, in_force) = (Arc::clone(door), door.ledger.in_force());
    let found = tokio::task::spawn_blocking(move || door.settings.now(&in_force));
    found.await.map_err(|_| ApiError::Internal)
}

/// The gateways that have sent their logs.
fn gateways(door: &ApiState) -> Vec<GatewayBody> {
    let all = door.gateways.all().into_iter();
    let all = all.map(|(GatewayLog { node, log }, heard)| GatewayBody {
        node,
        log,
        last_heard_at: rfc3339(heard),
    });
    all.collect()
}

/// The certificates of the ports that have one.
fn certificates(door: &ApiState) -> Vec<CertificateBody> {
    let ports = Port::ALL.iter().filter_map(|port| {
        let until = door.metrics.certificate_expires(*port)?;
        Some(CertificateBody {
            port: port.as_str(),
            expires_at: rfc3339(Timestamp::default().after(until)),
        })
    });
    ports.collect()
}

impl SettingBody {
    /// The JSON form of that setting.
    fn of(setting: &EffectiveSetting) -> Self {
        let (kind, line, variable) = match &setting.origin {
            SettingOrigin::Default => (OriginKind::Default, None, None),
            SettingOrigin::File(line) => (OriginKind::File, *line, None),
            SettingOrigin::Environment(name) => (OriginKind::Environment, None, Some(name.clone())),
        };
        Self {
            key: setting.key,
            value: setting.value.clone(),
            origin: OriginBody {
                kind,
                line,
                variable,
            },
        }
    }
}

impl StoreBody {
    /// The current state of an instance's store.
    async fn of(door: &ApiState) -> Self {
        let servers = door.ledger.store_servers().await;
        // The database is the same for all of a cluster.
        let mut database = None;
        let (mut run_id, mut eviction_policy, mut masters) = (None, None, Vec::new());
        for StoreServer { shard, identity } in servers {
            // If it can't tell, its health says why, or it lacks the rights.
            database = database.or(identity.as_ref().map(|it| it.database));
            match (shard.address(), identity) {
                (Some(address), identity) => masters.push(MasterBody::of(address, identity)),
                (None, Some(it)) => (run_id, eviction_policy) = (it.run_id, it.eviction_policy),
                (None, None) => {}
            }
        }
        Self {
            shared: door.backend == Backend::Redis,
            detail: StoreDetail::of(&door.ledger),
            run_id,
            database,
            eviction_policy,
            masters,
        }
    }
}

impl MasterBody {
    /// The master at that address, as it identifies itself.
    fn of(address: &str, identity: Option<ServerIdentity>) -> Self {
        let (run_id, eviction_policy, requires_full_coverage) = match identity {
            None => (None, None, None),
            Some(it) => (it.run_id, it.eviction_policy, it.requires_full_coverage),
        };
        Self {
            address: address.to_owned(),
            run_id,
            eviction_policy,
            requires_full_coverage,
        }
    }
}
