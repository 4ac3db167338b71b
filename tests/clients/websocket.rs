//! What a page's own WebSocket tells of a refusal, in a real Chromium behind a real Envoy, and what the page can ask instead.

use axum::Router;
use axum::response::Html;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use testkit::chromium::Chromium;
use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::viewers::Viewers;

/// Opens a WebSocket, and asks whether it could have known better.
const PAGE: &str = r#"<!doctype html><body>Starting<script>
    const where = new URLSearchParams(location.search);
    const socket = new WebSocket(`ws://${where.get("gateway")}/ws?user=alice`);
    let opened = false;
    socket.onopen = () => { opened = true; };
    socket.onclose = async ({ code, reason }) => {
        const answer = await fetch(`http://${where.get("api")}/v1/users/alice/sessions`, { method: "GET" });
        const { can_start, sessions } = await answer.json();
        document.body.innerText = `Opened ${opened}, closed ${code} "${reason}", can start ${can_start} beside ${sessions.length}.`;
    };
</script>"#;

#[tokio::test]
async fn a_refused_websocket_tells_a_page_nothing_and_the_api_tells_it_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let pages = Router::new().fallback(async || Html(PAGE));
        axum::serve(listener, pages).await.unwrap();
    });
    let origins = format!("http://{page}");
    let settings = [
        ("identity.user", "query:user"),
        ("limits.default", "1"),
        ("http.cors_origins", origins.as_str()),
    ];
    let (origin, streamgate) = (Origin::start().await, Streamgate::start(&settings).await);
    let setup = Setup::demo(&[streamgate.grpc], origin.address);
    let gateway = setup.start().await;
    let viewers = Viewers::of(gateway.address);
    let _playing = viewers.watch(viewers.anonymous("/live/1?user=alice")).await;

    let chromium = Chromium::start().await;
    let (at, api) = (gateway.address, streamgate.http);
    let url = format!("http://{page}/?gateway={at}&api={api}");
    let tab = chromium.open(&url, "").await;
    let find = |text: &str| text.ends_with('.').then(|| text.to_owned());
    let told = tab.says("the page is through", find).await;
    let expected = "Opened false, closed 1006 \"\", can start false beside 1.";
    assert_eq!(told.trim(), expected);
    assert_eq!(streamgate.checks("full").await, 1.0);
}
