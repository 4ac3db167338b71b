//! What the slots of the pieces hold, by the plan.

use super::fill::{Piece, Values, quoted, yaml_text};
use super::pieces;
use super::place::EnvoyPlace;
use super::plan::{Jwt, Login, Plan, RouteKind, TokenKeys};

/// The default address of streamgate's gRPC port.
const STREAMGATE: &str = "127.0.0.1:50051";
/// Where its HTTP port is.
const API: &str = "127.0.0.1:8080";
/// Where streams come from.
const UPSTREAM: &str = "127.0.0.1:8000";
/// Where Envoy listens.
const LISTEN: &str = "127.0.0.1:10000";

/// What all pieces need.
pub(super) fn values(plan: &Plan<'_>) -> Values {
    let mut values = Values::default();
    node(plan, &mut values);
    edge(plan, &mut values);
    cors(plan, &mut values);
    login(plan, &mut values);
    tls(plan, &mut values);
    streamgate(plan, &mut values);
    api(plan, &mut values);
    upstream(plan, &mut values);
    values
}

/// A place that was said, or the example.
fn place(said: Option<&EnvoyPlace>, example: &str) -> (Option<EnvoyPlace>, bool) {
    match said {
        Some(place) => (Some(place.clone()), true),
        None => (example.parse().ok(), false),
    }
}

