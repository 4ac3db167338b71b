//! Owns a film that is long enough: the demo's clip over and over, so that no player has all of it before a test is through.

use std::path::Path;

use tempfile::TempDir;

use crate::support::origin::media;
use crate::support::process::{command, tool};

/// So often the clip is repeated: all that browsers hold of a file is some megabytes.
const HOUR: &str = "179";
const TEN_MINUTES: &str = "29";
/// Everything in one file, its index at the end as cameras write it, so that players have to jump about.
const FILE: &str = "clip.mp4";
/// The demo's playlist of variants.
const MASTER: &str = "index.m3u8";
const VARIANTS: [&str; 2] = ["180p", "270p"];

/// The film, as the demo's backend wants it.
pub(super) async fn film() -> TempDir {
    let (from, to) = (media(), tempfile::tempdir().unwrap());
    std::fs::copy(from.join(MASTER), to.path().join(MASTER)).unwrap();
    copy(&from.join(FILE), &to.path().join(FILE), HOUR, &[]).await;
    for variant in VARIANTS {
        let folder = to.path().join(variant);
        std::fs::create_dir(&folder).unwrap();
        let names = folder.join("%03d.ts");
        let hls = ["-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod"];
        let segments = ["-hls_segment_filename", names.to_str().unwrap()];
        let options = [&hls[..], &segments].concat();
        copy(
            &from.join(variant).join(MASTER),
            &folder.join(MASTER),
            TEN_MINUTES,
            &options,
        )
        .await;
    }
    to
}

/// Repeats a clip, and encodes nothing.
async fn copy(from: &Path, to: &Path, times: &str, options: &[&str]) {
    let mut ffmpeg = command(tool("ffmpeg", "ffmpeg"));
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-stream_loop", times]);
    ffmpeg.arg("-i").arg(from).args(["-c", "copy"]);
    let copied = ffmpeg.args(options).arg(to).kill_on_drop(true).output();
    let copied = copied.await.unwrap();
    assert!(copied.status.success(), "{copied:?}");
}
