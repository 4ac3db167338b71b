//! The page `docs/clients/watch.html` in a real Chromium: on an origin of its own, whose scripts
//! `http.cors_origins` lets in, and once behind a real Envoy.

use serde_json::{Value, json};

use super::pages::Pages;
use super::scene::{BACK_END, Scene, TOKEN};
use testkit::chromium::Chromium;
use testkit::envoy_files::{at_mut, read, route_mut};
use testkit::gateway::Setup;
use testkit::proxy::Proxy;
use testkit::streamgate::Setting;

/// The page's server, and a service that its scripts may ask.
async fn across_origins(settings: &[Setting<'_>]) -> (Pages, Scene) {
    let pages = Pages::start().await;
    let origin = pages.origin();
    let mut all = vec![("http.cors_origins", origin.as_str())];
    all.extend_from_slice(settings);
    (pages, Scene::start(&all).await)
}

#[tokio::test]
async fn a_page_holds_its_slot_by_heartbeats_until_its_tab_is_closed() {
    let (pages, scene) = across_origins(&[]).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&pages.watch(&scene.api()), TOKEN).await;
    let id = tab.plays().await;
    scene.becomes(&[&id]).await;
    let session = scene.session(&id).await.unwrap();
    let facts = (&session["device"], &session["content"]);
    assert_eq!(facts, (&"browser".into(), &"film-7".into()));
    scene.is_renewed(&id, 2).await;
    tab.close().await;
    scene.becomes(&[]).await;
    scene.has_ended(&id).await;
}

#[tokio::test]
async fn a_displaced_page_stops_and_says_by_whom() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let url = pages.watch(&scene.api());
    let first = chromium.open(&url, TOKEN).await;
    let held = first.plays().await;
    let second = chromium.open(&url, TOKEN).await;
    second.press(&held).await;
    let taken = second.plays().await;
    let stopped = format!("Stopped: displaced by {taken}");
    let says = |text: &str| text.contains(&stopped).then_some(());
    first.says(&stopped, says).await;
    scene.becomes(&[&taken]).await;

    let (status, told) = scene.put("tv", &json!({"takeover": "oldest"})).await;
    assert_eq!(status, 201, "{told}");
    let stopped = "Stopped: displaced by tv";
    let says = |text: &str| text.contains(stopped).then_some(());
    second.says(stopped, says).await;
    // A stopped playback has nothing to release, and doesn't restart on its own.
    first.close().await;
    second.go(&pages.elsewhere()).await;
    second.back().await;
    second.was_shown(&[false, true]).await;
    second.says(stopped, says).await;
    assert_eq!(second.asked_last().await, ("PUT".to_owned(), taken));
    second.close().await;
    scene.becomes(&["tv"]).await;
}

#[tokio::test]
async fn a_reload_releases_the_old_id_and_gets_the_only_slot_with_a_new_one() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&pages.watch(&scene.api()), TOKEN).await;
    let mut old = tab.plays().await;
    for _ in 0..3 {
        tab.reload().await;
        let new = tab.plays_anew(&old).await;
        tab.was_shown(&[false]).await;
        scene.becomes(&[&new]).await;
        scene.has_ended(&old).await;
        old = new;
    }
}

#[tokio::test]
async fn leaving_releases_at_once_and_coming_back_out_of_the_cache_starts_anew() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&pages.watch(&scene.api()), TOKEN).await;
    let other_origin = pages.elsewhere().replace("127.0.0.1", "localhost");
    let mut old = tab.plays().await;
    let mut shown = vec![false];
    for elsewhere in [pages.elsewhere(), other_origin] {
        tab.go(&elsewhere).await;
        scene.becomes(&[]).await;
        tab.back().await;
        let new = tab.plays_anew(&old).await;
        shown.push(true);
        tab.was_shown(&shown).await;
        scene.becomes(&[&new]).await;
        scene.has_ended(&old).await;
        scene.is_renewed(&new, 1).await;
        scene.becomes(&[&new]).await;
        old = new;
    }
    // After Stop it stays stopped.
    tab.press("Stop").await;
    let says = |text: &str| text.contains("Stopped: released").then_some(());
    tab.says("it has stopped", says).await;
    scene.becomes(&[]).await;
    tab.go(&pages.elsewhere()).await;
    tab.back().await;
    shown.push(true);
    tab.was_shown(&shown).await;
    tab.says("it has stopped", says).await;
    assert_eq!(tab.asked_last().await, ("DELETE".to_owned(), old));
    scene.becomes(&[]).await;
}

