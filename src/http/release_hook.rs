//! `POST /v1/release`: a client, or a back end that knows, reports that streams have ended. Decode,
//! release, 204; or 202 if the store doesn't answer: the releases are done when it does.
//!
//! The body is one release or a list, as JSON; also with the type `text/plain`, because a browser's
//! `sendBeacon` can send only that to another origin without a preflight. The whole body is checked
//! before any release is done. Releases are idempotent: after a 503, send it again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};

use super::ApiState;
use super::error::ApiError;
use super::json::KindName;
use super::start_service::detached;
use crate::http::openapi::responses::{BadBody, Detached, Done, Failures, NotStoppable};
use crate::http::request::body;
use crate::http::request::caller::Caller;
use crate::http::request::path::parameters;
use crate::identity::{Kind, SessionId, SessionKey, UserId};
use crate::outbox::Notice;
use crate::session::Ending;

/// How many releases fit in one request.
const MAX_RELEASES: usize = 100;

/// The accepted media types.
const MEDIA_TYPES: [&str; 2] = ["application/json", "text/plain"];

/// One release in the body.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a release")]
#[schema(as = Release)]
pub(super) struct ReleaseRequest {
    /// The session's user.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    user: String,
    /// Its id.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    session: String,
    /// Its kind, if it isn't a playback.
    #[schema(value_type = Option<KindName>)]
    kind: Option<String>,
}

/// One release, or a list of them.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) enum Releases {
    /// One.
    One(ReleaseRequest),
    /// A list.
    Several(Several),
}

/// At most a hundred releases.
#[derive(Deserialize, ToSchema)]
#[schema(as = ReleaseList, max_items = 100)]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) struct Several(Vec<ReleaseRequest>);

/// The same as text, which contains JSON in any case.
pub(super) struct AsText;

impl ToSchema for AsText {}

impl utoipa::PartialSchema for AsText {
    fn schema() -> RefOr<Schema> {
        let releases = Ref::from_schema_name("Releases");
        let text = ObjectBuilder::new().schema_type(Type::String);
        let json = text.content_media_type(MEDIA_TYPES[0]);
        json.content_schema(Some(releases)).build().into()
    }
}

/// A checked release.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    /// The session's user.
    user: UserId,
    /// The session's key.
    key: SessionKey,
}

