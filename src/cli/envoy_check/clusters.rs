//! Checks of the clusters: streamgate's, and those that streams come from.

use std::collections::BTreeSet;

use super::envoy::{Envoy, Manager};
use super::filters::check_cluster;
use super::finding::Findings;
use super::logs::log_clusters;
use super::node::At;

/// The piece that streamgate's clusters are in.
const PIECE: &str = "clusters";

/// Envoy's default for each circuit breaker.
const DEFAULT_BREAKER: f64 = 1024.0;

/// Checks a gRPC service that leads to streamgate: `what` it belongs to, in that piece.
pub(super) fn service(
    envoy: &Envoy<'_>,
    service: &At<'_>,
    what: &str,
    piece: &'static str,
    findings: &mut Findings,
) {
    let Some(settings) = service.get("envoy_grpc") else {
        findings.add(
            service,
            "cluster",
            Some(piece),
            format!("{what} has no envoy_grpc: no cluster leads to streamgate"),
        );
        return;
    };
    findings.need(
        !settings.text_of("authority").is_empty(),
        &settings,
        "authority",
        piece,
        &format!("{what} has no authority: Envoy sends its cluster's name, and if that is no valid host name, every call fails"),
    );
    let name = settings.text_of("cluster_name");
    if envoy.cluster(name).is_none() && !envoy.has_cds {
        findings.add(
            &settings,
            "cluster",
            Some(PIECE),
            format!("{what} names the cluster {name:?}, which does not exist: every call fails"),
        );
    }
}

/// Checks streamgate's clusters.
pub(super) fn ours(envoy: &Envoy<'_>, manager: &Manager<'_>, findings: &mut Findings) {
    let check = check_cluster(manager);
    if let Some(cluster) = envoy.cluster(check) {
        common(cluster, findings);
        breakers(cluster, "checks", PIECE, findings);
    }
    for name in log_clusters(manager) {
        let Some(cluster) = envoy.cluster(name) else {
            continue;
        };
        if name == check {
            findings.add(
                cluster,
                "two_clusters",
                Some(PIECE),
                "checks and access logs share this cluster and its connections, so a backlog of logs delays checks; give each its own cluster",
            );
            continue;
        }
        common(cluster, findings);
        log(cluster, findings);
    }
}

/// Checks what both clusters need.
fn common(cluster: &At<'_>, findings: &mut Findings) {
    let options = cluster.get("typed_extension_protocol_options");
    let options = options.map(|it| it.entries()).unwrap_or_default();
    let http2 = options
        .iter()
        .find_map(|(_, it)| it.find(&["explicit_http_config", "http2_protocol_options"]))
        .or_else(|| cluster.get("http2_protocol_options"));
    match http2 {
        None => findings.add(
            cluster,
            "http2",
            Some(PIECE),
            "the cluster speaks no HTTP/2 (typed_extension_protocol_options), which gRPC needs",
        ),
        Some(http2) => findings.need(
            http2.get("connection_keepalive").is_some(),
            &http2,
            "http2_keepalive",
            PIECE,
            "no connection_keepalive: Envoy notices only after minutes that streamgate's machine is gone",
        ),
    }
    let checks = cluster.list("health_checks");
    let grpc = checks.iter().find_map(|it| it.get("grpc_health_check"));
    match grpc {
        None => findings.add(
            cluster,
            "health_checks",
            Some(PIECE),
            "no grpc_health_check: Envoy keeps asking a streamgate that has stopped, and each check fails",
        ),
        Some(grpc) => findings.need(
            !grpc.text_of("authority").is_empty(),
            &grpc,
            "authority",
            PIECE,
            "grpc_health_check has no authority: Envoy sends its cluster's name, and if that is no valid host name, every check fails",
        ),
    }
    for check in &checks {
        findings.need(
            check.get("no_traffic_interval").is_some(),
            check,
            "health_checks",
            PIECE,
            "no_traffic_interval is unset, so it is a minute: before the first stream, Envoy is slow to notice a dead streamgate",
        );
    }
}

/// Checks what the cluster of the access log needs.
fn log(cluster: &At<'_>, findings: &mut Findings) {
    let panic = cluster.find(&["common_lb_config", "healthy_panic_threshold"]);
    let is_off = panic.is_some_and(|it| {
        let value = it.get("value").and_then(|value| value.number());
        it.is_map() && value.unwrap_or(0.0) == 0.0
    });
    findings.need(
        is_off,
        cluster,
        "panic",
        PIECE,
        "healthy_panic_threshold is not 0: while streamgate is down, Envoy loses ends instead of keeping them",
    );
    findings.need(
        cluster.get("outlier_detection").is_some(),
        cluster,
        "outlier_detection",
        PIECE,
        "no outlier_detection: entries sent between the death of a streamgate and the next health check are lost",
    );
}

/// Checks that a cluster has room for more than the default allows.
pub(super) fn breakers(cluster: &At<'_>, what: &str, piece: &'static str, findings: &mut Findings) {
    let breakers = cluster.get("circuit_breakers");
    let thresholds = breakers.as_ref().map(|it| it.list("thresholds"));
    let thresholds = thresholds.unwrap_or_default();
    let default = thresholds.iter().find(|it| {
        let priority = it.text_of("priority");
        priority.is_empty() || priority == "DEFAULT"
    });
    let small = ["max_connections", "max_pending_requests", "max_requests"]
        .into_iter()
        .filter(|name| {
            let limit = default.and_then(|it| it.get(name)?.number());
            limit.is_none_or(|limit| limit <= DEFAULT_BREAKER)
        });
    let small: Vec<_> = small.collect();
    if !small.is_empty() {
        findings.add(
            breakers.as_ref().unwrap_or(cluster),
            "circuit_breakers",
            Some(piece),
            format!(
                "circuit_breakers leave {} at 1,024 or less: any {what} above that number fail",
                small.join(", ")
            ),
        );
    }
}

/// Checks the clusters that checked streams come from.
pub(super) fn origins(envoy: &Envoy<'_>, names: &[&str], findings: &mut Findings) {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    for cluster in names.into_iter().filter_map(|name| envoy.cluster(name)) {
        breakers(cluster, "streams", "circuit_breakers", findings);
    }
}

/// Whether a cluster leads to streamgate's HTTP port, as far as its name tells.
pub(super) fn is_api(name: &str) -> bool {
    name.contains("streamgate")
}