#[tokio::test]
async fn a_page_plays_on_while_it_cannot_reach_the_service() {
    // A heartbeat fails after a third of the lease, and the next one is five seconds later.
    let (pages, scene) = across_origins(&[("leases.playback", "21s")]).await;
    let wire = Proxy::before(scene.http().port()).await;
    let chromium = Chromium::start().await;
    let api = format!("http://127.0.0.1:{}", wire.port());
    let tab = chromium.open(&pages.watch(&api), TOKEN).await;
    let id = tab.plays().await;
    wire.cut();
    let before = wire.accepted();
    wire.has_accepted(before + 1).await;
    assert_eq!(tab.plays().await, id);
    wire.restore();
    scene.becomes(&[&id]).await;
    scene.is_renewed(&id, 1).await;
    assert_eq!(tab.plays().await, id);
}

#[tokio::test]
async fn a_page_that_is_closed_before_anything_was_answered_leaves_nothing_behind() {
    let (pages, scene) = across_origins(&[]).await;
    let wire = Proxy::before(scene.http().port()).await;
    wire.stall();
    let chromium = Chromium::start().await;
    let api = format!("http://127.0.0.1:{}", wire.port());
    let tab = chromium.open(&pages.watch(&api), TOKEN).await;
    let (method, id) = tab.asked_last().await;
    assert_eq!(method, "PUT");
    tab.close().await;
    // The release has to wait for its preflight, and so outlives the page.
    wire.restore();
    scene.has_released(1).await;
    scene.has_ended(&id).await;
    scene.becomes(&[]).await;
}

/// Has the shipped gateway admit scripts of that origin with a token of its own, as the comments in
/// the file say.
fn for_scripts_of(envoy: &mut Value, origin: &str) {
    let route = route_mut(envoy, "/v1/users");
    let cors = "/typed_per_filter_config/envoy.filters.http.cors/allow_origin_string_match";
    *at_mut(route, cors) = json!([{"exact": origin}]);
    let headers = at_mut(route, "/request_headers_to_add").as_array_mut();
    headers.unwrap().push(json!({
        "header": {"key": "authorization", "value": format!("Bearer {BACK_END}")},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }));
}

#[tokio::test]
async fn behind_the_shipped_gateway_a_page_lives_by_its_viewers_own_token_and_for_them_alone() {
    let (pages, scene) = (
        Pages::start().await,
        Scene::start(&[("limits.default", "1")]).await,
    );
    let setup = Setup::file("envoy/envoy.yaml")
        .streamgates(&[scene.grpc()])
        .cluster("origin", &[pages.address])
        .cluster("streamgate_http", &[scene.http()])
        .edit(|envoy| for_scripts_of(envoy, &pages.origin()));
    let gateway = setup.start().await;
    let url = pages.watch(&format!("http://{}", gateway.address));
    let tokens = read("tests/fixtures/example-tokens.json");
    let chromium = Chromium::start().await;

    let tab = chromium.open(&url, tokens["alice"].as_str().unwrap()).await;
    let first = tab.plays().await;
    scene.is_renewed(&first, 1).await;
    tab.reload().await;
    let second = tab.plays_anew(&first).await;
    scene.becomes(&[&second]).await;
    tab.go(&pages.elsewhere()).await;
    scene.becomes(&[]).await;
    tab.back().await;
    let third = tab.plays_anew(&second).await;
    tab.was_shown(&[false, true]).await;
    scene.becomes(&[&third]).await;

    let bobs = tokens["bob"].as_str().unwrap();
    let stranger = chromium.open(&url, bobs).await;
    let stopped = "Stopped: forbidden";
    let says = |text: &str| text.contains(stopped).then_some(());
    stranger.says(stopped, says).await;
    stranger.close().await;
    tab.close().await;
    scene.becomes(&[]).await;
}
