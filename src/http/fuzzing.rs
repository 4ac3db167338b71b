//! Properties of the decoders of HTTP requests and of tokens files. See [`crate::fuzzing`].

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};

use super::error::ApiError;
use super::json::{FactText, StartBody, TimeBody};
use super::release_hook;
use crate::fuzzing::{assert_are_names, assert_is_name, text};
use crate::http::request::body::object_or_nothing;
use crate::http::request::caller::basic_pair;
use crate::http::request::path::{escaped, parameters};
use crate::http::request::tokens::Tokens;
use crate::identity::{ContentId, DeviceId, UserId};

/// The user name and password that the small API finds in such an `Authorization` header.
pub(crate) fn basic_credentials(written: &str) -> Option<(String, String)> {
    let value = HeaderValue::from_str(written).ok()?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    basic_pair(&headers)
}

/// An error about unreadable input is bounded in length by that input.
fn assert_is_short(error: &ApiError, data: &[u8]) {
    let words = error.to_string();
    assert!(
        words.len() <= data.len().saturating_mul(4) + 1000,
        "{words}"
    );
}

/// Bodies and queries of the API: decoded values agree with a JSON parser, and names are valid.
pub(crate) fn bodies(data: &[u8]) {
    let bytes = || Ok(Bytes::copy_from_slice(data));
    let json: Option<serde_json::Value> = serde_json::from_slice(data).ok();
    let is_blank = data.trim_ascii().is_empty();
    match object_or_nothing::<StartBody>(&HeaderMap::new(), bytes()) {
        Ok(body) => {
            let told = |name: &str| json.as_ref()?.get(name)?.as_str().map(ToOwned::to_owned);
            // Only texts for display may be something that JSON doesn't consider text.
            let device = body.device.as_ref().map(FactText::as_str);
            let content = body.content.as_ref().map(FactText::as_str);
            let is_text =
                |text: Option<&str>| text.is_some_and(|it| !it.contains(char::is_control));
            let is_json = [device, content].into_iter().flatten().all(is_text);
            match &json {
                Some(json) => assert!(is_blank || json.is_object()),
                None => assert!(is_blank || !is_json),
            }
            if json.is_some() {
                assert_eq!(device, told("device").as_deref().map(Some));
                assert_eq!(content, told("content").as_deref().map(Some));
                assert_eq!(body.takeover, told("takeover"));
            }
            let facts = body.facts(&|_, _| {});
            assert_are_names(facts.device.as_ref().map(DeviceId::as_str));
            assert_are_names(facts.content.as_ref().map(ContentId::as_str));
        }
        Err(error) => assert_is_short(&error, data),
    }
    match object_or_nothing::<TimeBody>(&HeaderMap::new(), bytes()).and_then(|it| it.seconds()) {
        Ok(Some(seconds)) => assert!(seconds <= 999_999 * 3600 + 59 * 60 + 59),
        Ok(None) => {}
        Err(error) => assert_is_short(&error, data),
    }
    match release_hook::decode_names(data) {
        Ok(releases) => {
            assert!(releases.len() <= 100 && json.is_some());
            for (user, session) in releases {
                assert_is_name(&user);
                assert_is_name(&session);
            }
        }
        Err(error) => assert_is_short(&error, data),
    }
    queries(&text(data));
}

/// A query has each parameter at most once, and escaped text survives a round trip.
fn queries(written: &str) {
    match parameters(written, &["kind", "cursor"]) {
        Ok(found) => assert!(found.len() <= 2),
        Err(error) => assert_is_short(&error, written.as_bytes()),
    }
    let query = format!("kind={}&", escaped(written));
    let found = parameters(&query, &["kind", "cursor"]);
    assert_eq!(found.ok(), Some(vec![("kind", written.to_owned())]));
}

/// A tokens file: no error repeats a token, and each line of a valid file is found only by its
/// token.
pub(crate) fn tokens(data: &[u8]) {
    const SECRET: &str = "hunter2";
    match Tokens::parse(data) {
        Err(flaw) => assert!(!flaw.contains(SECRET) && flaw.len() < 300, "{flaw}"),
        Ok(tokens) => {
            let written = text(data);
            let lines = written.lines().map(str::trim);
            let lines: Vec<_> = lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .collect();
            assert_eq!(format!("{tokens:?}"), format!("Tokens({})", lines.len()));
            for line in lines {
                let token = line.split_ascii_whitespace().next().unwrap_or_default();
                let granted = tokens.find(token);
                assert!(granted.is_some(), "its own token is good");
                let user = granted.and_then(|grant| grant.user.as_ref());
                assert_are_names(user.map(UserId::as_str));
                assert!(tokens.find(line).is_none() || line == token);
            }
            assert!(tokens.find("").is_none() && tokens.find("#").is_none());
        }
    }
    // Whatever else is wrong with a line, the error doesn't repeat the token.
    let line = [SECRET.as_bytes(), data].concat();
    if let Err(flaw) = Tokens::parse(&line) {
        assert!(!flaw.contains(SECRET), "{flaw}");
    }
}
