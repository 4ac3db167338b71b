//! The README's page in a real Chromium: on an origin of its own, whose scripts `http.cors_origins` lets in, and once behind a real Envoy.

use serde_json::json;

use super::chromium::Chromium;
use super::pages::Pages;
use super::scene::Scene;
use crate::support::proxy::Proxy;
use crate::support::streamgate::Setting;

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
    let tab = chromium.open(&pages.watch(&scene.api())).await;
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
async fn a_page_whose_slot_is_taken_over_stops_and_says_by_whom() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let url = pages.watch(&scene.api());
    let first = chromium.open(&url).await;
    let held = first.plays().await;
    let second = chromium.open(&url).await;
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
    // What has been stopped has nothing to release, and doesn't come back by itself.
    first.close().await;
    second.go(&pages.elsewhere()).await;
    second.back().await;
    second.says(stopped, says).await;
    assert_eq!(second.shown().await, json!([false, true]));
    second.close().await;
    scene.becomes(&["tv"]).await;
}

#[tokio::test]
async fn a_reload_releases_the_old_id_and_gets_the_only_slot_with_a_new_one() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&pages.watch(&scene.api())).await;
    let mut old = tab.plays().await;
    for _ in 0..3 {
        tab.reload().await;
        let new = tab.plays_anew(&old).await;
        assert_eq!(tab.shown().await, json!([false]), "a page of its own");
        scene.becomes(&[&new]).await;
        scene.has_ended(&old).await;
        old = new;
    }
}

#[tokio::test]
async fn leaving_releases_at_once_and_coming_back_out_of_the_cache_starts_anew() {
    let (pages, scene) = across_origins(&[("limits.default", "1")]).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&pages.watch(&scene.api())).await;
    let other_origin = pages.elsewhere().replace("127.0.0.1", "localhost");
    let mut old = tab.plays().await;
    let mut shown = vec![false];
    for elsewhere in [pages.elsewhere(), other_origin] {
        tab.go(&elsewhere).await;
        scene.becomes(&[]).await;
        tab.back().await;
        let new = tab.plays_anew(&old).await;
        shown.push(true);
        assert_eq!(tab.shown().await, json!(shown), "out of the cache");
        scene.becomes(&[&new]).await;
        scene.has_ended(&old).await;
        scene.is_renewed(&new, 1).await;
        scene.becomes(&[&new]).await;
        old = new;
    }
    // Whoever has pressed Stop finds it stopped.
    tab.press("Stop").await;
    let says = |text: &str| text.contains("Stopped: released").then_some(());
    tab.says("it has stopped", says).await;
    scene.becomes(&[]).await;
    tab.go(&pages.elsewhere()).await;
    tab.back().await;
    tab.says("it has stopped", says).await;
    shown.push(true);
    assert_eq!(tab.shown().await, json!(shown), "out of the cache");
    scene.becomes(&[]).await;
}

#[tokio::test]
async fn a_page_plays_on_while_it_cannot_reach_the_service() {
    let (pages, scene) = across_origins(&[]).await;
    let wire = Proxy::before(scene.http().port()).await;
    let chromium = Chromium::start().await;
    let api = format!("http://127.0.0.1:{}", wire.port());
    let tab = chromium.open(&pages.watch(&api)).await;
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
