//! How many streams a user may watch, and the answer to one more.

use serde_json::Value;

use testkit::stack::Stack;

#[tokio::test]
async fn a_fourth_stream_is_refused_and_told_which_three_are_playing_and_nobody_else_is_affected() {
    let Stack { viewers, .. } = &Stack::start(&[]).await;
    let first = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let second = viewers.watch(viewers.http2("alice", "/live/2")).await;
    let third = viewers.watch(viewers.http1("alice", "/live/3")).await;

    let refusal = viewers.refused(viewers.http1("alice", "/live/4")).await;
    refusal.assert_full(&[&first, &second, &third]);
    assert_eq!(refusal.header("content-type"), "application/problem+json");
    assert_eq!(refusal.header("ratelimit"), "\"streams\";r=0");
    let policy = "\"streams\";q=3;qu=\"concurrent-requests\"";
    assert_eq!(refusal.header("ratelimit-policy"), policy);
    let retry_after: u64 = refusal.header("retry-after").parse().unwrap();
    assert!(
        (1..=5).contains(&retry_after),
        "a third of 15 s: {retry_after}"
    );
    for (field, value) in [("status", 429.into()), ("limit", 3.into())] {
        assert_eq!(
            refusal.problem.get(field),
            Some::<&Value>(&value),
            "{refusal}"
        );
    }
    for text in ["type", "title", "detail"] {
        let told = refusal.problem.get(text).and_then(Value::as_str);
        assert!(told.is_some_and(|told| !told.is_empty()), "{refusal}");
    }

    let mut bobs = viewers.watch(viewers.http1("bob", "/live/1")).await;
    let mut alices = first;
    bobs.plays().await;
    alices.plays().await;
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_behind() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[("limits.grace", "0s")]).await;
    let [first, second, third] = [1, 2, 3].map(|channel| format!("/live/{channel}"));
    let first = viewers.watch(viewers.http1("alice", &first)).await;
    let second = viewers.watch(viewers.http1("alice", &second)).await;
    let third = viewers.watch(viewers.http1("alice", &third)).await;
    for _ in 0..50 {
        viewers
            .assert_full("alice", &[&first, &second, &third])
            .await;
    }
    assert_eq!(streamgate.checks("full").await, 50.0);
    assert_eq!(streamgate.checks("started").await, 3.0);
    assert_eq!(
        streamgate.metric("streamgate_releases_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn a_banned_user_is_refused_at_a_start_while_the_running_stream_goes_on() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[("limits.grace", "0s")]).await;
    let mut playing = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let limit = format!("http://{}/v1/users/alice/limit", streamgate.http);
    let client = reqwest::Client::new();
    let set = client.put(&limit).json(&serde_json::json!({"limit": 0}));
    assert_eq!(set.send().await.unwrap().status(), 201);

    let refusal = viewers.refused(viewers.http1("alice", "/live/2")).await;
    assert_eq!(refusal.reason(), "full");
    assert_eq!(refusal.problem["limit"], 0, "{refusal}");
    let policy = "\"streams\";q=0;qu=\"concurrent-requests\"";
    assert_eq!(refusal.header("ratelimit-policy"), policy);
    playing.plays().await;

    let removed = client.delete(&limit).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    let mut second = viewers.watch(viewers.http1("alice", "/live/2")).await;
    second.plays().await;
}

#[tokio::test]
async fn a_viewer_reads_at_the_gateway_why_an_operator_has_ended_the_stream() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[]).await;
    let playback = || {
        let request = viewers.http1("alice", "/vod/demo/index.m3u8");
        request.header("x-playback-session-id", "p1")
    };
    viewers.let_in(playback()).await;
    let url = format!("http://{}/v1/users/alice/sessions", streamgate.http);
    let message = "Your \"plan\" <b>has</b> ended & \u{6620}\u{753b}.";
    let client = reqwest::Client::new();
    let end = client
        .delete(url)
        .json(&serde_json::json!({"message": message}));
    let ended: Value = end.send().await.unwrap().json().await.unwrap();
    assert_eq!(ended["ended"][0]["session"], "p1", "{ended}");

    let refusal = viewers.refused(playback()).await;
    assert_eq!(refusal.reason(), "operator");
    assert_eq!(refusal.header("content-type"), "application/problem+json");
    for member in ["detail", "message"] {
        assert_eq!(refusal.problem[member], message, "{refusal}");
    }
}
