//! The viewers' site: it logs every visitor in, by a cookie that the gateway verifies, and serves
//! pages with a player or redirects to the film.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{AppendHeaders, Html, IntoResponse};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::envoy_files::read;
use testkit::tools::find;

/// A page with a player; the test's script replaces SCRIPT.
const PAGE: &str = r#"<!doctype html><title>Film</title><body><video muted></video>
<script src="/hls.js"></script>
<script>
    const FOLDER = "GATEWAY/vod/demo/";
    const TOKEN = "BEARER";
    const video = document.querySelector("video");
    const troubles = [];
    const login = (xhr) => xhr.setRequestHeader("authorization", `Bearer ${TOKEN}`);
    video.onerror = () => troubles.push(`video ${video.error.code}`);
    // This film is so small that players would load all of it.
    const FEW = { maxMaxBufferLength: 20 };
    const plays = (options) => {
        const hls = new Hls({ ...FEW, ...options });
        hls.on(Hls.Events.ERROR, (_, it) => troubles.push(`${it.details} ${it.response?.code}${it.fatal ? ", stops" : ""}`));
        hls.loadSource(`${FOLDER}index.m3u8`);
        hls.attachMedia(video);
        hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());
    };
    SCRIPT
</script>"#;

/// A web server that is gone when this is dropped.
pub(super) struct Site {
    address: SocketAddr,
    gateway: Arc<OnceLock<String>>,
    _serving: JoinSet<()>,
}

/// An example token of a user's.
pub(super) fn token(user: &str) -> String {
    let tokens = read("tests/fixtures/example-tokens.json");
    tokens[user].as_str().unwrap().to_owned()
}

/// hls.js: `STREAMGATE_TEST_HLS_JS`, else a fetched one.
fn hls_js() -> String {
    let file = find("STREAMGATE_TEST_HLS_JS", "tests/tools/get-hls-js.sh");
    std::fs::read_to_string(file).unwrap()
}

impl Site {
    /// Starts it; it has to hear where the gateway is before somebody comes.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Arc::default();
        let routes = Router::new()
            .route("/hls.js", get(script))
            .route("/{user}/page", get(page))
            .route("/{user}/go/{file}", get(go))
            .route("/{user}/list/{file}", get(list))
            .with_state(Arc::clone(&gateway));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Self {
            address,
            gateway,
            _serving: serving,
        }
    }

    /// Where the gateway is.
    pub(super) fn leads_to(&self, gateway: String) {
        self.gateway.set(gateway).unwrap();
    }

    /// What browsers call it.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Logs in, and serves a page whose player runs this script.
    pub(super) fn page(&self, user: &str, script: &str) -> String {
        self.page_with(user, script, "")
    }

    /// The same with another cookie.
    pub(super) fn page_with(&self, user: &str, script: &str, cookie: &str) -> String {
        let mut url = reqwest::Url::parse(&format!("{}/{user}/page", self.origin())).unwrap();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("script", script)
            .append_pair("cookie", cookie);
        drop(query);
        url.into()
    }

    /// Logs in, and redirects to that file of the film.
    pub(super) fn go(&self, user: &str, file: &str) -> String {
        format!("{}/{user}/go/{file}", self.origin())
    }

    /// The same with another cookie, for one playback.
    pub(super) fn go_with(&self, user: &str, file: &str, cookie: &str) -> String {
        format!("{}?cookie={cookie}", self.go(user, file))
    }

    /// Logs in, and gives a playlist (M3U) that names that file of the film.
    pub(super) fn list(&self, user: &str, file: &str) -> String {
        format!("{}/{user}/list/{file}", self.origin())
    }
}

/// What a query says of that, or nothing.
fn asked(query: Option<&str>, name: &str) -> String {
    let url = format!("http://localhost/?{}", query.unwrap_or_default());
    let url = reqwest::Url::parse(&url).unwrap();
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(key, _)| key == name);
    found.map_or_else(String::new, |(_, value)| value.into_owned())
}

/// The cookies that log in: the site's, and one more for a playback.
fn cookies(user: &str, beside: &str) -> AppendHeaders<Vec<(http::HeaderName, String)>> {
    let login = format!("access_token={}; Path=/; HttpOnly", token(user));
    let all = [login, beside.to_owned()];
    let all = all.into_iter().filter(|cookie| !cookie.is_empty());
    AppendHeaders(all.map(|cookie| (header::SET_COOKIE, cookie)).collect())
}

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], hls_js())
}

type Gateway = State<Arc<OnceLock<String>>>;

async fn page(
    State(gateway): Gateway,
    Path(user): Path<String>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let page = PAGE.replace("GATEWAY", gateway.get().unwrap());
    let page = page.replace("BEARER", &token(&user));
    let page = page.replace("SCRIPT", &asked(query.as_deref(), "script"));
    (
        cookies(&user, &asked(query.as_deref(), "cookie")),
        Html(page),
    )
}

async fn go(
    State(gateway): Gateway,
    Path((user, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let to = format!("{}/vod/demo/{file}", gateway.get().unwrap());
    (
        StatusCode::FOUND,
        cookies(&user, &asked(query.as_deref(), "cookie")),
        [(header::LOCATION, to)],
    )
}

async fn list(
    State(gateway): Gateway,
    Path((user, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "audio/x-mpegurl")];
    let gateway = gateway.get().unwrap();
    let list = format!("#EXTM3U\n#EXTINF:600,Film\n{gateway}/vod/demo/{file}\n");
    (
        cookies(&user, &asked(query.as_deref(), "cookie")),
        kind,
        list,
    )
}
