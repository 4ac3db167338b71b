//! Answers as they go out. The one to nearly every check, that a stream goes on, is written down by itself: to make a message of it and to
//! encode that takes several times as long, mostly for hash tables and for lengths that are reckoned anew on each level.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::{Message, encode_length_delimiter, length_delimiter_len};

use crate::envoy::check::verdict::SESSION_HEADER;
use crate::session::{SessionKey, UserId};

/// A `CheckResponse`, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::envoy) struct Written(Vec<u8>);

impl Written {
    /// What [`super::verdict::allow`] says.
    pub(in crate::envoy) fn allow(user: &UserId, key: &SessionKey) -> Self {
        let (id, kind) = (key.id.as_str(), key.kind.as_str());
        let header = field(1, &[&text(1, SESSION_HEADER), &text(2, id)]);
        // A number of one byte, in field 3.
        let overwrite = [3 << 3, HeaderAppendAction::OverwriteIfExistsOrAdd as u8];
        let option: [&[u8]; 2] = [&header, &overwrite];
        let shown = |name, value| field(1, &[&text(1, name), &field(2, &[&text(3, value)])]);
        let status = field(1, &[]);
        let ok = field(3, &[&field(2, &option), &field(6, &option)]);
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

    /// The bytes.
    pub(in crate::envoy) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<CheckResponse> for Written {
    fn from(response: CheckResponse) -> Self {
        Self(response.encode_to_vec())
    }
}

/// A field with a text.
fn text(number: u8, text: &str) -> Vec<u8> {
    field(number, &[text.as_bytes()])
}

/// A field with a message of those fields, or with a text of those parts. `number` is below 16.
fn field(number: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut written = Vec::with_capacity(1 + length_delimiter_len(length) + length);
    // 2 says that a length follows.
    written.push(number << 3 | 2);
    // It fails only where there is no room, and a vector grows.
    let _ = encode_length_delimiter(length, &mut written);
    for part in parts {
        written.extend_from_slice(part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::check::verdict;
    use crate::session::{Kind, SessionId};

    #[test]
    fn what_is_written_by_itself_is_what_the_message_says() {
        // Lengths of one byte and of two, on every level.
        for length in (1..=256).chain([7, 60, 100, 127, 128]) {
            for kind in [Kind::Playback, Kind::Request, Kind::Video] {
                for (user, id) in [(length, 36), (20, length), (length, length)] {
                    let user = UserId::parse(&"u".repeat(user)).unwrap();
                    let id = SessionId::parse(&"i".repeat(id)).unwrap();
                    let key = SessionKey { kind, id };
                    let written = Written::allow(&user, &key);
                    let read = CheckResponse::decode(written.as_bytes()).unwrap();
                    assert_eq!(read, verdict::allow(&user, &key));
                }
            }
        }
    }
}
