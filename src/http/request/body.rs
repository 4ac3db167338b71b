//! Reads JSON bodies: checks their media type, and reports errors by field.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::Segment;

use crate::http::error::ApiError;

/// Decodes a body that holds a JSON object, or nothing, which counts as an empty object.
pub(in crate::http) fn object_or_nothing<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let body = body.map_err(ApiError::Body)?;
    if body.is_empty() {
        return Ok(T::default());
    }
    check_media_type(headers, &["application/json"])?;
    // serde would accept a list of the object's fields in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::BadRequest(
            "The body is not a JSON object.".to_owned(),
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(&body);
    let told = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = match error.path().iter().next_back() {
            Some(Segment::Map { key }) => Some(key.clone()),
            _ => None,
        };
        let flaw = error.into_inner();
        ApiError::BadRequest(match field {
            _ if flaw.classify() != Category::Data => {
                format!("The body is not valid JSON: {flaw}.")
            }
            // The error itself names an unknown field.
            None => format!("The body is invalid: {flaw}."),
            Some(field) => format!("The field {field:?} is invalid: {flaw}."),
        })
    })?;
    json.end().map_err(|flaw| {
        ApiError::BadRequest(format!("The body continues after its JSON value: {flaw}."))
    })?;
    Ok(told)
}

/// Checks that the body's media type is one of these, or absent, and that its charset, if given, is
/// UTF-8.
pub(in crate::http) fn check_media_type(
    headers: &HeaderMap,
    read_here: &'static [&'static str],
) -> Result<(), ApiError> {
    let Some(written) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let written = String::from_utf8_lossy(written.as_bytes());
    let mut parts = written.split(';');
    let found = parts.next().unwrap_or_default().trim();
    let is_known = read_here
        .iter()
        .any(|name| found.eq_ignore_ascii_case(name));
    if is_known && parts.all(is_read) {
        return Ok(());
    }
    Err(ApiError::UnsupportedMediaType {
        found: written.trim().to_owned(),
        read_here,
    })
}

/// Whether we can ignore a parameter of a media type. Only another charset would matter.
fn is_read(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let value = value.trim().trim_matches('"');
    // ASCII text is also UTF-8.
    let is_utf8 = ["utf-8", "utf8", "us-ascii"]
        .iter()
        .any(|charset| value.eq_ignore_ascii_case(charset));
    is_utf8 || !name.trim().eq_ignore_ascii_case("charset")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::{FactText, StartBody};

    fn read(body: &str) -> Result<StartBody, ApiError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        object_or_nothing(&HeaderMap::new(), Ok(body))
    }

    #[test]
    fn no_body_is_an_empty_object() {
        for body in ["", "{}", " {} ", r#"{"position": null}"#] {
            assert_eq!(read(body).unwrap(), StartBody::default(), "{body:?}");
        }
        let told = read(r#"{"device": "tv", "position": 7}"#).unwrap();
        assert_eq!(
            (
                told.device.as_ref().and_then(FactText::as_str),
                told.position
            ),
            (Some("tv"), Some(7))
        );
    }

    #[test]
    fn a_text_that_is_only_shown_may_be_any_json_string() {
        for (body, expected) in [
            (
                r#"{"device": "tv \u00e4\ud83d\ude00\""}"#,
                Some("tv ä\u{1f600}\""),
            ),
            (r#"{"device": ""}"#, Some("")),
            (r#"{"device": "a\nb"}"#, Some("a\nb")),
            // Half a character, as left by JavaScript's `slice`.
            (r#"{"device": "tv \ud83d"}"#, None),
            (r#"{"device": "\ude00 tv"}"#, None),
        ] {
            let told = read(body).unwrap().device.unwrap();
            assert_eq!(told.as_str(), expected, "{body}");
        }
        let told = read(r#"{"device": null, "content": "film"}"#).unwrap();
        assert_eq!((told.device, told.content.is_some()), (None, true));
        // Fields that decide something must be text.
        assert!(read(r#"{"takeover": "p\ud83d"}"#).is_err());
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (written, expected) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("60.0", 60),
            ("6e1", 60),
            ("4294967295", u32::MAX),
            ("4294967295.0", u32::MAX),
        ] {
            let told = read(&format!(r#"{{"position": {written}}}"#)).unwrap();
            assert_eq!(told.position, Some(expected), "{written}");
        }
    }

    #[test]
    fn an_invalid_body_names_the_field() {
        for (body, expected) in [
            (" \r\n", "not a JSON object"),
            ("null", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("[null,null,null,null,null]", "not a JSON object"),
            ("\"tv\"", "not a JSON object"),
            ("{", "not valid JSON: EOF"),
            (r#"{"device" 1}"#, "not valid JSON: expected `:`"),
            (r#"{"device": tv}"#, "not valid JSON: expected ident"),
            (r#"{device: "tv"}"#, "not valid JSON: key must be a string"),
            (r#"{1: 2}"#, "not valid JSON: key must be a string"),
            (r#"{"": 2}"#, "unknown field ``"),
            ("{} {}", "continues after its JSON value"),
            (r#"{"devise": "tv"}"#, "unknown field `devise`"),
            (r#"{"device": 1}"#, "\"device\""),
            (r#"{"device": ["tv"]}"#, "\"device\""),
            (
                r#"{"position": "1:00"}"#,
                "The field \"position\" is invalid: got a string, expected a whole number from 0 to 4294967295",
            ),
            (r#"{"position": [1]}"#, "got a list, expected"),
            (r#"{"position": {"a": 1}}"#, "got an object, expected"),
            (r#"{"position": true}"#, "got true, expected"),
            (r#"{"position": -1}"#, "got -1, expected"),
            (r#"{"position": 1.5}"#, "\"position\""),
            (r#"{"position": 1e300}"#, "\"position\""),
            (r#"{"position": 4294967296}"#, "\"position\""),
            (
                r#"{"position": 1, "position": 2}"#,
                "duplicate field `position`",
            ),
        ] {
            let told = read(body).unwrap_err().to_string();
            assert!(told.contains(expected), "{body} gave {told}");
            for leak in ["\"?\"", "f64", "struct"] {
                assert!(!told.contains(leak), "{body} gave {told}");
            }
        }
    }

    #[test]
    fn a_body_needs_an_accepted_media_type_in_utf_8() {
        let check = |called: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, called.parse().unwrap())]);
            check_media_type(&headers, &["application/json", "text/plain"])
        };
        for called in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json; Charset=\"UTF-8\"",
            "text/plain ; charset = utf8",
            "text/plain;charset=US-ASCII",
            "application/json; version=1",
            "application/json;",
        ] {
            assert!(check(called).is_ok(), "{called}");
        }
        for called in [
            "",
            "text/html",
            "application/json; charset=utf-16",
            "application/json; version=1; charset=\"UTF-16LE\"",
            "text/plain;charset=iso-8859-1",
            "text/plain; charset=",
            "text/plain; charset",
        ] {
            let told = check(called).unwrap_err().problem();
            assert_eq!(told.status, 415, "{called}");
            assert!(told.detail.contains("encoded as UTF-8"), "{}", told.detail);
        }
    }
}
