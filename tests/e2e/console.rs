//! The console in a real Chromium, with a real Envoy: what viewers do is seen at once, and an
//! operator's click has its effect at the gateway.

use streamgate::clock::Stopwatch;

use testkit::chromium::Chromium;
use testkit::console::{click, is_gone, row, shows, types};
use testkit::stack::Stack;
use testkit::viewers::Viewers;
use testkit::watch::measured;

/// A request of a playback.
fn film(viewers: &Viewers, id: &str) -> reqwest::RequestBuilder {
    let request = viewers.http1("alice", "/vod/demo/index.m3u8");
    request.header("x-playback-session-id", id)
}

/// What leaves each test its sessions for as long as it takes.
const SETTINGS: [(&str, &str); 3] = [
    ("limits.default", "2"),
    ("limits.grace", "0s"),
    ("leases.playback", "300s"),
];

#[tokio::test]
async fn a_stream_appears_and_an_end_by_a_click_frees_its_slot() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&SETTINGS).await;
    let chromium = Chromium::start().await;
    let page = format!("http://{}/console", streamgate.http);
    let tab = chromium.open(&page, "").await;
    shows(&tab, "#watching-note", "Nobody is watching").await;

    let appearing = Stopwatch::start();
    viewers.let_in(film(viewers, "one")).await;
    row(&tab, "one").await;
    measured(
        "from a start at Envoy to its row in the console",
        appearing.elapsed(),
    );
    viewers.let_in(film(viewers, "two")).await;
    row(&tab, "two").await;
    viewers.refused(film(viewers, "three")).await;
    shows(&tab, "#feed", "was refused").await;

    types(&tab, "#look-up-user", "alice").await;
    click(&tab, "#look-up-form button").await;
    shows(&tab, "#user", "Limit2").await;
    for id in ["one", "two"] {
        shows(&tab, &format!("#user [data-session={id}]"), id).await;
    }
    click(&tab, "#user [data-session=one] button.danger").await;
    click(&tab, "#ending-do").await;
    is_gone(&tab, "#sessions [data-session=one]").await;
    is_gone(&tab, "#user [data-session=one]").await;
    viewers.let_in(film(viewers, "four")).await;
    row(&tab, "four").await;
    click(&tab, "#user .bar button.danger").await;
    click(&tab, "#ending-do").await;
    is_gone(&tab, "[data-session]").await;
}
