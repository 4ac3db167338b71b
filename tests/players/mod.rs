//! Real players, unmodified, through a real Envoy with the shipped files: which source identifies
//! each of them as one playback, and the effect of a reload, a seek, a long pause and another
//! network. `docs/envoy/players.md` has a table of this, whose rows name these tests.

// ffmpeg and ffplay.
mod ffmpeg;
// GStreamer.
mod gstreamer;
// hls.js in Chromium.
mod hls_js;
// Ten minutes of video.
mod media;
// Chromium's own HLS.
mod native;
// Players that name nothing, where that won't do.
mod nothing;
// One file and ranges of it: curl, and `<video>`.
mod progressive;
// The requests at the gateway, by its access log.
mod requests;
// The viewers' site.
mod site;
// The gateway and all around it.
mod stage;
// Requests as others have recorded them, of players that don't run here.
mod traces;
// VLC.
mod vlc;

use testkit::docs;

/// The page with the table, and the tests that the table may name.
const TABLE: &str = "docs/envoy/players.md";
const TESTS: [&str; 8] = [
    include_str!("ffmpeg.rs"),
    include_str!("gstreamer.rs"),
    include_str!("hls_js.rs"),
    include_str!("native.rs"),
    include_str!("nothing.rs"),
    include_str!("progressive.rs"),
    include_str!("traces.rs"),
    include_str!("vlc.rs"),
];

#[test]
fn each_row_of_the_page_s_table_names_tests_that_are_there_and_each_test_is_named() {
    let section = docs::text(TABLE);
    let tests = TESTS
        .iter()
        .flat_map(|file| file.split("#[tokio::test]\nasync fn ").skip(1));
    let tests: Vec<&str> = tests.map(|text| text.split_once('(').unwrap().0).collect();
    for test in &tests {
        assert!(section.contains(&format!("`{test}`")), "{test}");
    }
    let rows: Vec<&str> = section.lines().filter(|it| it.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows.iter().skip(2) {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        for name in cell.split(", ") {
            assert!(tests.contains(&name.trim_matches('`')), "{row}");
        }
    }
}
