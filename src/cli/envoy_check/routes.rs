//! Checks of the routes: what counts as one stream there, and what isn't counted.

use super::clusters::is_api;
use super::envoy::Manager;
use super::filters;
use super::finding::Findings;
use super::node::At;
use crate::identity::Source;

/// The check's filter by its usual name.
const CHECK: &str = "envoy.filters.http.ext_authz";
/// The mark's filter by its usual name.
const MARK: &str = "envoy.filters.http.set_metadata";

/// What Envoy shows in the place of a route's own words in a dump.
const REDACTED: &str = "[redacted]";

/// What a route may say to streamgate.
const KNOWN: [&str; 4] = [
    "streamgate.session",
    "streamgate.issue",
    "streamgate.cookie_path",
    "streamgate.enforce",
];

/// A route, and what the maps above it say.
struct Route<'a> {
    /// The route.
    at: At<'a>,
    /// The maps that filters find settings in, the nearest first.
    settings: Vec<At<'a>>,
}

/// Facts about the counted routes.
#[derive(Default)]
pub(super) struct Counted<'a> {
    /// The clusters that they lead to.
    pub(super) clusters: Vec<&'a str>,
    /// Whether Envoy has hidden what they say to streamgate.
    pub(super) is_redacted: bool,
}

/// Checks the routes.
pub(super) fn routes<'a>(manager: &Manager<'a>, findings: &mut Findings) -> Counted<'a> {
    let Some(table) = &manager.routes else {
        return Counted::default();
    };
    let filter = filters::check(manager);
    let filter = filter.and_then(|(place, _)| manager.filters.get(place));
    let retries = filters::check(manager)
        .is_some_and(|(_, it)| it.find(&["grpc_service", "retry_policy"]).is_some());
    let check = filter.map_or(CHECK, |filter| filter.text_of("name"));
    let mark = manager
        .filters
        .iter()
        .map(|filter| filter.text_of("name"))
        .find(|name| *name == MARK);
    let mut all = Counted::default();
    let mut checked = 0;
    for host in table.list("virtual_hosts") {
        for at in host.list("routes") {
            let above = [at.clone(), host.clone(), table.clone()];
            let settings = above
                .iter()
                .filter_map(|it| it.get("typed_per_filter_config"));
            let route = Route {
                settings: settings.collect(),
                at,
            };
            if route.is_disabled(check) {
                unchecked(&route, mark, findings);
            } else {
                checked += 1;
                counted(&route, check, retries, findings);
                all.clusters.extend(route.clusters());
                let mut said = route.said(check).into_iter();
                all.is_redacted |= said.any(|(_, at)| at.text() == Some(REDACTED));
            }
        }
    }
    if checked == 0 {
        findings.add(
            table,
            "routes",
            Some("route-endless"),
            "no route is checked: nothing is counted",
        );
    }
    all
}

/// Checks a route that streamgate is asked about.
fn counted(route: &Route<'_>, check: &str, retries: bool, findings: &mut Findings) {
    for (name, at) in route.said(check) {
        if name.starts_with("streamgate.") && !KNOWN.contains(&name) {
            let known = KNOWN.join(", ");
            findings.add(
                &at,
                "context",
                None,
                format!("streamgate does not know {name:?}; allowed: {known}"),
            );
        }
    }
    // A redirect or a direct response ends immediately.
    let Some(action) = route.at.get("route") else {
        return;
    };
    issued(route, check, retries, findings);
    let session = route
        .said(check)
        .into_iter()
        .find(|(name, _)| *name == "streamgate.session");
    let list = session.as_ref().and_then(|(_, at)| at.text());
    if list == Some(REDACTED) {
        return;
    }
    let sources = list.map(Source::parse_list);
    if let (Some((_, at)), Some(Err(error))) = (&session, &sources) {
        findings.add(at, "context", None, format!("streamgate.session: {error}"));
        return;
    }
    let has_request = match &sources {
        Some(Ok(sources)) => sources.contains(&Source::Request),
        _ => true,
    };
    if has_request && route.looks_like_playback() {
        let at = session.as_ref().map_or(&route.at, |(_, at)| at);
        let said = if session.is_some() {
            "`request` is on the list of an HLS or DASH route"
        } else {
            "this looks like an HLS or DASH route and has no streamgate.session"
        };
        findings.add(
            at,
            "request",
            Some("route-playback"),
            format!(
                "{said}: for a player that sends no name, each segment is a separate stream, and no user ever reaches the limit"
            ),
        );
    } else if has_request {
        let timeout = action.get("timeout");
        let is_endless = timeout.as_ref().and_then(At::seconds) == Some(0.0);
        if !is_endless {
            findings.add(
                timeout.as_ref().unwrap_or(&action),
                "route_timeout",
                Some("route-endless"),
                "timeout is not 0s: Envoy cuts each response off after it (unset: 15 s)",
            );
        }
    }
}

