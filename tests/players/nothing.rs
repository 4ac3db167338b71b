//! Players that send no name, on the shipped route.

use super::ffmpeg::{ffmpeg, headers};
use super::gstreamer::gstreamer;
use super::stage::{Named, Stage};
use super::vlc::Vlc;

#[tokio::test]
async fn players_that_name_nothing_are_told_so_at_the_shipped_route() {
    let stage = &Stage::set(Named::AsShipped).await;
    let [alice, bob, carol] = ["alice", "bob", "carol_premium"];
    let mut players = [
        gstreamer("playbin", &stage.site.go(alice, "index.m3u8")),
        gstreamer("playbin3", &stage.site.go(bob, "index.m3u8")),
        ffmpeg(stage, &headers("dave_basic", "")),
    ];
    let _vlc = Vlc::start(&stage.site.list(carol, "index.m3u8")).await;
    for user in ["alice", "bob", "carol", "dave"] {
        stage.refuses(user, 400).await;
        stage.becomes(user, &[]).await;
    }
    for player in &mut players {
        assert!(!player.ended().await.success());
    }
    assert_eq!(stage.streamgate.checks("started").await, 0.0);
}