/// Release sessions: the hook
///
/// Reports that streams have ended, one or a list. Releases can be repeated safely. If the store
/// doesn't answer, they are done as soon as it does (202). The body may also have the type
/// `text/plain`, because a browser's `sendBeacon` can send only that to another origin without a
/// preflight.
#[utoipa::path(
    post,
    operation_id = "release_hook",
    path = "/v1/release",
    tag = "sessions",
    request_body(description = "A release or a list of them.", content(
        (Releases = "application/json", example = json!([{"user": "anna", "session": "p1"}, {"user": "anna", "session": "r1", "kind": "request"}])),
        (inline(AsText) = "text/plain", example = json!("{\"user\": \"anna\", \"session\": \"p1\"}")),
    )),
    responses(Done, NotStoppable, BadBody, Detached, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn release(
    State(door): State<ApiState>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    parameters(uri.query().unwrap_or_default(), &[])?;
    body::check_media_type(&headers, &MEDIA_TYPES)?;
    let releases = decode(&body.map_err(ApiError::Body)?)?;
    for release in &releases {
        caller.may_act_for(&release.user)?;
        may_release(&caller, release.key.kind)?;
    }
    let releasing = Arc::clone(&door);
    detached(
        &door,
        async move { release_all(&releasing, releases).await },
    )
    .await
}

/// Releases them all: 204; or 202 if any of them has to wait for the store.
async fn release_all(door: &ApiState, releases: Vec<Release>) -> Result<StatusCode, ApiError> {
    let (mut status, mut failed) = (StatusCode::NO_CONTENT, None);
    for Release { user, key } in releases {
        match release_one(door, user, key).await {
            Ok(StatusCode::ACCEPTED) => status = StatusCode::ACCEPTED,
            Ok(_) => {}
            // The others can be done all the same.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(status), Err)
}

/// Releases a session: 204; or 202 if the store doesn't answer, because the session is released
/// once it does.
pub(super) async fn release_one(
    door: &ApiState,
    user: UserId,
    key: SessionKey,
) -> Result<StatusCode, ApiError> {
    let released = door
        .ledger
        .release(&user, &key, Ending::Vouched, Duration::ZERO);
    match released.await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(outage) if outage.error.is_transient() => {
            let notice = Notice::Release(key, Ending::Vouched);
            door.outbox.submit(user, notice);
            Ok(StatusCode::ACCEPTED)
        }
        Err(outage) => Err(ApiError::Outage(outage)),
    }
}

/// Whether that caller may end a stream of that kind. A `request` runs inside Envoy: only a back
/// end can know that it has ended.
pub(super) fn may_release(caller: &Caller, kind: Kind) -> Result<(), ApiError> {
    if kind.is_stoppable() || caller.acts_for_others() {
        Ok(())
    } else {
        Err(ApiError::NotStoppable)
    }
}

/// Decodes and checks the releases in a body.
fn decode(body: &[u8]) -> Result<Vec<Release>, ApiError> {
    let starts_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let written: Vec<ReleaseRequest> = if starts_list {
        serde_json::from_slice(body).map_err(not_json)?
    } else {
        vec![serde_json::from_slice(body).map_err(not_json)?]
    };
    if written.len() > MAX_RELEASES {
        return Err(ApiError::BadRequest(format!(
            "{} releases in one request; at most {MAX_RELEASES} are allowed.",
            written.len()
        )));
    }
    let all = written.len();
    let check = |(index, written): (usize, ReleaseRequest)| {
        written.check().map_err(|flaw| {
            ApiError::BadRequest(if starts_list {
                format!("Release {} of {all}: the {flaw}.", index + 1)
            } else {
                format!("The {flaw}.")
            })
        })
    };
    written.into_iter().enumerate().map(check).collect()
}

/// The same as users and ids, for callers that can't access [`Release`].
#[cfg(any(fuzzing, test))]
pub(super) fn decode_names(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let releases = decode(body)?.into_iter();
    let names = releases.map(|Release { user, key }| (user.to_string(), key.id.to_string()));
    Ok(names.collect())
}

impl ReleaseRequest {
    /// The checked release, or which field is wrong and how.
    fn check(self) -> Result<Release, String> {
        let kind = match self.kind.as_deref() {
            None => Kind::Playback,
            Some(name) => Kind::from_name(name).ok_or_else(|| {
                format!("kind is {name:?}; allowed are \"playback\", \"request\" and \"video\"")
            })?,
        };
        let user = UserId::parse(&self.user).map_err(|flaw| format!("user {flaw}"))?;
        let id = SessionId::parse(&self.session).map_err(|flaw| format!("session {flaw}"))?;
        Ok(Release {
            user,
            key: SessionKey { kind, id },
        })
    }
}

/// The error for a body that isn't a release.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn not_json(error: serde_json::Error) -> ApiError {
    ApiError::BadRequest(format!(
        "The body is not {{\"user\": ..., \"session\": ...}} with an optional \"kind\", nor a list of these: {error}."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_release_or_a_list() {
        let release = |user: &str, kind, id: &str| Release {
            user: UserId::parse(user).unwrap(),
            key: SessionKey {
                kind,
                id: SessionId::parse(id).unwrap(),
            },
        };
        for (body, expected) in [
            (
                r#"{"user": "anna", "session": "s1"}"#,
                vec![release("anna", Kind::Playback, "s1")],
            ),
            (
                r#" {"session":"s1","user":"anna","kind":"request"} "#,
                vec![release("anna", Kind::Request, "s1")],
            ),
            (
                r#" [{"user":"anna","session":"s1"},{"user":"ben","session":"s2","kind":"video"}]"#,
                vec![
                    release("anna", Kind::Playback, "s1"),
                    release("ben", Kind::Video, "s2"),
                ],
            ),
            ("[]", vec![]),
        ] {
            assert_eq!(decode(body.as_bytes()).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn an_invalid_release_body_explains_why() {
        let too_many = format!("[{}]", vec![r#"{"user":"a","session":"b"}"#; 101].join(","));
        for (body, expected) in [
            ("", "EOF"),
            ("{}", "missing field `user`"),
            (
                r#"{"user":"a","session":"b","sessoin":1}"#,
                "unknown field `sessoin`",
            ),
            (
                r#"{"user":"a","session":"b","kind":"film"}"#,
                "The kind is \"film\"; allowed are",
            ),
            (
                r#"[{"user":"a","session":"b"},{"user":"a","session":""}]"#,
                "Release 2 of 2: the session is empty",
            ),
            (
                r#"[{"user":"a","session":"b","kind":"film"}]"#,
                "Release 1 of 1: the kind is \"film\"",
            ),
            ("5", "invalid type: integer `5`, expected a release"),
            ("[5]", "invalid type: integer `5`, expected a release"),
            (r#"[["a"]]"#, "expected a release"),
            (
                r#"{"user":1,"session":"b"}"#,
                "invalid type: integer `1`, expected a string",
            ),
            (
                r#"{"user":"a\u0000","session":"b"}"#,
                "The user has a control character",
            ),
            (&too_many, "101 releases in one request; at most 100"),
        ] {
            let told = decode(body.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(expected), "{body} gave {told}");
        }
    }
}
