//! Players that say nothing, with the fragment for them in a real Envoy: the cookie of ours, kept
//! and sent back as browsers do.

use std::time::Duration;

use axum::Router;
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::envoy_files::{fragment, route_mut, set};
use testkit::gateway::Setup;
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::viewers::Viewers;

const MASTER: &str = "/vod/demo/index.m3u8";

/// The cookies of one browser.
#[derive(Default)]
struct Jar(Vec<Kept>);

/// A cookie.
struct Kept {
    pair: String,
    path: String,
    max_age: Option<u64>,
}

/// What a player was answered.
#[derive(Debug)]
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Jar {
    /// Asks for a file with the cookies for it, and keeps those that come.
    async fn get(&mut self, viewers: &Viewers, user: &str, path: &str) -> Told {
        let fitting = self.0.iter().filter(|kept| path.starts_with(&kept.path));
        let pairs: Vec<&str> = fitting.map(|kept| kept.pair.as_str()).collect();
        let mut request = viewers.http1(user, path);
        if !pairs.is_empty() {
            request = request.header("cookie", pairs.join("; "));
        }
        let told = Told::of(request.send().await.unwrap()).await;
        for set in told.headers.get_all("set-cookie") {
            self.keep(set.to_str().unwrap());
        }
        told
    }

    fn keep(&mut self, set: &str) {
        let (pair, attributes) = set.split_once("; ").unwrap();
        let attribute = |name: &str| {
            let mut all = attributes.split("; ");
            all.find_map(|attribute| attribute.strip_prefix(name)?.strip_prefix('='))
        };
        let (name, path) = (pair.split('=').next(), attribute("Path").unwrap());
        self.0
            .retain(|kept| kept.pair.split('=').next() != name || kept.path != path);
        self.0.push(Kept {
            pair: pair.to_owned(),
            path: path.to_owned(),
            max_age: attribute("Max-Age").map(|age| age.parse().unwrap()),
        });
    }

    /// So much time passes, for the cookies alone.
    fn age(&mut self, by: Duration) {
        let stays = |kept: &Kept| kept.max_age.is_none_or(|age| age > by.as_secs());
        self.0.retain(stays);
    }
}

impl Told {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.unwrap_or_default();
        Self {
            status,
            headers,
            body,
        }
    }

    /// The session under which it was let in.
    fn session(&self) -> &str {
        assert_eq!(self.status, 200, "{self:?}");
        self.headers["x-streamgate-session"].to_str().unwrap()
    }

    /// Why it was refused.
    fn reason(&self) -> String {
        assert_eq!(self.status, 429, "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        problem["reason"].as_str().unwrap().to_owned()
    }
}

/// The demo's Envoy whose HLS route has the cookie issued, by the fragment.
fn issuing(setup: Setup) -> Setup {
    setup.edit(|envoy| set(route_mut(envoy, "/vod"), fragment("route-issued")))
}

#[tokio::test]
async fn a_browser_s_playback_is_one_by_its_cookie_and_a_second_browser_s_is_another() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&[("limits.default", "2")], issuing).await;
    let (mut tv, mut phone, mut tablet) = (Jar::default(), Jar::default(), Jar::default());
    let first = tv.get(viewers, "alice", MASTER).await;
    assert_eq!(tv.0[0].path, "/vod/demo/");
    for number in 0..10 {
        let segment = format!("/vod/demo/180p/{number:03}.ts");
        let told = tv.get(viewers, "alice", &segment).await;
        assert_eq!(told.session(), first.session());
        assert!(!told.headers.contains_key("set-cookie"), "{told:?}");
    }
    let second = phone.get(viewers, "alice", MASTER).await;
    assert_ne!(second.session(), first.session());
    let third = tablet.get(viewers, "alice", MASTER).await;
    assert_eq!(third.reason(), "full");
    assert!(tablet.0.is_empty(), "{third:?}");
    // The next title is another playback, on the same screen or not.
    let other = tv.get(viewers, "alice", "/vod/other/index.m3u8").await;
    assert_eq!(other.reason(), "full");
    assert_eq!(streamgate.checks("started").await, 2.0);
    // Who says something is who it says.
    streamgate.release("alice", second.session()).await;
    let named = format!("{MASTER}?session=p1");
    let named = tv.get(viewers, "alice", &named).await;
    assert_eq!(named.session(), "p1");
}

