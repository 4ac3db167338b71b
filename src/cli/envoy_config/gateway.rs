//! A gateway: its pieces in their places, as a whole file or as fragments for another one.

use super::fill::{Piece, Values, indented, leading_comment, quoted};
use super::pieces;
use super::plan::{Login, Plan, RouteKind};
use super::values::values;

/// The entries in the lists of a gateway, each as text.
#[derive(Debug)]
pub(super) struct Gateway {
    /// What the slots of all pieces hold.
    pub(super) values: Values,
    /// The access loggers.
    pub(super) loggers: Vec<String>,
    /// The routes.
    pub(super) routes: Vec<String>,
    /// The listeners behind the first one.
    pub(super) listeners: Vec<String>,
    /// The clusters.
    pub(super) clusters: Vec<String>,
    /// The pieces for another Envoy.
    fragments: Vec<Fragment>,
}

/// A piece for another Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment {
    /// What it is called: the name of its file in `envoy/fragments`.
    pub(super) name: &'static str,
    /// Where it goes and what it says.
    pub(super) text: String,
}

impl Gateway {
    /// The gateway of a plan.
    pub(super) fn of(plan: &Plan<'_>) -> Self {
        let values = values(plan);
        let mut clusters = vec![pieces::CLUSTERS.body(&values)];
        if plan.has_api() {
            clusters.push(pieces::CLUSTER_API.body(&values));
        }
        if has_login_service(plan) {
            clusters.push(pieces::CLUSTER_LOGIN.body(&values));
        }
        clusters.push(pieces::CLUSTER_ORIGIN.body(&values));
        Self {
            loggers: vec![pieces::ACCESS_LOG.body(&values)],
            routes: routes(plan, &values),
            listeners: Vec::new(),
            clusters,
            fragments: fragments(plan, &values),
            values,
        }
    }

    /// The whole file, with that comment at its head.
    pub(super) fn whole(&self, head: &str) -> String {
        let mut values = self.values.clone();
        values.set("head", head);
        values.set("listener", pieces::LISTENER.body(&self.values));
        values.set(
            "manager",
            pieces::HTTP_CONNECTION_MANAGER.body(&self.values),
        );
        values.set("filters", pieces::HTTP_FILTERS.body(&self.values));
        values.set("loggers", self.loggers.concat());
        values.set("routes", self.routes.concat());
        values.set("listeners", self.listeners.concat());
        values.set("clusters", self.clusters.concat());
        pieces::GATEWAY.body(&values)
    }

    /// The pieces for another Envoy, in the order in which they are put there.
    pub(super) fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }
}

/// Whether keys are fetched over the network.
fn has_login_service(plan: &Plan<'_>) -> bool {
    matches!(&plan.login, Login::Jwt(token) if token.issuer.is_some())
}

/// An item of a list of routes: the comment, what it matches, and its settings.
pub(super) fn route(comment: &str, matcher: &str, settings: &str) -> String {
    let settings = indented(settings, "  ");
    format!("{comment}- match: {matcher}\n{settings}")
}

/// The piece for that kind of route, and what it needs.
fn kind(kind: RouteKind, values: &Values, to: &str) -> (Piece, Values) {
    let values = values.with("to", format!("{to}, "));
    match kind {
        RouteKind::Open => {
            let action = format!("route: {{{to}}}");
            (pieces::ROUTE_UNCHECKED, values.with("action", action))
        }
        RouteKind::Live => (pieces::ROUTE_ENDLESS, values),
        RouteKind::WebSocket => {
            let values = values.with("idle", ", idle_timeout: 900s");
            let note = "; a WebSocket may be silent for minutes";
            (pieces::ROUTE_ENDLESS, values.with("idle_note", note))
        }
        RouteKind::Playback => (pieces::ROUTE_PLAYBACK, values),
        RouteKind::Issued => (pieces::ROUTE_ISSUED, values),
    }
}

/// Which addresses share a cookie below a path: a folder for each title.
fn cookie_path(path: &str) -> String {
    quoted(&format!("path:^{}/[^/]+/", regex::escape(path)))
}

