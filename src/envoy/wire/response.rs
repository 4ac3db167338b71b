//! Encodes the answers that let a request through.
//!
//! Nearly every check is answered with *allow*. Its message is serialised by hand: building and
//! encoding the generated message costs several times as much, mostly for hash tables and for the
//! lengths of nested messages.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc::Status;
use prost::{Message, encode_length_delimiter, length_delimiter_len};
use tonic::Code;

use crate::identity::{SessionKey, UserId};

/// The header that tells the upstream and the client which session this is.
const SESSION_HEADER: &str = "x-streamgate-session";

/// A `CheckResponse`, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::envoy) struct EncodedResponse(pub(in crate::envoy) Vec<u8>);

impl EncodedResponse {
    /// Lets a stream through, with a cookie in addition to the origin's own if one is given.
    pub(in crate::envoy) fn allow(user: &UserId, key: &SessionKey, cookie: Option<&str>) -> Self {
        let (id, kind) = (key.id.as_str(), key.kind.as_str());
        let text = |number, text: &str| field(number, &[text.as_bytes()]);
        let header = |name, value| field(1, &[&text(1, name), &text(2, value)]);
        let session = header(SESSION_HEADER, id);
        // A number of one byte, in field 3.
        let overwrite = [3 << 3, HeaderAppendAction::OverwriteIfExistsOrAdd as u8];
        let option: [&[u8]; 2] = [&session, &overwrite];
        // Appending is the default, which is not encoded.
        let cookie = cookie.map(|cookie| field(6, &[&header("set-cookie", cookie)]));
        let cookie = cookie.unwrap_or_default();
        let shown = |name, value| field(1, &[&text(1, name), &field(2, &[&text(3, value)])]);
        let status = field(1, &[]);
        let ok = field(3, &[&field(2, &option), &field(6, &option), &cookie]);
        let metadata = field(
            4,
            &[
                &shown("decision", "allow"),
                &shown("user", user.as_str()),
                &shown("kind", kind),
                &shown("session", id),
            ],
        );
        Self([status, ok, metadata].concat())
    }
}

impl From<CheckResponse> for EncodedResponse {
    fn from(response: CheckResponse) -> Self {
        Self(response.encode_to_vec())
    }
}

/// Lets a request through that takes no slot. Removes the client's own session header.
pub(in crate::envoy) fn pass() -> CheckResponse {
    let response = OkHttpResponse {
        headers_to_remove: vec![SESSION_HEADER.to_owned()],
        ..OkHttpResponse::default()
    };
    CheckResponse {
        status: Some(status(Code::Ok, "")),
        dynamic_metadata: Some(metadata(&[("decision", "allow")])),
        http_response: Some(HttpResponse::OkResponse(response)),
    }
}

/// The same answer, with a cookie in addition to the origin's own.
pub(in crate::envoy) fn with_cookie(mut answer: CheckResponse, cookie: &str) -> CheckResponse {
    let set = HeaderValueOption {
        append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
        ..header("set-cookie", cookie)
    };
    match &mut answer.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok.response_headers_to_add.push(set),
        Some(HttpResponse::DeniedResponse(told) | HttpResponse::ErrorResponse(told)) => {
            told.headers.push(set);
        }
        None => {}
    }
    answer
}

/// A header that replaces any existing one with that name.
pub(super) fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue {
        key: name.to_owned(),
        value: value.to_owned(),
        ..HeaderValue::default()
    };
    HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// The part of our answer that appears in the access log.
pub(super) fn metadata(fields: &[(&str, &str)]) -> Struct {
    let text = |text: &str| Value {
        kind: Some(ValueKind::StringValue(text.to_owned())),
    };
    let fields: HashMap<String, Value> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), text(value)))
        .collect();
    Struct { fields }
}

/// A gRPC status.
pub(super) fn status(code: Code, message: &str) -> Status {
    Status {
        code: code.into(),
        message: message.to_owned(),
        ..Status::default()
    }
}

/// A field with a message of those fields, or a text of those parts. `number` is below 16.
fn field(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut written = Vec::with_capacity(1 + length_delimiter_len(length) + length);
    // 2 means that a length follows.
    written.push(number << 3 | 2);
    // This fails only if there is no room, and a vector grows.
    let _ = encode_length_delimiter(length, &mut written);
    for part in parts {
        written.extend_from_slice(part);
    }
    written
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::identity::{Kind, SessionId};

    /// What [`EncodedResponse::allow`] encodes.
    pub(in crate::envoy::wire) fn allow(user: &UserId, key: &SessionKey) -> CheckResponse {
        let named = vec![header(SESSION_HEADER, key.id.as_str())];
        let response = OkHttpResponse {
            headers: named.clone(),
            response_headers_to_add: named,
            ..OkHttpResponse::default()
        };
        CheckResponse {
            status: Some(status(Code::Ok, "")),
            dynamic_metadata: Some(metadata(&[
                ("decision", "allow"),
                ("user", user.as_str()),
                ("kind", key.kind.as_str()),
                ("session", key.id.as_str()),
            ])),
            http_response: Some(HttpResponse::OkResponse(response)),
        }
    }

    #[test]
    fn the_hand_encoded_allow_equals_the_message() {
        // Lengths of one byte and of two, on every level.
        for length in (1..=256).chain([7, 60, 100, 127, 128]) {
            for kind in [Kind::Playback, Kind::Request, Kind::Video] {
                for (user, id) in [(length, 36), (20, length), (length, length)] {
                    let user = UserId::parse(&"u".repeat(user)).unwrap();
                    let id = SessionId::parse(&"i".repeat(id)).unwrap();
                    let key = SessionKey { kind, id };
                    let cookie = "c".repeat(length);
                    for cookie in [None, Some(cookie.as_str())] {
                        let encoded = EncodedResponse::allow(&user, &key, cookie);
                        let read = CheckResponse::decode(encoded.0.as_slice()).unwrap();
                        let expected = allow(&user, &key);
                        let expected = match cookie {
                            Some(cookie) => with_cookie(expected, cookie),
                            None => expected,
                        };
                        assert_eq!(read, expected);
                    }
                }
            }
        }
    }
}
