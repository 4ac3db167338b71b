//! A film that is long enough: the demo's clip over and over, so that no player has loaded all of
//! it before a test is through.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;

use testkit::origin::media;
use testkit::process::command;
use testkit::tools::tool;

/// How often the clip is repeated: browsers hold some megabytes of a file.
const HOUR: &str = "179";
const TEN_MINUTES: &str = "29";
/// Everything in one file, with its index at the end as cameras write it, so that players have to
/// jump.
const FILE: &str = "clip.mp4";
/// The demo's playlist of variants.
const MASTER: &str = "index.m3u8";
const VARIANTS: [&str; 2] = ["180p", "270p"];

/// The film, as the demo's backend wants it. It is made once and stays.
pub(super) async fn film() -> PathBuf {
    static FILM: OnceCell<PathBuf> = OnceCell::const_new();
    let film = FILM.get_or_init(|| async {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let clip = std::fs::metadata(media().join(FILE)).unwrap().len();
        let place = folder.join(format!("film-{clip}-{HOUR}-{TEN_MINUTES}"));
        if !place.is_dir() {
            let made = tempfile::tempdir_in(folder).unwrap();
            make(made.path()).await;
            // Another run of the tests may have been quicker.
            let _ = std::fs::rename(made.path(), &place);
        }
        place
    });
    film.await.clone()
}

/// Makes the film there.
async fn make(to: &Path) {
    let from = media();
    std::fs::copy(from.join(MASTER), to.join(MASTER)).unwrap();
    copy(&from.join(FILE), &to.join(FILE), HOUR, &[]).await;
    for variant in VARIANTS {
        let folder = to.join(variant);
        std::fs::create_dir(&folder).unwrap();
        let names = folder.join("%03d.ts");
        let hls = ["-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod"];
        let segments = ["-hls_segment_filename", names.to_str().unwrap()];
        let options = [&hls[..], &segments].concat();
        let (from, to) = (from.join(variant).join(MASTER), folder.join(MASTER));
        copy(&from, &to, TEN_MINUTES, &options).await;
    }
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