/// Sets where a cluster is, and how it finds its hosts; says whether somebody said so.
fn way(
    values: &mut Values,
    [address, discovery]: [&'static str; 2],
    said: Option<&EnvoyPlace>,
    example: &str,
) -> bool {
    let (place, is_said) = place(said, example);
    if let Some(place) = place {
        values.set(address, place.address());
        values.set(discovery, place.discovery());
    }
    is_said
}

/// Envoy itself.
fn node(plan: &Plan<'_>, values: &mut Values) {
    let args = plan.args;
    values.set("admin", EnvoyPlace::from(args.admin).address());
    let node = args.node.as_deref();
    values.set("node", yaml_text(node.unwrap_or("gateway-1")));
    let note = if node.is_none() {
        "   # CHANGE: an id of its own for each Envoy"
    } else {
        ""
    };
    values.set("node_note", note);
    let listen = args.listen.map(EnvoyPlace::from);
    let (listen, is_said) = place(listen.as_ref(), LISTEN);
    let address = listen.map(|listen| listen.address());
    values.set("listen", address.unwrap_or_default());
    let note = if is_said {
        ""
    } else {
        "   # CHANGE: 0.0.0.0 to be reached from outside"
    };
    values.set("listen_note", note);
}

/// The proxies in front of it, and which of their headers it trusts.
fn edge(plan: &Plan<'_>, values: &mut Values) {
    let hops = plan.trusted_hops();
    values.set("hops", hops.to_string());
    let edge = if hops == 0 {
        pieces::EDGE
    } else {
        pieces::EDGE_BEHIND
    };
    let edge = edge.body(values);
    values.set("edge", edge);
    let believed = plan.login.user_header();
    let is_ours = matches!(plan.login, Login::Jwt(_) | Login::Basic);
    let spoofing = if is_ours {
        ", and one that could choose x-user-id could be anybody"
    } else {
        ""
    };
    values.set("spoofing", spoofing);
    let removed = [
        "x-request-id",
        "x-user-id",
        "x-streamgate-session",
        "x-streamgate-user",
    ]
    .into_iter()
    .filter(|name| is_ours || believed != Some(name));
    let removed: Vec<_> = removed.map(|name| format!("{{remove: {name}}}")).collect();
    values.set("removals", removed.join(", "));
    let logged = believed.into_iter().chain(["x-playback-session-id"]);
    values.set(
        "logged",
        logged.map(yaml_text).collect::<Vec<_>>().join(", "),
    );
}

/// Pages of other origins.
fn cors(plan: &Plan<'_>, values: &mut Values) {
    let pages = &plan.args.cors_origin;
    let origins: Vec<_> = match &pages[..] {
        [] => vec!["https://player.example"],
        said => said.iter().map(String::as_str).collect(),
    };
    let origins = origins
        .into_iter()
        .map(|it| format!("{{exact: {}}}", quoted(it)));
    values.set("cors_origins", origins.collect::<Vec<_>>().join(", "));
    let (hint, note) = if pages.is_empty() {
        (
            " CHANGE the origin, or leave cors out (here and under http_filters) if there are none.",
            "   # CHANGE, or leave cors out if no script of another origin asks",
        )
    } else {
        ("", "")
    };
    values.set("cors_hint", hint);
    values.set("cors_note", note);
    for (slot, piece) in [
        ("cors_policy", pieces::CORS_POLICY),
        ("cors_filter", pieces::CORS_FILTER),
        ("api_cors", pieces::CORS_API),
    ] {
        let text = if plan.has_cors() {
            piece.body(values)
        } else {
            String::new()
        };
        values.set(slot, text);
    }
}

/// Who verifies the user.
fn login(plan: &Plan<'_>, values: &mut Values) {
    values.set("user_header", plan.login.user_header().unwrap_or_default());
    let off = match plan.login {
        Login::Basic => pieces::LOGIN_OFF.body(values),
        _ => String::new(),
    };
    values.set("login_off", off);
    let mut claims = "";
    let piece = match &plan.login {
        Login::Jwt(token) => {
            claims = "metadata_context_namespaces: [envoy.filters.http.jwt_authn]   # verified claims, for identity sources `jwt:`";
            jwt(plan, token, values);
            pieces::LOGIN_JWT
        }
        Login::Basic => pieces::LOGIN_BASIC,
        Login::Principal => pieces::LOGIN_PRINCIPAL,
        Login::Header(name) => {
            values.set("user_source", name);
            values.set("identity", format!("header:{name}"));
            pieces::LOGIN_HEADER
        }
        Login::Cookie(name) => {
            values.set("user_source", format!("the cookie {name}"));
            values.set("identity", format!("cookie:{name}"));
            pieces::LOGIN_HEADER
        }
    };
    values.set("claims", claims);
    let text = piece.body(values);
    values.set("login", text);
    let chain = match plan.login {
        Login::Principal => pieces::FILTER_CHAIN.body(values),
        _ => String::new(),
    };
    values.set("filter_chain", chain);
    let place = match plan.login {
        Login::Jwt(_) => {
            "# If a jwt_authn of yours is there already, leave the first one out and add to the provider in yours what\n\
             # it has in `claim_to_headers` and `payload_in_metadata`."
        }
        Login::Basic => {
            "# If a basic_auth of yours is there already, leave the first one out and set its `forward_username_header`."
        }
        Login::Principal | Login::Header(_) | Login::Cookie(_) => "",
    };
    values.set("login_place", place);
}

/// How tokens are verified.
fn jwt(plan: &Plan<'_>, token: &Jwt, values: &mut Values) {
    values.set("claim", yaml_text(&token.claim));
    let audience = match &token.audience {
        Some(audience) => format!("[{}]", yaml_text(audience)),
        None => "[streams]                 # CHANGE".to_owned(),
    };
    values.set("audience", audience);
    match &token.issuer {
        Some((issuer, keys)) => {
            values.set("issuer", yaml_text(issuer));
            login_service(keys, values);
            values.set("jwks", quoted(&keys.url));
            let text = pieces::KEYS_REMOTE.body(values);
            values.set("keys", text);
        }
        None => {
            values.set("issuer", "https://login.example        # CHANGE");
            values.set("keys", pieces::KEYS_EXAMPLE.body(values));
        }
    }
    values.set("rules", rules(plan));
}

/// Where a token is needed, in the order in which the filter looks: as Envoy looks at routes.
fn rules(plan: &Plan<'_>) -> String {
    let needs =
        |matcher: &str| format!("- match: {matcher}\n  requires: {{provider_name: login}}\n");
    let mut rules = "- match: {path: /healthz}\n".to_owned();
    let is_open = |kind| kind == RouteKind::Open;
    let has_open = plan.routes.iter().any(|(kind, _)| is_open(*kind));
    if plan.has_api() {
        rules.push_str("- match: {path: /v1/problems}\n");
        if has_open {
            rules.push_str(&needs("{path_separated_prefix: /v1/users}"));
        }
    }
    for (kind, path) in plan.routes.iter().filter(|_| has_open) {
        let matcher = path.matcher();
        if is_open(*kind) {
            rules.push_str(&format!("- match: {matcher}\n"));
        } else {
            rules.push_str(&needs(&matcher));
        }
    }
    if !plan
        .routes
        .iter()
        .any(|(kind, path)| is_open(*kind) && path.stem().is_empty())
    {
        rules.push_str(&needs("{prefix: /}"));
    }
    rules
}

/// The cluster that keys are fetched from.
fn login_service(keys: &TokenKeys, values: &mut Values) {
    values.set("login_host", yaml_text(&keys.host));
    values.set("login_address", keys.place.address());
    values.set("login_discovery", keys.place.discovery());
    let tls = if keys.tls {
        pieces::LOGIN_TLS.body(values)
    } else {
        String::new()
    };
    values.set("login_tls", tls);
}

/// TLS to streamgate.
fn tls(plan: &Plan<'_>, values: &mut Values) {
    let said = &plan.args.tls;
    let example = said.tls_name.is_none();
    let text = |said: &Option<String>, example: &str| yaml_text(said.as_deref().unwrap_or(example));
    values.set("tls_name", text(&said.tls_name, "streamgate.internal"));
    values.set("tls_ca", text(&said.tls_ca, "/etc/envoy/streamgate/ca.crt"));
    values.set(
        "tls_cert",
        text(&said.tls_cert, "/etc/envoy/streamgate/tls.crt"),
    );
    values.set(
        "tls_key",
        text(&said.tls_key, "/etc/envoy/streamgate/tls.key"),
    );
    values.set("tls_change", if example { "CHANGE: " } else { "" });
    values.set("tls_note", if example { "   # CHANGE" } else { "" });
    let identity = if example || said.tls_cert.is_some() {
        pieces::TLS_IDENTITY.body(values)
    } else {
        String::new()
    };
    values.set("tls_identity", identity);
    let tls = if example {
        String::new()
    } else {
        pieces::TLS.body(values)
    };
    values.set("tls", tls);
}

/// The ways to streamgate's gRPC port.
fn streamgate(plan: &Plan<'_>, values: &mut Values) {
    let args = plan.args;
    let slots = ["grpc_address", "grpc_discovery"];
    let is_said = way(values, slots, args.streamgate.as_ref(), STREAMGATE);
    let note = if is_said {
        ""
    } else {
        "# CHANGE the address in both, in load_assignment."
    };
    values.set("clusters_note", note);
    let retries = args.shared && !plan.issues();
    let seconds = args
        .health_interval
        .unwrap_or(if args.shared { 2.0 } else { 0.1 });
    values.set("health_interval", format!("{seconds}s"));
    let (timeout, reason) = if args.shared {
        (
            "1s",
            "# For a streamgate that many gateways share: docs/envoy/several-instances.md says what these cost.",
        )
    } else {
        (
            "0.3s",
            "# For a streamgate on the same machine. For a shared one, check less often: docs/envoy/several-instances.md has the values.",
        )
    };
    values.set("health_timeout", timeout);
    values.set("health_reason", reason);
    let text = |with: &str| {
        if retries {
            with.to_owned()
        } else {
            String::new()
        }
    };
    let check = if retries {
        pieces::RETRY_CHECK.body(values)
    } else if args.shared {
        "# No retry_policy: a route issues a cookie, and a first request that is checked twice would get two.\n".to_owned()
    } else {
        String::new()
    };
    values.set("check_retry", check);
    values.set("max_retries", text(", max_retries: 100000"));
    let reason = "# Also max_retries: unset, the 4th concurrent retry fails.";
    values.set("retries_reason", text(reason));
    let (connect, check) = if retries {
        (
            "0.1s   # so that time is left for another one",
            "0.75s   # for both tries, one of which may take connect_timeout for nothing",
        )
    } else {
        ("0.25s", "0.5s")
    };
    values.set("connect_timeout", connect);
    values.set("check_timeout", check);
}

/// The way to streamgate's HTTP port.
fn api(plan: &Plan<'_>, values: &mut Values) {
    let args = plan.args;
    let slots = ["api_address", "api_discovery"];
    let is_said = way(values, slots, args.api.as_ref(), API);
    let note = if is_said {
        ""
    } else {
        " CHANGE the address, in load_assignment."
    };
    values.set("api_note", note);
    let shared = |piece: Piece| {
        if args.shared {
            piece.body(values)
        } else {
            String::new()
        }
    };
    let (retry, health) = (shared(pieces::RETRY_API), shared(pieces::HEALTH_API));
    values.set("api_retry", retry);
    values.set("api_health", health);
    let retries = if args.shared {
        ", max_retries: 10000"
    } else {
        ""
    };
    values.set("api_max_retries", retries);
    values.set("api_connect", if args.shared { "0.1s" } else { "0.25s" });
}

/// The way to where streams come from.
fn upstream(plan: &Plan<'_>, values: &mut Values) {
    let slots = ["origin_address", "origin_discovery"];
    let is_said = way(values, slots, plan.args.upstream.as_ref(), UPSTREAM);
    let note = if is_said {
        "Where the streams come from."
    } else {
        "CHANGE: where the streams come from."
    };
    values.set("origin_note", note);
}
