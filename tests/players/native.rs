//! Chromium's own HLS: `<video src="….m3u8">`.

use super::hls_js::{does, has_trouble, reloads};
use super::stage::{Named, Stage};
use testkit::chromium::Chromium;

const PLAYS: &str = "video.src = `${FOLDER}index.m3u8`; video.play();";

#[tokio::test]
async fn chromium_s_own_hls_is_one_playback_by_our_cookie_across_reloads() {
    let stage = &Stage::set(Named::OrIssued).await;
    let chromium = Chromium::start().await;
    // The tabs share the browser's cookies, which know one user at a time.
    {
        let _watching = stage.bob_watches().await;
        let refused = chromium.open(&stage.site.page("bob", PLAYS), "").await;
        has_trouble(&refused, "video 4").await;
        stage.refuses("bob", 429).await;
        refused.close().await;
    }
    let tab = chromium.open(&stage.site.page("alice", PLAYS), "").await;
    let id = stage.plays("alice").await;
    let before = stage.asked("alice").len();
    does(&tab, "video.currentTime = 300").await;
    assert_eq!(stage.goes_on_since("alice", before).await, id);
    // It pauses, and finds itself in another network.
    does(&tab, "video.pause()").await;
    stage.becomes("alice", &[]).await;
    stage.moves();
    does(&tab, "video.play()").await;
    does(&tab, "video.currentTime = 500").await;
    assert_eq!(stage.goes_on_elsewhere("alice").await, id);
    assert_eq!(reloads(stage, "alice", &tab).await, id);
    stage.becomes("alice", &[&id]).await;
}

#[tokio::test]
async fn chromium_s_own_hls_names_nothing_and_a_name_in_its_address_is_lost_behind_the_master() {
    let stage = &Stage::set(Named::AsShipped).await;
    let chromium = Chromium::start().await;
    let named = "video.src = `${FOLDER}index.m3u8?session=tv-1`; video.play();";
    let tab = chromium.open(&stage.site.page("alice", named), "").await;
    has_trouble(&tab, "video 4").await;
    stage.refuses("alice", 400).await;
    let master = &stage.asked("alice")[0];
    assert_eq!(master.session.as_deref(), Some("tv-1"), "{master:?}");
}
