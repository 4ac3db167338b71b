//! Checks how the user is identified: a filter must verify it, and a client must not be able to set
//! it.

use super::envoy::Manager;
use super::finding::Findings;
use super::node::At;
use crate::identity::Source;

/// Filters that verify the user.
pub(super) const VERIFIERS: [&str; 3] = ["JwtAuthentication", "BasicAuth", "OAuth2"];

/// What only the gateway may say, and why.
const OURS: [(&str, &str); 3] = [
    (
        "x-request-id",
        "a client that chooses its request id can end another viewer's stream",
    ),
    (
        "x-streamgate-session",
        "a client could claim another stream's id to the origin",
    ),
    (
        "x-streamgate-user",
        "a client could act on another user's sessions",
    ),
];

/// Checks that somebody verifies the user, and which headers reach the check.
pub(super) fn check(manager: &Manager<'_>, user: Option<&Source>, findings: &mut Findings) {
    let written = headers_written(manager);
    let is_told = matches!(
        user,
        Some(Source::Header(_) | Source::Cookie(_) | Source::Basic)
    );
    let is_verified = VERIFIERS.iter().any(|it| manager.filter(it).is_some());
    if !is_verified && !is_told && !has_client_certificates(manager) {
        findings.add(
            &manager.settings,
            "user",
            Some("http_filters"),
            "nothing here verifies who the user is; add jwt_authn or basic_auth, or say who does: --user header:NAME for a proxy \
             in front of this Envoy, --user principal with client certificates",
        );
    }
    claims(manager, &written, findings);
    let removed = removed(manager);
    let mut needed: Vec<(String, String)> = OURS
        .iter()
        .map(|(name, why)| ((*name).to_owned(), (*why).to_owned()))
        .collect();
    let believed = if written.is_empty() && user.is_none() && !has_client_certificates(manager) {
        vec!["x-user-id".to_owned()]
    } else {
        written
    };
    needed.extend(believed.into_iter().map(|name| {
        let why = "any client could pose as any user".to_owned();
        (name, why)
    }));
    for (name, why) in needed {
        let is_from_proxy = matches!(user, Some(Source::Header(header)) if header.as_str() == name);
        if is_from_proxy || removed.contains(&name) {
            continue;
        }
        findings.add(
            &manager.settings,
            "client_header",
            Some("http_connection_manager"),
            format!(
                "a client's {name} is not removed before the check: {why}; remove it in early_header_mutation_extensions \
                 (request_headers_to_remove runs after the check)"
            ),
        );
    }
    if manager.settings.is("preserve_external_request_id", true) {
        findings.add(
            &manager.settings,
            "client_header",
            None,
            "preserve_external_request_id is true: a client that chooses its request id can end another viewer's stream; delete it",
        );
    }
}

/// The headers that filters write for the verified user, in lower case.
pub(super) fn headers_written(manager: &Manager<'_>) -> Vec<String> {
    let mut headers = Vec::new();
    for (_, jwt) in manager.filters_of("JwtAuthentication") {
        for (_, provider) in providers(&jwt) {
            let claims = provider.list("claim_to_headers");
            headers.extend(claims.iter().map(|it| it.text_of("header_name").to_owned()));
        }
    }
    for (_, basic) in manager.filters_of("BasicAuth") {
        headers.push(basic.text_of("forward_username_header").to_owned());
    }
    headers.retain(|name| !name.is_empty());
    for name in &mut headers {
        name.make_ascii_lowercase();
    }
    headers
}

/// The providers of tokens.
fn providers<'a>(jwt: &At<'a>) -> Vec<(&'a str, At<'a>)> {
    jwt.get("providers")
        .map(|providers| providers.entries())
        .unwrap_or_default()
}

/// Checks that what a token says reaches streamgate.
fn claims(manager: &Manager<'_>, written: &[String], findings: &mut Findings) {
    for (_, jwt) in manager.filters_of("JwtAuthentication") {
        let payload = providers(&jwt)
            .into_iter()
            .any(|(_, it)| it.get("payload_in_metadata").is_some());
        if written.is_empty() && !payload {
            findings.add(
                &jwt,
                "claim_to_headers",
                Some("http_filters"),
                "no provider has claim_to_headers or payload_in_metadata: the verified user never reaches streamgate",
            );
        }
        let Some((_, check)) = super::filters::check(manager) else {
            continue;
        };
        let namespaces = check.list("metadata_context_namespaces");
        let passed = namespaces
            .iter()
            .any(|it| it.text() == Some("envoy.filters.http.jwt_authn"));
        if payload && !passed {
            findings.add(
                &check,
                "claims",
                Some("http_filters"),
                "metadata_context_namespaces lacks envoy.filters.http.jwt_authn: identity sources `jwt:` find no claim",
            );
        }
    }
}

/// Whether the listener lets in only clients with a certificate.
fn has_client_certificates(manager: &Manager<'_>) -> bool {
    let tls = manager.chain.find(&["transport_socket", "typed_config"]);
    tls.is_some_and(|tls| tls.is("require_client_certificate", true))
}

/// The headers of clients that are removed before the check, in lower case.
fn removed(manager: &Manager<'_>) -> Vec<String> {
    let mut mutations: Vec<At<'_>> = Vec::new();
    for extension in manager.settings.list("early_header_mutation_extensions") {
        if let Some(settings) = extension.get("typed_config") {
            mutations.extend(settings.list("mutations"));
        }
    }
    // The first filter that verifies overwrites the header, so only removals before it count.
    let writes = VERIFIERS.iter().filter_map(|it| manager.filter(it));
    let first = writes.map(|(place, _)| place).min();
    let check = super::filters::check(manager).map(|(place, _)| place);
    let end = first.or(check).unwrap_or(manager.filters.len());
    for (place, filter) in manager.filters_of("HeaderMutation") {
        if place < end {
            let settings = filter.find(&["mutations"]);
            mutations.extend(settings.iter().flat_map(|it| it.list("request_mutations")));
        }
    }
    let removed = mutations.iter().map(|it| it.text_of("remove"));
    let internal = manager.routes.iter();
    let internal = internal.flat_map(|routes| routes.list("internal_only_headers"));
    let internal: Vec<_> = internal.filter_map(|it| it.text()).collect();
    removed
        .chain(internal)
        .map(str::to_ascii_lowercase)
        .collect()
}