/// All routes. The fixed ones come first; the first route of each kind carries the comment that
/// explains it.
fn routes(plan: &Plan<'_>, values: &Values) -> Vec<String> {
    let values = values.with("idle", "").with("idle_note", "");
    let unchecked = |action: &str| {
        let body = pieces::ROUTE_UNCHECKED.body(&values.with("action", action));
        let (reason, settings) = leading_comment(&body);
        (reason.to_owned(), settings.to_owned())
    };
    let (reason, healthz) = unchecked("direct_response: {status: 200}");
    let mut routes = vec![route(&reason, "{path: /healthz}", &healthz)];
    if plan.has_api() {
        let (_, problems) = unchecked("route: {cluster: streamgate_http}");
        let reason = "# The page that explains refusals; their `type` links to it.\n";
        routes.push(route(reason, "{path: /v1/problems}", &problems));
        let values = values.with("api_cluster", "cluster: streamgate_http");
        let body = pieces::ROUTE_API.body(&values);
        let (reason, api) = leading_comment(&body);
        let matcher = "{path_separated_prefix: /v1/users}";
        routes.push(route(reason, matcher, api));
    }
    let mut explained = vec![pieces::ROUTE_UNCHECKED];
    for (of, path) in &plan.routes {
        let (piece, values) = kind(*of, &values, "cluster: origin");
        let values = values.with("cookie_path", cookie_path(path.stem()));
        let body = piece.body(&values);
        let (reason, settings) = leading_comment(&body);
        let reason = if explained.contains(&piece) {
            ""
        } else {
            reason
        };
        explained.push(piece);
        routes.push(route(reason, &path.matcher(), settings));
    }
    routes
}

/// The pieces for another Envoy, in the order in which they are put there.
fn fragments(plan: &Plan<'_>, values: &Values) -> Vec<Fragment> {
    let mut values = values.clone();
    // The owner of the other Envoy decides whether a path needs a login.
    for slot in [
        "to",
        "idle",
        "idle_note",
        "action",
        "api_cluster",
        "login_off",
    ] {
        values.set(slot, "");
    }
    let first = plan.routes.iter().find(|(of, _)| *of == RouteKind::Issued);
    let path = first.map_or("/vod", |(_, path)| path.stem());
    values.set("cookie_path", cookie_path(path));
    let has = |of| plan.routes.iter().any(|(kind, _)| *kind == of);
    let api = plan.has_api();
    let chosen = [
        ("clusters", pieces::CLUSTERS, true),
        ("cluster-api", pieces::CLUSTER_API, api),
        (
            "cluster-login",
            pieces::CLUSTER_LOGIN,
            has_login_service(plan),
        ),
        ("http_filters", pieces::HTTP_FILTERS, true),
        ("access_log", pieces::ACCESS_LOG, true),
        (
            "http_connection_manager",
            pieces::HTTP_CONNECTION_MANAGER,
            true,
        ),
        ("listener", pieces::LISTENER, true),
        (
            "filter_chain",
            pieces::FILTER_CHAIN,
            plan.login == Login::Principal,
        ),
        (
            "route-endless",
            pieces::ROUTE_ENDLESS,
            has(RouteKind::Live) || has(RouteKind::WebSocket),
        ),
        (
            "route-playback",
            pieces::ROUTE_PLAYBACK,
            has(RouteKind::Playback),
        ),
        ("route-issued", pieces::ROUTE_ISSUED, has(RouteKind::Issued)),
        ("route-unchecked", pieces::ROUTE_UNCHECKED, true),
        ("route-api", pieces::ROUTE_API, api),
        ("circuit_breakers", pieces::CIRCUIT_BREAKERS, true),
    ];
    chosen
        .into_iter()
        .filter(|(.., is_chosen)| *is_chosen)
        .map(|(name, piece, _)| Fragment::of(name, piece, &values))
        .collect()
}

impl Fragment {
    /// A piece with its place.
    pub(super) fn of(name: &'static str, piece: Piece, values: &Values) -> Self {
        let text = format!("{}\n{}", piece.place(values), piece.body(values));
        Self { name, text }
    }
}
