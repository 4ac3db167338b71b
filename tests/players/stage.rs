//! The scene: the shipped gateway with streamgate, a long film behind it, the viewers' site, and a
//! relay between their players and the gateway.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::media::film;
use super::requests::{Part, Request, format};
use super::site::{Site, token};
use testkit::envoy_files::{CONNECTION_MANAGER, at_mut, fragment, route_mut, set};
use testkit::gateway::{Gateway, Setup, session_from};
use testkit::origin::Origin;
use testkit::proxy::Proxy;
use testkit::streamgate::Streamgate;
use testkit::viewers::{Playing, Viewers};
use testkit::watch::{SLOWLY, eventually_within};

/// Longer than the two seconds between a player's segments, and short enough to await its end.
const LEASE: &str = "4s";
/// On a machine that runs browsers, a check may take longer than the shipped half a second. That is
/// not what these tests are about.
const DEADLINE: &str = "10s";
/// Where viewers come from after they have changed networks.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// So many segments show that a player plays.
const ENOUGH: usize = 2;
/// So many requests are shown where a test fails.
const SHOWN: usize = 40;

/// The whole scene.
pub(super) struct Stage {
    pub(super) site: Site,
    pub(super) wire: Proxy,
    pub(super) streamgate: Streamgate,
    viewers: Viewers,
    log: NamedTempFile,
    gateway: Gateway,
    _origin: Origin,
}

/// Where the route of the film finds what a playback is called.
pub(super) enum Named<'a> {
    /// As `envoy.yaml` is shipped.
    AsShipped,
    /// By the fragment that has a cookie issued.
    OrIssued,
    /// By the fragment for which one request is one stream.
    AsRequest,
    /// By that list.
    By(&'a str),
}

impl Stage {
    /// Users may watch two streams, and bob one.
    pub(super) async fn set(named: Named<'_>) -> Self {
        Self::set_with(named, |setup| setup).await
    }

    /// The same with changes to the gateway.
    pub(super) async fn set_with(named: Named<'_>, change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::set_as(named, LEASE, change).await
    }

    /// The same with the lease that is shipped.
    pub(super) async fn set_with_shipped_lease(named: Named<'_>) -> Self {
        Self::set_as(named, "30s", |setup| setup).await
    }

    async fn set_as(named: Named<'_>, lease: &str, change: impl FnOnce(Setup) -> Setup) -> Self {
        let settings = [
            ("limits.default", "2"),
            ("limits.users", "bob=1"),
            ("leases.playback", lease),
        ];
        let (film, site) = (film().await, Site::start().await);
        let origin = Origin::of(film).await;
        let streamgate = Streamgate::start(&settings).await;
        let log = NamedTempFile::with_prefix("access-").unwrap();
        let setup = Setup::file("envoy/envoy.yaml")
            .streamgates(&[streamgate.grpc])
            .cluster("origin", &[origin.address])
            .cluster("streamgate_http", &[streamgate.http])
            .check(json!({"grpc_service": {"timeout": DEADLINE}}))
            .edit(|envoy| for_players(envoy, &site.origin()))
            .edit(|envoy| logged(envoy, log.path().to_str().unwrap()))
            .edit(|envoy| match named {
                Named::AsShipped => {}
                Named::OrIssued => set(route_mut(envoy, "/vod"), fragment("route-issued")),
                Named::AsRequest => set(route_mut(envoy, "/vod"), fragment("route-endless")),
                Named::By(sources) => set(
                    at_mut(route_mut(envoy, "/vod"), "/typed_per_filter_config"),
                    session_from(sources),
                ),
            });
        let gateway = change(setup).start().await;
        let wire = Proxy::before(gateway.address.port()).await;
        site.leads_to(format!("http://127.0.0.1:{}", wire.port()));
        Self {
            site,
            wire,
            streamgate,
            viewers: Viewers::of(gateway.address),
            log,
            gateway,
            _origin: origin,
        }
    }

