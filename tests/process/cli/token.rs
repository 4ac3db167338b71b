//! Where a token comes from, and that it goes into one header and nowhere else.

use axum::http::StatusCode;

use super::stub::Stub;
use super::{Ended, assert_ended};
use testkit::streamgate::run;

const TOKEN: &str = "s3cr3t-of-the-night-shift";

/// A server without sessions.
async fn empty() -> Stub {
    Stub::start(|| r#"{"user":"anna","limit":3,"active":0,"can_start":true,"sessions":[]}"#).await
}

/// Runs `sessions`, and fails if it repeats the token.
async fn sessions(url: &str, more: &[&str], environment: &[(&str, &str)]) -> Ended {
    let arguments = [&["sessions", "anna", "--url", url], more].concat();
    let ended = run(&arguments, environment).await;
    let told = format!("{}{}", ended.1, ended.2);
    assert!(!told.contains("s3cr3t"), "{told}");
    ended
}

#[tokio::test]
async fn a_token_goes_from_its_file_or_the_environment_into_the_header_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let stub = empty().await;
    let url = stub.url();
    for (arguments, environment) in [
        (&[][..], &[][..]),
        (&["--token-file", file], &[]),
        (&[], &[("STREAMGATE_TOKEN", TOKEN)]),
        (&[], &[("STREAMGATE_TOKEN_FILE", file)]),
    ] {
        let ended = sessions(&url, arguments, environment).await;
        assert_ended(&ended, 0, "anna: 0 of 3 streams in use\n", "");
    }
    let asked = stub.asked();
    let shown: Vec<_> = asked
        .iter()
        .map(|asked| asked.authorization.as_deref())
        .collect();
    let header = format!("Bearer {TOKEN}");
    let header = Some(header.as_str());
    assert_eq!(shown, [None, header, header, header]);
    for asked in asked {
        assert!(
            !format!("{}{}", asked.line, asked.rest).contains(TOKEN),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn a_malformed_token_file_is_named_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let name = file.to_str().unwrap();
    let stub = empty().await;
    for (text, expected) in [
        (None, "the token can't be read: No such file or directory"),
        (Some(""), "the token is empty"),
        (Some("s3cr3t operator\n"), "the token has a space"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let (code, out, errors) = sessions(&stub.url(), &["--token-file", name], &[]).await;
        assert_eq!((code, out.as_str()), (2, ""));
        let expected = format!("streamgate: --token-file {name}: {expected}");
        assert!(errors.starts_with(&expected), "{errors}");
    }
    let (code, _, errors) =
        sessions(&stub.url(), &[], &[("STREAMGATE_TOKEN", "s3cr3t\u{7}")]).await;
    assert_eq!(code, 2);
    assert!(
        errors.starts_with("streamgate: STREAMGATE_TOKEN: the token has"),
        "{errors}"
    );
    assert_eq!(stub.lines(), [""; 0]);
}

#[tokio::test]
async fn no_help_and_no_refusal_of_arguments_shows_what_is_in_the_environment() {
    let url = "http://anna:s3cr3t@tv.example";
    let environment = [("STREAMGATE_TOKEN", TOKEN), ("STREAMGATE_URL", url)];
    for arguments in [
        &["--help"][..],
        &["sessions", "--help"],
        &["release", "--help"],
        &["sessions"],
        &["sessions", "anna", "--nothing"],
        &["sessions", "anna"],
    ] {
        let (_, out, errors) = run(arguments, &environment).await;
        let told = format!("{out}{errors}");
        assert!(!told.is_empty() && !told.contains("s3cr3t"), "{told}");
    }
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let elsewhere = empty().await;
    let to = format!("{}/v1/users/anna/sessions", elsewhere.url());
    let location = to.clone();
    let stub = Stub::start(move || {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", location.clone())],
        )
    })
    .await;
    let ended = sessions(&stub.url(), &[], &[("STREAMGATE_TOKEN", TOKEN)]).await;
    let told = format!(
        "streamgate: anna: 307: redirected to \"{to}\", which is not followed, since it would get the token; if that address is right, pass it with --url\n"
    );
    assert_ended(&ended, 1, "", &told);
    assert_eq!(elsewhere.lines(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_of_the_environments_sees_nothing() {
    let (stub, proxy) = (empty().await, empty().await);
    let proxy_url = proxy.url();
    let names = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    let mut environment = names.map(|name| (name, proxy_url.as_str())).to_vec();
    environment.push(("STREAMGATE_TOKEN", TOKEN));
    let ended = sessions(&stub.url(), &[], &environment).await;
    assert_ended(&ended, 0, "anna: 0 of 3 streams in use\n", "");
    assert_eq!((stub.lines().len(), proxy.lines().len()), (1, 0));
}
