//! One file and ranges of it: curl, and `<video>` in Chromium.

use super::hls_js::{does, has_trouble};
use super::requests::Request;
use super::site::token;
use super::stage::{Named, Stage};
use testkit::chromium::{Chromium, Tab};
use testkit::gateway::Setup;
use testkit::process::{Process, command};
use testkit::tools::tool;

const PLAYS: &str = "video.src = `${FOLDER}clip.mp4`; video.play();";
/// A device, and what it plays.
const DEVICE: &str = "header:x-device-id+path:^/vod/([^/]+)/,cookie:visitor+path:^/vod/([^/]+)/";
/// Where alice is first, and then.
const HOME: &str = "127.0.0.1";
const ELSEWHERE: &str = "127.0.0.2";
/// Parts of the film that overlap, more than fits into all the buffers on the way.
const RANGES: [&str; 3] = ["0-20000000", "5000000-25000000", "9000000-30000000"];

/// curl of alice's that takes its time over a range of the film, at this address.
fn curl(stage: &Stage, address: &str, range: &str) -> Process {
    curl_of("alice", stage, address, range, "X-Device-Id: tv")
}

/// The same of that user's with that header.
fn curl_of(user: &str, stage: &Stage, address: &str, range: &str, header: &str) -> Process {
    let mut curl = command(tool("curl", "curl"));
    curl.env("NO_PROXY", "*");
    curl.args(["-sS", "--fail", "--limit-rate", "30k", "-o", "/dev/null"]);
    curl.args(["-H", &format!("Authorization: Bearer {}", token(user))]);
    curl.args(["--interface", address]);
    curl.args(["-H", header, "-r", range]);
    curl.arg(stage.url_without_wire("clip.mp4"));
    Process::start("curl", curl)
}

/// Waits until so many ranges of the file have been served.
async fn ranges(stage: &Stage, user: &str, count: usize) -> Vec<Request> {
    stage
        .sees(user, "ranges are served", |requests| {
            let served = |it: &&Request| it.was_served() && it.range.is_some();
            (requests.iter().filter(served).count() >= count).then(|| requests.to_vec())
        })
        .await
}

#[tokio::test]
async fn overlapping_ranges_by_curl_are_one_playback_by_device_and_title() {
    let often = |setup: Setup| setup.flush_interval("1s");
    let stage = &Stage::set_with(Named::By(DEVICE), often).await;
    let curls = RANGES.map(|range| curl(stage, HOME, range));
    stage.under_way(3.0).await;
    stage.becomes("alice", &["tv+demo"]).await;
    // While a response is under way, Envoy reports it, and that renews the lease.
    stage.reports(10).await;
    stage.becomes("alice", &["tv+demo"]).await;
    assert_eq!(stage.streamgate.checks("started").await, 1.0);

    drop(curls);
    let requests = ranges(stage, "alice", RANGES.len()).await;
    assert_eq!(stage.one("alice", &requests).await, "tv+demo");
    let again = curl(stage, ELSEWHERE, RANGES[1]);
    stage.under_way(1.0).await;
    stage.becomes("alice", &["tv+demo"]).await;
    drop(again);
    assert_eq!(stage.goes_on_elsewhere("alice").await, "tv+demo");

    let _watching = stage.bob_watches().await;
    for (user, header, error) in [
        ("alice", "X-Other: tv", "error: 400"),
        ("bob", "X-Device-Id: tv", "error: 429"),
    ] {
        let mut refused = curl_of(user, stage, HOME, RANGES[0], header);
        assert!(!refused.ended().await.success());
        let told = refused.output();
        assert!(told.contains(error), "{told}");
    }
}

#[tokio::test]
async fn each_range_by_curl_is_a_stream_where_a_request_is_one_and_ends_with_it() {
    let stage = &Stage::set(Named::AsRequest).await;
    let [first, second, third] = RANGES;
    let curls = [first, second].map(|range| curl(stage, HOME, range));
    stage.under_way(2.0).await;
    stage.holds("alice", 2).await;
    let mut refused = curl(stage, HOME, third);
    assert!(!refused.ended().await.success());
    let told = refused.output();
    assert!(told.contains("error: 429"), "{told}");
    stage.refuses("alice", 429).await;
    drop(curls);
    stage.becomes("alice", &[]).await;
}

/// Waits until the film has begun: the file's beginning, and its index at the end. They are one
/// playback.
async fn begins(stage: &Stage, user: &str) -> String {
    let requests = ranges(stage, user, 2).await;
    let places: Vec<_> = requests.iter().filter_map(|it| it.range.clone()).collect();
    assert!(places.iter().any(|place| place != "bytes=0-"), "{places:?}");
    stage.one(user, &requests).await
}

/// Seeks in a tab to where nothing has been loaded; the playback as which that is done.
async fn seeks(stage: &Stage, user: &str, tab: &Tab<'_>, second: u32) -> String {
    let before = stage.asked(user).len();
    does(tab, &format!("video.currentTime = {second}")).await;
    stage.goes_on_since(user, before).await
}

/// Has a tab play a film in one file: it seeks, pauses, and continues from another network and
/// after a reload, as one playback; returns its id.
async fn lives(stage: &Stage, user: &str, tab: &Tab<'_>) -> String {
    let id = begins(stage, user).await;
    assert_eq!(seeks(stage, user, tab, 1500).await, id);
    does(tab, "video.pause()").await;
    stage.becomes(user, &[]).await;
    stage.moves();
    does(tab, "video.play()").await;
    assert_eq!(seeks(stage, user, tab, 2500).await, id);
    assert_eq!(stage.goes_on_elsewhere(user).await, id);
    let before = stage.asked(user).len();
    tab.reload().await;
    assert_eq!(stage.goes_on_since(user, before).await, id);
    stage.becomes(user, &[&id]).await;
    id
}

#[tokio::test]
async fn a_file_in_chromium_is_one_playback_by_our_cookie_across_reloads() {
    let stage = &Stage::set(Named::OrIssued).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&stage.site.page("alice", PLAYS), "").await;
    lives(stage, "alice", &tab).await;
    tab.close().await;
    is_refused(stage, &chromium, "").await;
}

/// At a full limit it doesn't play.
async fn is_refused(stage: &Stage, chromium: &Chromium, cookie: &str) {
    let _watching = stage.bob_watches().await;
    let page = stage.site.page_with("bob", PLAYS, cookie);
    let refused = chromium.open(&page, "").await;
    has_trouble(&refused, "video 4").await;
    stage.refuses("bob", 429).await;
}

#[tokio::test]
async fn a_file_in_chromium_is_one_playback_by_a_cookie_of_the_site_s_and_its_title() {
    let stage = &Stage::set(Named::By(DEVICE)).await;
    let chromium = Chromium::start().await;
    let unnamed = chromium
        .open(&stage.site.page("carol_premium", PLAYS), "")
        .await;
    has_trouble(&unnamed, "video 4").await;
    stage.refuses("carol", 400).await;
    unnamed.close().await;
    let cookie = "visitor=v1; Path=/";
    let page = stage.site.page_with("alice", PLAYS, cookie);
    let tab = chromium.open(&page, "").await;
    assert_eq!(lives(stage, "alice", &tab).await, "v1+demo");
    tab.close().await;
    is_refused(stage, &chromium, cookie).await;
}
