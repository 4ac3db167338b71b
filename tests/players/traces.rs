//! Players that don't run here, by their requests as others have recorded and published them, sent
//! through the same gateway. Only users and addresses are ours.

use std::collections::BTreeSet;

use super::site::token;
use super::stage::{Named, Stage};

/// What a request says.
type Headers = &'static [(&'static str, &'static str)];

/// `AVPlayer` of iOS 14.5 playing one file, recorded in 2021
/// (`https://twitter.com/johnspurlock/status/1390835472822374404`): two bytes to see whether ranges
/// are understood, a range, and, where they aren't, everything. It names the playback by itself, as
/// Apple documents:
/// `https://developer.apple.com/documentation/avfoundation/avurlasset/httpsessionidentifier`.
const AVPLAYER: [Headers; 3] = [
    &[
        ("accept-encoding", "gzip"),
        ("accept-language", "en-us"),
        ("range", "bytes=0-1"),
        (
            "user-agent",
            "MyPodcastApp/1.5 iOS https://mypodcastapp.example.com/",
        ),
        (
            "x-playback-session-id",
            "C383BAE7-086D-40C2-8439-3F687785CB58",
        ),
    ],
    &[
        ("accept-encoding", "gzip"),
        ("accept-language", "en-us"),
        ("range", "bytes=0-34415"),
        (
            "user-agent",
            "MyPodcastApp/1.5 iOS https://mypodcastapp.example.com/",
        ),
        (
            "x-playback-session-id",
            "C383BAE7-086D-40C2-8439-3F687785CB58",
        ),
    ],
    &[
        ("accept-encoding", "gzip"),
        ("accept-language", "en-us"),
        ("icy-metadata", "1"),
        (
            "user-agent",
            "AppleCoreMedia/1.0.0.18E182 (iPad; U; CPU OS 14_5 like Mac OS X; en_us)",
        ),
        (
            "x-playback-session-id",
            "C383BAE7-086D-40C2-8439-3F687785CB58",
        ),
    ],
];

/// Media3 1.8.0 with CMCD in headers, a segment of sound
/// (`https://github.com/androidx/media/issues/2913`; its range is left out, our file being
/// smaller).
const MEDIA3: Headers = &[
    ("accept-encoding", "identity"),
    ("cmcd-object", "br=125,d=19504,ot=a,tb=125"),
    (
        "cmcd-request",
        "bl=2099200,dl=2099200,nrr=\"47031346-47338774\"",
    ),
    (
        "cmcd-session",
        "sf=d,sid=\"f574038e-78da-4bfc-be79-9e34d5047d2b\",st=v",
    ),
    ("user-agent", "(Linux;Android 15) AndroidXMedia3/1.8.0"),
];

/// Sends a request of alice's; its status.
async fn sends(stage: &Stage, file: &str, headers: Headers) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(stage.url(file)).bearer_auth(token("alice"));
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

#[tokio::test]
async fn avplayer_as_recorded_names_its_playback_in_each_request() {
    let stage = &Stage::set_with_shipped_lease(Named::AsShipped).await;
    let mut statuses = BTreeSet::new();
    for headers in AVPLAYER {
        statuses.insert(sends(stage, "clip.mp4", headers).await);
    }
    assert_eq!(statuses, [200, 206].into());
    stage
        .becomes("alice", &["C383BAE7-086D-40C2-8439-3F687785CB58"])
        .await;
}

#[tokio::test]
async fn media3_as_recorded_names_its_playback_in_segments_and_older_ones_not_in_playlists() {
    let stage = &Stage::set_with_shipped_lease(Named::AsShipped).await;
    // 1.4.1 says nothing in requests for playlists: https://github.com/androidx/media/issues/1951.
    let silent = &[("user-agent", "AndroidXMedia3/1.4.1")];
    assert_eq!(sends(stage, "index.m3u8", silent).await, 400);
    assert_eq!(sends(stage, "180p/000.ts", MEDIA3).await, 200);
    assert_eq!(sends(stage, "180p/001.ts", MEDIA3).await, 200);
    stage
        .becomes("alice", &["f574038e-78da-4bfc-be79-9e34d5047d2b"])
        .await;
}
