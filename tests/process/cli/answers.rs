//! Answers that don't come from streamgate, or don't come in time: refusals, other servers,
//! silence, and endless bodies.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::assert_ended;
use super::stub::Stub;
use testkit::port::ReservedPort;
use testkit::streamgate::{program, run};
use testkit::watch::PATIENCE;

/// A problem document, written unlike we write it.
fn problem(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let document = "{ \"detail\": \"Not you.\",\n  \"reason\": \"nope\", \"more\": [1] }";
    let media_type = [("content-type", "application/problem+json")];
    (status, media_type, document).into_response()
}

#[tokio::test]
async fn a_refusal_is_told_in_its_own_words_and_its_status_makes_the_exit_code() {
    for (status, code) in [
        (400, 2),
        (401, 1),
        (403, 1),
        (404, 1),
        (409, 1),
        (410, 1),
        (429, 1),
        (500, 3),
        (503, 3),
    ] {
        let stub = Stub::start(move || problem(status)).await;
        let url = stub.url();
        let environment = [("STREAMGATE_URL", &*url), ("STREAMGATE_TOKEN", "t")];
        let told = format!("{status} (nope): Not you.\n");

        let asked = run(&["sessions", "anna"], &environment).await;
        let by_name = format!("streamgate: anna: {told}");
        assert_ended(&asked, code, "", &by_name);
        let document = "{ \"detail\": \"Not you.\",\n  \"reason\": \"nope\", \"more\": [1] }\n";
        let asked = run(&["sessions", "anna", "--json"], &environment).await;
        assert_ended(&asked, code, document, &by_name);

        let released = run(&["release", "anna", "p1"], &environment).await;
        let by_name = format!("streamgate: playback p1: {told}");
        assert_ended(&released, code, "", &by_name);
        let released = run(&["release", "anna", "p1", "--json"], &environment).await;
        let outcome = if code == 3 { "outage" } else { "refused" };
        let document = document.trim_end();
        let line = format!(
            "{{\"session\":\"p1\",\"kind\":\"playback\",\"outcome\":\"{outcome}\",\"problem\":{document}}}\n"
        );
        assert_ended(&released, code, &line, &by_name);
    }
}

#[tokio::test]
async fn a_missing_token_is_answered_with_how_to_send_one() {
    let stub = Stub::start(|| problem(401)).await;
    let (code, _, errors) = run(&["sessions", "anna", "--url", &stub.url()], &[]).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("use --token-file or STREAMGATE_TOKEN"),
        "{errors}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_told_as_such_and_printed_nowhere() {
    for (status, code) in [(200, 3), (404, 1), (502, 3)] {
        let html = [("content-type", "text/html; charset=utf-8")];
        let page = "<html>\u{1b}[2J The best proxy of all</html>";
        let status = StatusCode::from_u16(status).unwrap();
        let stub = Stub::start(move || (status, html, page)).await;
        let url = stub.url();
        for arguments in [
            ["sessions", "anna", "--url", &url, "--json"],
            ["release", "anna", "--url", &url, "p1"],
        ] {
            let (got, out, errors) = run(&arguments, &[]).await;
            assert_eq!((got, out.as_str()), (code, ""), "{errors}");
            let told = format!(
                "{} with text/html; charset=utf-8 that streamgate did not send",
                status.as_u16()
            );
            assert!(
                errors.contains(&told) && !errors.contains("The best proxy"),
                "{errors}"
            );
        }
    }
}

#[tokio::test]
async fn json_that_lacks_what_is_to_be_shown_is_not_ours_either() {
    let stub = Stub::start(|| r#"{"user":"anna"}"#).await;
    let (code, out, errors) = run(&["sessions", "anna", "--url", &stub.url()], &[]).await;
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(errors.contains("200 with text/plain"), "{errors}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_heard_to_it() {
    let stub = Stub::start(|| {
        let spaces = Bytes::from(vec![b' '; 64 * 1024]);
        let endless = stream::repeat_with(move || Ok::<_, std::io::Error>(spaces.clone()));
        Body::from_stream(endless)
    })
    .await;
    let url = stub.url();
    let ended = run(&["sessions", "anna", "--url", &url], &[]).await;
    let told = format!("streamgate: the answer from {url} is longer than 16 MiB\n");
    assert_ended(&ended, 3, "", &told);
}

#[tokio::test]
async fn nobody_there_is_an_outage_of_each_of_several() {
    let nobody = ReservedPort::reserve();
    let url = format!("http://{}", nobody.address());
    let told = format!("no answer from {url}: Connection refused (os error 111)\n");
    let ended = run(&["sessions", "anna", "--json", "--url", &url], &[]).await;
    assert_ended(&ended, 3, "", &format!("streamgate: {told}"));
    let ended = run(&["release", "anna", "a", "b", "--url", &url], &[]).await;
    let each = format!("streamgate: playback a: {told}streamgate: playback b: {told}");
    assert_ended(&ended, 3, "", &each);
    let ended = run(&["release", "anna", "a", "--json", "--url", &url], &[]).await;
    let line = "{\"session\":\"a\",\"kind\":\"playback\",\"outcome\":\"outage\"}\n";
    assert_ended(&ended, 3, line, &format!("streamgate: playback a: {told}"));
}

#[tokio::test]
async fn the_api_may_be_behind_a_path() {
    let stub = Stub::start(|| StatusCode::NO_CONTENT).await;
    let url = format!("{}/tv/streamgate/", stub.url());
    let args = ["release", "anna", "p1", "--kind", "video", "--url", &url];
    let ended = run(&args, &[]).await;
    assert_ended(&ended, 0, "video p1: released\n", "");
    assert_eq!(
        stub.lines(),
        ["DELETE /tv/streamgate/v1/users/anna/sessions/p1?kind=video"]
    );
}

#[tokio::test]
async fn arguments_that_cannot_be_right_ask_nobody() {
    let stub = Stub::start(|| StatusCode::NO_CONTENT).await;
    let url = stub.url();
    let long = "x".repeat(257);
    for (arguments, expected) in [
        (&["sessions", "", "--url", &url][..], "is empty"),
        (&["sessions", &long, "--url", &url], "has 257 bytes"),
        (&["release", "anna", "--url", &url], "<SESSION>"),
        (&["release", "anna", "p1", "", "--url", &url], "is empty"),
        (
            &["sessions", "anna", "--url", "tv.example"],
            "http:// or https://",
        ),
        (
            &["sessions", "anna", "--url", &url, "--ca", "ca.pem"],
            "use https://",
        ),
        (
            &["sessions", "anna", "--url", &url, "--cert", "c.pem"],
            "--key <FILE>",
        ),
    ] {
        let (code, out, errors) = run(arguments, &[]).await;
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(errors.contains(expected), "{errors}");
    }
    assert_eq!(stub.lines(), [""; 0]);
}

#[tokio::test]
async fn a_reader_that_has_left_is_no_failure_and_keeps_nothing_from_being_released() {
    let stub = Stub::start(|| StatusCode::NO_CONTENT).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let url = stub.url();
    let mut command = program(&["release", "anna", "p1", "p2", "--url", &url], &[]);
    let running = command
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn();
    let ended = tokio::time::timeout(PATIENCE, running.unwrap().wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
    assert_eq!(stub.lines().len(), 2);
}
