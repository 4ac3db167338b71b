//! Encodes the answers that let a request through.
//!
//! Nearly every check is answered with *allow*. Its message is serialised by hand: building and
//! encoding the generated message costs several times as much, mostly for hash tables and for the
//! lengths of nested messages.

use std::collections::HashMap;

use bytes::Bytes;
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

/// The length of what stands before a message of gRPC: one byte of flags and four for the length.
pub(super) const PREFIX_BYTES: usize = 5;

/// A `CheckResponse`, encoded, with the prefix of gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::envoy) struct EncodedResponse(pub(super) Bytes);

impl EncodedResponse {
    /// Lets a stream through, with a cookie in addition to the origin's own if one is given.
    pub(in crate::envoy) fn allow(user: &UserId, key: &SessionKey, cookie: Option<&str>) -> Self {
        let (id, kind) = (key.id.as_str(), key.kind.as_str());
        let shown = [
            ("decision", "allow"),
            ("user", user.as_str()),
            ("kind", kind),
            ("session", id),
        ];
        // The lengths come first, from the inside out; the message is written from the outside in.
        let header = |name: &str, value: &str| field(field(name.len()) + field(value.len()));
        let session = header(SESSION_HEADER, id) + OVERWRITE.len();
        // Appending is the default, which is not encoded.
        let with_cookie = cookie.map(|cookie| header(SET_COOKIE, cookie));
        let ok = 2 * field(session) + with_cookie.map_or(0, field);
        let entry = |name: &str, value: &str| field(name.len()) + field(field(value.len()));
        let metadata = shown.iter().map(|(name, value)| field(entry(name, value)));
        let metadata = metadata.sum();
        let mut out = Writer::new(field(0) + field(ok) + field(metadata));
        out.open(1, 0);
        out.open(3, ok);
        for number in [2, 6] {
            out.open(number, session);
            out.header(SESSION_HEADER, id);
            out.0.extend_from_slice(&OVERWRITE);
        }
        if let (Some(cookie), Some(length)) = (cookie, with_cookie) {
            out.open(6, length);
            out.header(SET_COOKIE, cookie);
        }
        out.open(4, metadata);
        for (name, value) in shown {
            out.open(1, entry(name, value));
            out.text(1, name);
            out.open(2, field(value.len()));
            out.text(3, value);
        }
        out.done()
    }

    /// The message without the prefix.
    pub(in crate::envoy) fn message(&self) -> &[u8] {
        self.0.get(PREFIX_BYTES..).unwrap_or_default()
    }
}

/// The header that sets a cookie.
const SET_COOKIE: &str = "set-cookie";

/// The append action of a header: a number of one byte, in field 3.
const OVERWRITE: [u8; 2] = [3 << 3, HeaderAppendAction::OverwriteIfExistsOrAdd as u8];

/// The length of a field with a content of that length. Its number is below 16.
fn field(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

/// Writes a message into one buffer.
struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message of that length.
    fn new(length: usize) -> Self {
        let mut out = Vec::with_capacity(PREFIX_BYTES + length);
        // Not compressed.
        out.push(0);
        // A problem has at most some KiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        Self(out)
    }

    /// Begins a field with a content of that length.
    fn open(&mut self, number: u8, length: usize) {
        // 2 means that a length follows.
        self.0.push(number << 3 | 2);
        // This fails only if there is no room, and a vector grows.
        let _ = encode_length_delimiter(length, &mut self.0);
    }

    /// Writes a text.
    fn text(&mut self, number: u8, text: &str) {
        self.open(number, text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Writes the header of an option.
    fn header(&mut self, name: &str, value: &str) {
        self.open(1, field(name.len()) + field(value.len()));
        self.text(1, name);
        self.text(2, value);
    }

    /// The message.
    fn done(self) -> EncodedResponse {
        EncodedResponse(self.0.into())
    }
}

impl From<CheckResponse> for EncodedResponse {
    fn from(response: CheckResponse) -> Self {
        let mut out = Writer::new(response.encoded_len());
        // This fails only if there is no room, and a vector grows.
        let _ = response.encode(&mut out.0);
        out.done()
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
        ..header(SET_COOKIE, cookie)
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
                        let read = CheckResponse::decode(encoded.message()).unwrap();
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
