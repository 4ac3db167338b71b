//! A response that still runs in Envoy after its playback was reported as ended is counted
//! separately: it can't be stopped from here.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use testkit::gateway::session_from;
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::viewers::Answer;
use testkit::watch::eventually;

/// The sessions of a user, as kind and id.
async fn live(streamgate: &Streamgate, user: &str) -> Vec<(String, String)> {
    let url = format!("http://{}/v1/users/{user}/sessions", streamgate.http);
    let told: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let sessions = told["sessions"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ids = sessions.map(|session| (text(&session["kind"]), text(&session["session"])));
    ids.collect()
}

#[expect(
    clippy::too_many_lines,
    reason = "one story, told from its beginning to its end"
)]
#[tokio::test]
async fn a_response_that_outlasts_its_playback_holds_a_slot_of_its_own() {
    let settings = [
        ("limits.default", "1"),
        ("limits.grace", "0s"),
        // A fourth of this is how long a response has to take to be counted so.
        ("leases.request", "12s"),
        ("leases.playback", "1h"),
    ];
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&settings, |setup| {
        setup.flush_interval("0.5s").route(json!({
            "match": {"path_separated_prefix": "/live"},
            "route": {"cluster": "backend", "timeout": "0s"},
            "typed_per_filter_config": session_from("header:x-playback-session-id"),
        }))
    })
    .await;
    let asks = |id: &str| -> RequestBuilder {
        let request = viewers.http1("alice", "/live/1");
        request.header("x-playback-session-id", id)
    };
    let mut stream = viewers.watch(asks("tv-1")).await;
    let playback = ("playback".to_owned(), "tv-1".to_owned());
    assert_eq!(live(streamgate, "alice").await, [playback]);

    streamgate.release("alice", "tv-1").await;
    let response = eventually("the response is counted", async || {
        let mut live = live(streamgate, "alice").await;
        (live.len() == 1).then(|| live.remove(0))
    })
    .await;
    assert_eq!(response.0, "request");
    stream.plays().await;

    // The playback has ended, and the response can't be made to.
    let late = viewers.refused(asks("tv-1")).await;
    assert_eq!(
        (late.status.as_u16(), late.reason()),
        (429, "ended"),
        "{late}"
    );
    for (takeover, status, reason) in [
        (response.1.as_str(), 409, "not_stoppable"),
        ("oldest", 429, "full"),
    ] {
        let taking = asks("tv-2").header("x-streamgate-takeover", takeover);
        let refused = viewers.refused(taking).await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason()),
            (status, reason),
            "{refused}"
        );
    }
    let full = viewers.refused(asks("tv-2")).await;
    assert_eq!(full.holders(), [response.1.as_str()].into(), "{full}");

    // It runs until Envoy reports its own end, and holds its slot all the while.
    let name = "streamgate_access_log_entries_total";
    let periodic = [("type", "periodic"), ("outcome", "renewal")];
    let before = streamgate.metric(name, &periodic).await;
    streamgate
        .metric_becomes(name, &periodic, |count| count >= before + 6.0)
        .await;
    stream.plays().await;
    assert_eq!(live(streamgate, "alice").await, [response]);
    drop(stream);
    let what = "its slot is free by its own end";
    let ended = [("cause", "outlived")];
    let releases = "streamgate_releases_total";
    eventually(what, async || {
        streamgate.metric(releases, &ended).await == 1.0
    })
    .await;
    match viewers.ask(asks("tv-2")).await {
        Answer::LetIn(playing) => assert_eq!(playing.session, "tv-2"),
        Answer::Refused(refusal) => panic!("{refusal}"),
    }
}
