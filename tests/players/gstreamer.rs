//! GStreamer: `playbin` with the older `hlsdemux`, and `playbin3` with `hlsdemux2`.

use std::collections::BTreeSet;

use super::stage::{Named, Stage};
use testkit::process::{Process, command};
use testkit::tools::tool;

/// What names a playback where the route wants it so.
const COOKIE: &str = "playback=tv-1; Path=/";

/// A player of that kind, without a screen.
pub(super) fn gstreamer(playbin: &str, url: &str) -> Process {
    let mut gstreamer = command(tool("gst-launch-1.0", "gstreamer1.0-tools"));
    gstreamer.args(["-q", playbin, &format!("uri={url}")]);
    gstreamer.arg("video-sink=fakesink sync=true");
    gstreamer.arg("audio-sink=fakesink sync=true");
    Process::start("gstreamer", gstreamer)
}

/// The process is stopped until its lease has expired, and then continues.
async fn pauses(stage: &Stage, player: &Process, id: &str) {
    player.signal("STOP").await;
    stage.becomes("alice", &[]).await;
    let before = stage.asked("alice").len();
    player.signal("CONT").await;
    assert_eq!(stage.goes_on_since("alice", before).await, id);
    stage.becomes("alice", &[id]).await;
}

#[tokio::test]
async fn gstreamer_s_playbin_keeps_our_cookie_until_it_ends() {
    let stage = &Stage::set(Named::OrIssued).await;
    let url = stage.site.go("alice", "index.m3u8");
    let player = gstreamer("playbin", &url);
    let (id, ()) = tokio::join!(stage.plays("alice"), is_refused(stage, "playbin"));
    pauses(stage, &player, &id).await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, id);
    drop(player);
    let before = stage.asked("alice").len();
    let _again = gstreamer("playbin", &url);
    let new = stage.begins_anew_since("alice", before).await;
    assert_ne!(new, id);
    stage.becomes("alice", &[&new]).await;
}

async fn is_refused(stage: &Stage, playbin: &str) {
    let _watching = stage.bob_watches().await;
    let url = stage.site.go_with("bob", "index.m3u8", COOKIE);
    let mut refused = gstreamer(playbin, &url);
    assert!(!refused.ended().await.success());
    let told = refused.output();
    assert!(told.contains("Too Many Requests (429)"), "{told}");
    stage.refuses("bob", 429).await;
}

#[tokio::test]
async fn gstreamer_s_playbin3_brings_the_site_s_cookies_and_not_ours() {
    let stage = &Stage::set(Named::By("cookie:playback")).await;
    let url = stage.site.go_with("alice", "index.m3u8", COOKIE);
    let player = gstreamer("playbin3", &url);
    let (id, ()) = tokio::join!(stage.plays("alice"), is_refused(stage, "playbin3"));
    assert_eq!(id, "tv-1");
    pauses(stage, &player, "tv-1").await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, "tv-1");
    drop(player);
    let before = stage.asked("alice").len();
    let _again = gstreamer("playbin3", &url);
    assert_eq!(stage.begins_anew_since("alice", before).await, "tv-1");
    stage.becomes("alice", &["tv-1"]).await;
}

#[tokio::test]
async fn gstreamer_s_playbin3_keeps_no_cookie_of_ours_and_is_soon_refused() {
    let stage = &Stage::set(Named::OrIssued).await;
    let url = stage.site.go("alice", "index.m3u8");
    let mut refused = gstreamer("playbin3", &url);
    stage.refuses("alice", 429).await;
    assert!(!refused.ended().await.success());
    let served = stage.asked("alice").into_iter().filter_map(|it| it.session);
    let ids: BTreeSet<_> = served.collect();
    assert!(ids.len() > 1, "each request was another playback");
}
