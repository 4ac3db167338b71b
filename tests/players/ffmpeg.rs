//! ffmpeg, and ffplay, which has the same HTTP code (libavformat).

use super::site::token;
use super::stage::{Named, Stage};
use testkit::process::{Process, command};
use testkit::tools::tool;

/// What names a playback to the shipped route.
const NAMED: &str = "X-Playback-Session-Id: tv-1\r\n";

/// ffmpeg as a player without a screen: it plays a film at its own speed.
pub(super) fn ffmpeg(stage: &Stage, headers: &str) -> Process {
    ffmpeg_from(stage, headers, "0")
}

/// The same from that second on.
fn ffmpeg_from(stage: &Stage, headers: &str, second: &str) -> Process {
    let mut ffmpeg = command(tool("ffmpeg", "ffmpeg"));
    ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re"]);
    ffmpeg.args(["-ss", second, "-headers", headers]);
    ffmpeg.args(["-i", &stage.url("index.m3u8")]);
    ffmpeg.args(["-c", "copy", "-f", "null", "-"]);
    Process::start("ffmpeg", ffmpeg)
}

/// ffplay without a screen.
fn ffplay(stage: &Stage, headers: &str) -> Process {
    let mut ffplay = command(tool("ffplay", "ffmpeg"));
    ffplay.env("SDL_VIDEODRIVER", "dummy");
    ffplay.env("SDL_AUDIODRIVER", "dummy");
    ffplay.args(["-hide_banner", "-loglevel", "warning", "-nodisp"]);
    ffplay.args(["-headers", headers, &stage.url("index.m3u8")]);
    Process::start("ffplay", ffplay)
}

/// The headers of a user's requests, as `-headers` wants them.
pub(super) fn headers(user: &str, more: &str) -> String {
    format!("Authorization: Bearer {}\r\n{more}", token(user))
}

/// It has no pause of its own: the process is stopped until its lease has expired, and then
/// continues.
async fn pauses(stage: &Stage, user: &str, player: &Process, id: &str) {
    player.signal("STOP").await;
    stage.becomes(user, &[]).await;
    let before = stage.asked(user).len();
    player.signal("CONT").await;
    assert_eq!(stage.goes_on_since(user, before).await, id);
    stage.becomes(user, &[id]).await;
}

#[tokio::test]
async fn ffmpeg_is_one_playback_by_a_header_through_a_pause_another_network_and_a_restart() {
    let stage = &Stage::set(Named::AsShipped).await;
    let said = headers("alice", NAMED);
    let player = ffmpeg(stage, &said);
    let plays = stage.plays("alice");
    let (id, ..) = tokio::join!(plays, ffplay_lives(stage), are_refused(stage, NAMED));
    assert_eq!(id, "tv-1");
    pauses(stage, "alice", &player, "tv-1").await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, "tv-1");
    drop(player);
    let before = stage.asked("alice").len();
    let _again = ffmpeg_from(stage, &said, "300");
    assert_eq!(stage.begins_anew_since("alice", before).await, "tv-1");
    stage.becomes("alice", &["tv-1"]).await;
}

async fn ffplay_lives(stage: &Stage) {
    let _ffplay = ffplay(stage, &headers("carol_premium", NAMED));
    assert_eq!(stage.plays("carol").await, "tv-1");
}

/// At a full limit both end, and say why.
async fn are_refused(stage: &Stage, named: &str) {
    let _watching = stage.bob_watches().await;
    let said = headers("bob", named);
    let (mut ffmpeg, mut ffplay) = (ffmpeg(stage, &said), ffplay(stage, &said));
    assert!(!ffmpeg.ended().await.success());
    // It ends as if all were well.
    assert!(ffplay.ended().await.success());
    for told in [ffmpeg.output(), ffplay.output()] {
        assert!(told.contains("HTTP error 429 Too Many Requests"), "{told}");
    }
    stage.refuses("bob", 429).await;
}

#[tokio::test]
async fn ffmpeg_keeps_our_cookie_until_it_ends() {
    let stage = &Stage::set(Named::OrIssued).await;
    let said = headers("alice", "");
    let player = ffmpeg(stage, &said);
    let (id, ()) = tokio::join!(stage.plays("alice"), are_refused(stage, ""));
    pauses(stage, "alice", &player, &id).await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, id);
    drop(player);
    let before = stage.asked("alice").len();
    let _again = ffmpeg(stage, &said);
    let new = stage.begins_anew_since("alice", before).await;
    assert_ne!(new, id);
    stage.becomes("alice", &[&new]).await;
}