    /// Where players find a file of the film.
    pub(super) fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/vod/demo/{file}", self.wire.port())
    }

    /// The same without the relay, which takes all bytes at once, however slowly the player reads.
    pub(super) fn url_without_wire(&self, file: &str) -> String {
        format!("http://{}/vod/demo/{file}", self.gateway.address)
    }

    /// Has bob's one slot taken by a stream of another kind.
    pub(super) async fn bob_watches(&self) -> Playing {
        let live = self.viewers.anonymous("/live/1").bearer_auth(token("bob"));
        self.viewers.watch(live).await
    }

    /// The ids of a user's live sessions, as the HTTP API tells them.
    pub(super) async fn live(&self, user: &str) -> BTreeSet<String> {
        let url = format!("http://{}/v1/users/{user}/sessions", self.streamgate.http);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let told: Value = client.get(url).send().await.unwrap().json().await.unwrap();
        let sessions = told["sessions"].as_array().unwrap();
        assert_eq!(told["active"], sessions.len(), "{told}");
        let ids = sessions.iter().map(|it| it["session"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    /// Waits until these, and no others, are a user's live sessions.
    pub(super) async fn becomes(&self, user: &str, expected: &[&str]) {
        let expected: BTreeSet<_> = expected.iter().map(|&id| id.to_owned()).collect();
        let what = format!("only {expected:?} are live of {user}'s");
        eventually_within(SLOWLY, &what, async || {
            (self.live(user).await == expected).then_some(())
        })
        .await;
    }

    /// What a user has asked for of the film so far.
    pub(super) fn asked(&self, user: &str) -> Vec<Request> {
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        let all = Request::all(&log).into_iter();
        all.filter(|it| it.user.as_deref() == Some(user) && it.part().is_some())
            .collect()
    }

    /// Waits until there is something in what a user has asked for.
    pub(super) async fn sees<T>(
        &self,
        user: &str,
        what: &str,
        find: impl Fn(&[Request]) -> Option<T>,
    ) -> T {
        eventually_within(SLOWLY, &format!("{user}: {what}"), async || {
            find(&self.asked(user))
        })
        .await
    }

    /// Waits until the user has a master playlist, a variant's and some segments, all served by the
    /// backend. They are one playback, and it holds one slot; returns its id.
    pub(super) async fn plays(&self, user: &str) -> String {
        let whole = |requests: &[Request]| {
            let served = |part| {
                let those = requests.iter().filter(move |it| it.part() == Some(part));
                those.filter(|it| it.was_served()).count()
            };
            let playlists = served(Part::Master) > 0 && served(Part::Variant) > 0;
            (playlists && served(Part::Segment) >= ENOUGH).then(|| requests.to_vec())
        };
        let requests = self.sees(user, "the film plays", whole).await;
        self.one(user, &requests).await
    }

    /// All of these requests were let in, as one playback that holds one slot; its id.
    pub(super) async fn one(&self, user: &str, requests: &[Request]) -> String {
        let refused: Vec<_> = requests.iter().filter(|it| it.status >= 400).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        let ids: BTreeSet<_> = requests
            .iter()
            .filter_map(|it| it.session.as_deref())
            .collect();
        assert_eq!(ids.len(), 1, "{requests:#?}");
        let id = (*ids.first().unwrap()).to_owned();
        self.becomes(user, &[&id]).await;
        id
    }

    /// Waits until more of the film has been served after that many requests; returns its session.
    pub(super) async fn goes_on_since(&self, user: &str, before: usize) -> String {
        let more = |requests: &[Request]| {
            let mut new = requests.iter().skip(before).filter(|it| it.was_served());
            let part = |it: &&Request| matches!(it.part(), Some(Part::Segment | Part::File));
            new.find(part)?.session.clone()
        };
        self.sees(user, "the film goes on", more).await
    }

    /// Waits until a user has restarted the film after that many requests, and plays; returns the
    /// session.
    pub(super) async fn begins_anew_since(&self, user: &str, before: usize) -> String {
        let begun = |requests: &[Request]| {
            let mut new = requests.iter().skip(before).filter(|it| it.was_served());
            new.find(|it| it.part() == Some(Part::Master))?;
            new.find(|it| it.part() == Some(Part::Segment))?
                .session
                .clone()
        };
        self.sees(user, "the film restarts", begun).await
    }

    /// The viewers change networks: their connections break, and new ones come from another
    /// address.
    pub(super) fn moves(&self) {
        self.wire.moves_to(ELSEWHERE);
    }

    /// Waits until a user who has moved plays on; under which session that is.
    pub(super) async fn goes_on_elsewhere(&self, user: &str) -> String {
        let elsewhere = ELSEWHERE.to_string();
        self.sees(user, "the film goes on from elsewhere", |requests| {
            let mut new = requests.iter().filter(|it| it.from == elsewhere);
            new.find(|it| it.was_served())?.session.clone()
        })
        .await
    }

    /// Waits until a user has so many live sessions.
    pub(super) async fn holds(&self, user: &str, count: usize) {
        let what = format!("{user} has {count} live sessions");
        eventually_within(SLOWLY, &what, async || {
            (self.live(user).await.len() == count).then_some(())
        })
        .await;
    }

    /// Waits until the backend is sending that many responses concurrently.
    pub(super) async fn under_way(&self, answers: f64) {
        let what = format!("{answers} answers are under way");
        eventually_within(SLOWLY, &what, async || {
            let active = self.gateway.stat("cluster.origin.upstream_rq_active").await;
            (active == Some(answers)).then_some(())
        })
        .await;
    }

    /// Waits until Envoy has reported a running response that often.
    pub(super) async fn reports(&self, times: u32) {
        let name = "streamgate_access_log_entries_total";
        let labels = [("type", "periodic"), ("outcome", "renewal")];
        let before = self.streamgate.metric(name, &labels).await;
        let enough = |count| count >= before + f64::from(times);
        self.streamgate.metric_becomes(name, &labels, enough).await;
    }

    /// Waits until a user is refused with that status.
    pub(super) async fn refuses(&self, user: &str, status: u16) {
        let what = format!("{status}");
        let refused =
            |requests: &[Request]| requests.iter().find(|it| it.status == status).cloned();
        let refused = self.sees(user, &what, refused).await;
        assert_eq!(refused.served_by, None, "{refused:?}");
    }
}

/// A failing test prints the last requests.
impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            let skipped = log.lines().count().saturating_sub(SHOWN);
            let shown: String = log
                .lines()
                .skip(skipped)
                .flat_map(|it| [it, "\n"])
                .collect();
            eprintln!("what was asked last:\n{shown}");
        }
    }
}

/// What the documents say to change for players in a browser, for scripts of that origin.
fn for_players(envoy: &mut Value, origin: &str) {
    let host = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0");
    let cors = at_mut(
        envoy,
        &format!("{host}/typed_per_filter_config/envoy.filters.http.cors"),
    );
    set(
        cors,
        json!({"allow_origin_string_match": [{"exact": origin}], "allow_credentials": true}),
    );
    let filters = at_mut(envoy, &format!("{CONNECTION_MANAGER}/http_filters"));
    let mut filters = filters.as_array_mut().unwrap().iter_mut();
    let login = filters
        .find(|it| it["name"] == "envoy.filters.http.jwt_authn")
        .unwrap();
    let provider = at_mut(login, "/typed_config/providers/login");
    set(provider, json!({"from_cookies": ["access_token"]}));
}

/// Has the gateway write down what it is asked.
fn logged(envoy: &mut Value, path: &str) {
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": format()},
        },
    });
    let logs = at_mut(envoy, &format!("{CONNECTION_MANAGER}/access_log"));
    logs.as_array_mut().unwrap().push(log);
}
