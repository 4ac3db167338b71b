//! Checks of the HTTP filters: the check itself, the mark before it, and their order.

use super::envoy::{Envoy, Manager, cluster_of, is_streamgate};
use super::finding::Findings;
use super::identity::VERIFIERS;
use super::node::At;

/// The piece that these are in.
const PIECE: &str = "http_filters";

/// How long a start at a full limit may wait (`limits.grace`), in seconds.
const GRACE: f64 = 0.25;

/// Where the filter that asks streamgate stands, and its settings. Of several, the one that is
/// meant for streamgate by its cluster's name.
pub(super) fn check<'a>(manager: &Manager<'a>) -> Option<(usize, At<'a>)> {
    let asking = manager.filters_of("ExtAuthz").into_iter();
    let asking: Vec<_> = asking
        .filter(|(_, it)| it.get("grpc_service").is_some())
        .collect();
    let ours = asking.iter().find(|(_, settings)| {
        let service = settings.get("grpc_service");
        service.is_some_and(|service| is_streamgate(&service))
    });
    ours.or_else(|| asking.last()).cloned()
}

/// Checks the filters.
pub(super) fn filters(envoy: &Envoy<'_>, manager: &Manager<'_>, findings: &mut Findings) {
    let Some((place, check)) = check(manager) else {
        findings.add(
            &manager.settings,
            "ext_authz",
            Some(PIECE),
            "no ext_authz filter asks streamgate (over gRPC): nothing is counted",
        );
        return;
    };
    order(manager, place, findings);
    outage(&check, findings);
    findings.need(
        check.is("encode_raw_headers", true),
        &check,
        "encode_raw_headers",
        PIECE,
        "encode_raw_headers is not true: Envoy joins repeated headers and repairs invalid UTF-8, so two users' names could become one",
    );
    findings.need(
        check.is("validate_mutations", true),
        &check,
        "validate_mutations",
        PIECE,
        "validate_mutations is not true: a broken header in an answer reaches the client",
    );
    if let Some(service) = check.get("grpc_service") {
        let what = "the check's grpc_service";
        super::clusters::service(envoy, &service, what, PIECE, findings);
        timeout(&check, &service, findings);
    }
}

/// Checks that filters come in the order in which they need each other.
fn order(manager: &Manager<'_>, place: usize, findings: &mut Findings) {
    for verifier in VERIFIERS {
        for (theirs, filter) in manager.filters_of(verifier) {
            if theirs > place {
                findings.add(
                    &filter,
                    "order",
                    Some(PIECE),
                    "this filter verifies the user after ext_authz, so the check sees an unverified user; move it in front",
                );
            }
        }
    }
    if let Some((theirs, filter)) = manager.filter("Cors")
        && theirs > place
    {
        findings.add(
            &filter,
            "order",
            None,
            "cors comes after ext_authz: preflights are checked, and scripts can't read a refusal; make it the first filter",
        );
    }
}

/// Checks what happens when streamgate doesn't answer.
fn outage(check: &At<'_>, findings: &mut Findings) {
    let status = check.find(&["status_on_error", "code"]);
    if !check.is("failure_mode_allow", true) {
        findings.need(
            status.is_some(),
            check,
            "status_on_error",
            PIECE,
            "status_on_error is unset: while streamgate can't be reached, players get 403 and give up",
        );
    }
}

/// Checks that Envoy waits long enough for the answer to a check.
fn timeout(check: &At<'_>, service: &At<'_>, findings: &mut Findings) {
    let timeout = service.get("timeout");
    let seconds = timeout.as_ref().and_then(At::seconds);
    if seconds.is_some_and(|seconds| seconds > GRACE) {
        return;
    }
    let written = seconds.map_or("unset, which is 0.2 s".to_owned(), |it| format!("{it} s"));
    let effect = if check.is("failure_mode_allow", true) {
        "and failure_mode_allow then lets it in uncounted, so the limit does not hold"
    } else {
        "so it is an error instead of a refusal"
    };
    findings.add(
        timeout.as_ref().unwrap_or(service),
        "timeout",
        Some(PIECE),
        format!(
            "the check's timeout is {written}: a start at a full limit waits limits.grace (0.25 s), {effect}"
        ),
    );
}

/// Whether a filter before the check writes metadata of that namespace.
pub(super) fn marks(manager: &Manager<'_>, namespace: &str) -> bool {
    let end = check(manager).map_or(manager.filters.len(), |(place, _)| place);
    let filters = manager.filters_of("Config").into_iter();
    let mut filters = filters.filter(|(place, _)| *place < end);
    filters.any(|(_, filter)| {
        let mut written = filter.list("metadata");
        written.push(filter);
        written
            .iter()
            .any(|it| it.text_of("metadata_namespace") == namespace)
    })
}

/// The name of the cluster that the check goes to.
pub(super) fn check_cluster<'a>(manager: &Manager<'a>) -> &'a str {
    let service = check(manager).and_then(|(_, check)| check.get("grpc_service"));
    service.map_or("", |service| cluster_of(&service))
}
