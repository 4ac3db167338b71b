//! The cookie of ours in a real Chromium, behind a real Envoy: a page on another origin that plays
//! and names nothing.

use std::net::SocketAddr;

use axum::Router;
use axum::response::Html;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::chromium::{Chromium, Tab};
use testkit::envoy_files::{CONNECTION_MANAGER, at_mut, fragment, route_mut, set};
use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::viewers::Viewers;
use testkit::watch::{SLOWLY, eventually_within};

/// Fetches an HLS stream as a player does, then shows a film in the same folder, and says what came
/// of it.
const PAGE: &str = r#"<!doctype html><body>Starting<script>
    const folder = new URLSearchParams(location.search).get("at") + "/vod/demo/";
    const get = async (file) => {
        const options = { method: "GET", credentials: "include" };
        const answer = await fetch(`${folder}${file}?user=alice`, options);
        await answer.arrayBuffer();
        return answer.status;
    };
    const shows = () => new Promise((resolve) => {
        const video = document.createElement("video");
        video.onloadeddata = () => resolve("shown");
        video.onerror = () => resolve("not shown");
        video.src = `${folder}clip.mp4?user=alice`;
        document.body.append(video);
    });
    (async () => {
        const told = [await get("index.m3u8")];
        // Audio, video and another quality concurrently.
        const files = ["180p/index.m3u8", "180p/000.ts", "270p/index.m3u8", "270p/000.ts"];
        told.push(...await Promise.all(files.map(get)));
        told.push(await shows());
        document.body.innerText = `Told ${told.join(" ")}.`;
    })();
</script>"#;

/// What the page says where all goes well.
const ALL_PLAYS: &str = "Told 200 200 200 200 200 shown.";

/// A page, and a gateway whose HLS route has the cookie issued.
struct Stage {
    page: SocketAddr,
    gateway: Gateway,
    streamgate: Streamgate,
    _origin: Origin,
    _serving: JoinSet<()>,
}

impl Stage {
    async fn set(when_full: &str, change: impl FnOnce(Setup) -> Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let pages = Router::new().fallback(async || Html(PAGE));
            axum::serve(listener, pages).await.unwrap();
        });
        let settings = [
            ("identity.user", "query:user"),
            ("limits.default", "1"),
            ("limits.when_full", when_full),
        ];
        let (origin, streamgate) = (Origin::start().await, Streamgate::start(&settings).await);
        let setup = Setup::demo(&[streamgate.grpc], origin.address);
        // On a machine that runs browsers, a check may take longer than the shipped half a second.
        // That is not what this test is about.
        let setup = setup.check(json!({"grpc_service": {"timeout": "10s"}}));
        let setup = setup.edit(|envoy| issuing_to_scripts(envoy, page));
        Self {
            page,
            gateway: change(setup).start().await,
            streamgate,
            _origin: origin,
            _serving: serving,
        }
    }

    /// The page, which finds the gateway at that host.
    fn url(&self, host: &str) -> String {
        let port = self.gateway.address.port();
        format!("http://{}/?at=http://{host}:{port}", self.page)
    }
}

/// Has the HLS route issue the cookie, and lets that page's scripts ask with it, as
/// `docs/envoy/cookies.md` says.
fn issuing_to_scripts(envoy: &mut Value, page: SocketAddr) {
    let origin = format!("http://{page}");
    let route = route_mut(envoy, "/vod");
    set(route, fragment("route-issued"));
    let policy = json!({"typed_per_filter_config": {"envoy.filters.http.cors": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin}],
        "allow_credentials": true,
    }}});
    set(route, policy);
    let cors = json!({
        "name": "envoy.filters.http.cors",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
    });
    let filters = at_mut(envoy, &format!("{CONNECTION_MANAGER}/http_filters"));
    filters.as_array_mut().unwrap().insert(0, cors);
}

/// The proxy in front of this Envoy speaks TLS with clients, and says so.
fn behind_tls(setup: Setup) -> Setup {
    setup.edit(|envoy| {
        let manager = at_mut(envoy, CONNECTION_MANAGER);
        set(manager, json!({"use_remote_address": false}));
        let early = "/early_header_mutation_extensions/0/typed_config/mutations";
        let says = json!({"append": {
            "header": {"key": "x-forwarded-proto", "value": "https"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }});
        at_mut(manager, early).as_array_mut().unwrap().push(says);
    })
}

/// Waits until the page has said what came of it.
async fn tells(tab: &Tab<'_>) -> String {
    let find = |text: &str| text.ends_with('.').then(|| text.to_owned());
    let told = tab.says("the page is through", find).await;
    told.trim().to_owned()
}

#[tokio::test]
async fn in_a_browser_a_stream_is_one_playback_and_starts_anew_some_seconds_after_it_was_displaced()
{
    let stage = Stage::set("displace_oldest", |setup| setup).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&stage.url("127.0.0.1"), "").await;
    assert_eq!(tells(&tab).await, ALL_PLAYS);
    assert_eq!(stage.streamgate.checks("started").await, 1.0);
    let cookies = tab.cookies().await;
    let [cookie] = &*cookies else {
        panic!("{cookies:?}")
    };
    let told = ["name", "path", "httpOnly", "session", "sameSite"].map(|it| &cookie[it]);
    let expected: [Value; 5] = [
        "streamgate".into(),
        "/vod/demo/".into(),
        true.into(),
        true.into(),
        "Lax".into(),
    ];
    assert_eq!(told, expected.each_ref(), "{cookie}");

    let viewers = Viewers::of(stage.gateway.address);
    let phone = viewers.anonymous("/vod/demo/index.m3u8?user=alice");
    viewers.let_in(phone).await;
    tab.reload().await;
    assert_eq!(tells(&tab).await, "Told 429 429 429 429 429 not shown.");
    assert_eq!(stage.streamgate.checks("started").await, 2.0);
    eventually_within(SLOWLY, "the cookie is gone", async || {
        tab.cookies().await.is_empty()
    })
    .await;
    tab.reload().await;
    assert_eq!(tells(&tab).await, ALL_PLAYS);
    assert_eq!(stage.streamgate.checks("started").await, 3.0);
}

#[tokio::test]
async fn in_a_page_of_another_site_the_cookie_is_kept_where_tls_is_spoken() {
    let stage = Stage::set("refuse", behind_tls).await;
    let chromium = Chromium::start().await;
    // To a browser this is another site than the page's, and one to be trusted as if it spoke TLS.
    let tab = chromium.open(&stage.url("localhost"), "").await;
    assert_eq!(tells(&tab).await, ALL_PLAYS);
    tab.reload().await;
    assert_eq!(tells(&tab).await, ALL_PLAYS);
    assert_eq!(stage.streamgate.checks("started").await, 1.0);
    let cookies = tab.cookies().await;
    let [cookie] = &*cookies else {
        panic!("{cookies:?}")
    };
    let told = ["name", "secure", "sameSite"].map(|it| &cookie[it]);
    let expected: [Value; 3] = ["__Secure-streamgate".into(), true.into(), "None".into()];
    assert_eq!(told, expected.each_ref(), "{cookie}");
    let partition = &cookie["partitionKey"]["topLevelSite"];
    assert_eq!(partition, "http://127.0.0.1", "{cookie}");
}
