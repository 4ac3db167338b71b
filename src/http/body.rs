//! Reads bodies that are JSON, whatever their sender calls them.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A body that holds JSON, or nothing at all, which is as good as an empty object.
pub(super) fn json_or_nothing<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let body = body.map_err(ApiError::Body)?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    check_media_type(headers)?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadRequest(format!("The body is not what it should be: {error}.")))
}

/// Sees to it that the body may hold JSON: `text/plain` too, which is all that a browser's `sendBeacon` can send to another origin without
/// asking first.
pub(super) fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(written) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let written = String::from_utf8_lossy(written.as_bytes());
    let essence = written.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("text/plain")
    {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMediaType(essence.to_owned()))
    }
}