#[tokio::test]
async fn a_released_playback_is_followed_by_the_next_and_a_displaced_one_hears_of_it_first() {
    let settings = [
        ("limits.default", "1"),
        ("limits.when_full", "displace_oldest"),
    ];
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&settings, issuing).await;
    let (mut tv, mut phone) = (Jar::default(), Jar::default());
    let first = tv.get(viewers, "alice", MASTER).await;
    streamgate.release("alice", first.session()).await;
    let second = tv.get(viewers, "alice", MASTER).await;
    assert_ne!(second.session(), first.session());
    let same = tv.get(viewers, "alice", "/vod/demo/180p/000.ts").await;
    assert_eq!(same.session(), second.session());

    let third = phone.get(viewers, "alice", MASTER).await;
    for file in ["180p/001.ts", "180p/002.ts", "270p/index.m3u8"] {
        // Audio, video and another quality: this player gets the same answer to each, and none of
        // them starts a new playback.
        let file = format!("/vod/demo/{file}");
        let told = tv.get(viewers, "alice", &file).await;
        assert_eq!(told.reason(), "displaced", "{file}");
    }
    let playing = phone.get(viewers, "alice", "/vod/demo/180p/000.ts").await;
    assert_eq!(playing.session(), third.session());
    tv.age(Duration::from_secs(4));
    assert_eq!(tv.get(viewers, "alice", MASTER).await.reason(), "displaced");
    tv.age(Duration::from_secs(5));
    let reloaded = tv.get(viewers, "alice", MASTER).await;
    assert_ne!(reloaded.session(), second.session());
    let back = format!("{MASTER}?x-streamgate-takeover=oldest");
    let back = phone.get(viewers, "alice", &back).await;
    assert_ne!(back.session(), third.session(), "no need to wait");
}

#[tokio::test]
async fn two_users_of_one_browser_and_a_stolen_cookie_are_each_their_own() {
    let Stack { viewers, .. } = &Stack::start_with(&[("limits.default", "1")], issuing).await;
    let mut shared = Jar::default();
    let alices = shared.get(viewers, "alice", MASTER).await;
    let bobs = shared.get(viewers, "bob", MASTER).await;
    assert_ne!(bobs.session(), alices.session());
    let again = shared.get(viewers, "alice", MASTER).await;
    assert_eq!(again.session(), alices.session());
    let refused = Jar::default().get(viewers, "bob", MASTER).await;
    assert_eq!(refused.reason(), "full", "his own slot is taken");
    // A number that is none of ours is replaced.
    let mut damaged = Jar::default();
    damaged.keep("streamgate=1234; Path=/vod/demo/");
    let carols = damaged.get(viewers, "carol", MASTER).await;
    let kept = damaged.get(viewers, "carol", MASTER).await;
    assert_eq!(kept.session(), carols.session());
}

#[tokio::test]
async fn the_origin_s_cookies_survive_and_head_and_options_bring_none_of_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let cookies = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2; Path=/")];
        let answer = move || async move { (axum::response::AppendHeaders(cookies), "part") };
        axum::serve(listener, Router::new().fallback(answer)).await
    });
    let streamgate = Streamgate::start(&[]).await;
    let setup = issuing(Setup::demo(&[streamgate.grpc], origin));
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let mut jar = Jar::default();
    let first = jar.get(viewers, "alice", MASTER).await;
    let names = |jar: &Jar| -> Vec<String> {
        let names = jar.0.iter().map(|kept| kept.pair.split('=').next());
        names.map(|name| name.unwrap().to_owned()).collect()
    };
    assert_eq!(names(&jar), ["a", "b", "streamgate"]);
    let again = jar.get(viewers, "alice", MASTER).await;
    assert_eq!(again.session(), first.session());
    let url = format!("http://{}{MASTER}", gateway.address);
    for method in [reqwest::Method::HEAD, reqwest::Method::OPTIONS] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method, &url).header("x-user-id", "alice");
        let told = Told::of(request.send().await.unwrap()).await;
        let cookies = told.headers.get_all("set-cookie").iter();
        assert_eq!((told.status.as_u16(), cookies.count()), (200, 2));
    }
}