/// Checks that a first request gets one cookie where a route issues one.
fn issued(route: &Route<'_>, check: &str, retries: bool, findings: &mut Findings) {
    let said = route.said(check);
    let issues = said.iter().find(|(name, _)| *name == "streamgate.issue");
    if let Some((_, at)) = issues
        && retries
    {
        findings.add(
            at,
            "retry",
            None,
            "the check's grpc_service has a retry_policy, and this route issues a cookie: a first request that is \
             checked twice becomes two playbacks; delete the retry_policy",
        );
    }
}

/// Checks a route that streamgate isn't asked about.
fn unchecked(route: &Route<'_>, mark: Option<&str>, findings: &mut Findings) {
    if let Some(mark) = mark
        && !route.is_disabled(mark)
    {
        findings.add(
            &route.at,
            "unchecked",
            Some("route-unchecked"),
            "ext_authz is off here but set_metadata is not: Envoy reports unchecked requests to streamgate as streams",
        );
    }
    let is_api = route.clusters().into_iter().any(is_api);
    if !is_api || route.paths().contains(&"/v1/problems") {
        return;
    }
    let added = route.at.list("request_headers_to_add");
    let user = added.iter().find(|it| {
        let header = it.get("header");
        header.is_some_and(|it| it.text_of("key").eq_ignore_ascii_case("x-streamgate-user"))
    });
    let is_safe = user.is_some_and(|it| {
        it.is("keep_empty_value", true)
            && it.text_of("append_action") == "OVERWRITE_IF_EXISTS_OR_ADD"
    });
    if !is_safe {
        findings.add(
            &route.at,
            "api_user",
            Some("route-api"),
            "viewers reach streamgate's API here, and x-streamgate-user is not overwritten with the verified user (with \
             keep_empty_value): a viewer could end anybody's streams",
        );
    }
}

impl<'a> Route<'a> {
    /// Whether that filter is off here, or in a map above that nothing here overrides.
    fn is_disabled(&self, filter: &str) -> bool {
        let nearest = self.settings.iter().find_map(|it| it.get(filter));
        nearest.is_some_and(|it| it.is("disabled", true))
    }

    /// The context extensions that streamgate gets here, the most specific first.
    fn said(&self, check: &str) -> Vec<(&'a str, At<'a>)> {
        let path = ["check_settings", "context_extensions"];
        let maps = self.settings.iter();
        let maps = maps.filter_map(|it| it.get(check)?.find(&path));
        maps.flat_map(|map| map.entries()).collect()
    }

    /// The clusters that it leads to.
    fn clusters(&self) -> Vec<&'a str> {
        let Some(action) = self.at.get("route") else {
            return Vec::new();
        };
        let weighted = action.find(&["weighted_clusters"]);
        let weighted = weighted.map(|it| it.list("clusters")).unwrap_or_default();
        let mut clusters: Vec<_> = weighted.iter().map(|it| it.text_of("name")).collect();
        clusters.push(action.text_of("cluster"));
        clusters.retain(|name| !name.is_empty());
        clusters
    }

    /// What it matches.
    fn paths(&self) -> Vec<&'a str> {
        let Some(matcher) = self.at.get("match") else {
            return Vec::new();
        };
        let mut paths: Vec<_> = ["path", "prefix", "path_separated_prefix"]
            .iter()
            .map(|way| matcher.text_of(way))
            .collect();
        let regex = matcher.find(&["safe_regex", "regex"]);
        paths.extend(regex.and_then(|it| it.text()));
        paths.retain(|path| !path.is_empty());
        paths
    }

    /// Whether players fetch playlists and segments here, judging by the path.
    fn looks_like_playback(&self) -> bool {
        self.paths().iter().any(|path| {
            let path = path.to_ascii_lowercase();
            let mut words = path.split(|c: char| !c.is_ascii_alphanumeric());
            words.any(|word| {
                [
                    "hls", "dash", "vod", "mpd", "m4s", "m3u8", "playlist", "manifest", "segments",
                ]
                .contains(&word)
            })
        })
    }
}
