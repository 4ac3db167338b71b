//! The check that we decode equals the one that `envoy-types` decodes. See [`crate::fuzzing`].

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3;
use envoy_types::pb::envoy::service::auth::v3::attribute_context as theirs;
use prost::Message;

use crate::envoy::wire::request::{self, CheckRequest, Pair, SocketPeer};

/// The check in those bytes, or an empty one. If `envoy-types` accepts it too, both see the same.
///
/// We refuse more: prost takes an entry of a map whatever its wire type is.
pub(in crate::envoy) fn read(message: &[u8]) -> CheckRequest<'_> {
    let read = CheckRequest::read(message);
    if let (Ok(read), Ok(whole)) = (&read, v3::CheckRequest::decode(message)) {
        assert_shows(read, whole);
    }
    read.unwrap_or_default()
}

/// Everything in the check equals that message.
fn assert_shows(read: &CheckRequest<'_>, whole: v3::CheckRequest) {
    let mut whole = whole.attributes.unwrap_or_default();
    assert_end(read.source.as_ref(), whole.source.as_ref());
    assert_end(read.destination.as_ref(), whole.destination.as_ref());
    assert_pairs(&read.context_extensions, &whole.context_extensions);
    if let Some(metadata) = &mut whole.metadata_context {
        // Both sides use the same code for metadata, and equal themselves except for NaN.
        let is_number = *metadata == metadata.clone();
        assert!(!is_number || read.metadata_context.as_ref() == Some(metadata));
    } else {
        assert_eq!(read.metadata_context, None);
    }
    let http = read.http.as_ref();
    let whole = whole.request.and_then(|request| request.http);
    assert_eq!(http.is_some(), whole.is_some());
    let (Some(http), Some(whole)) = (http, whole) else {
        return;
    };
    assert_eq!(http.method, whole.method);
    assert_eq!(http.path, whole.path);
    assert_eq!(http.scheme, whole.scheme);
    assert_pairs(&http.headers, &whole.headers);
    let lines = |map: &core::HeaderMap| -> Vec<(Vec<u8>, Vec<u8>)> {
        let lines = map.headers.iter().cloned();
        let line = |line: core::HeaderValue| {
            let raw = Some(line.raw_value).filter(|raw| !raw.is_empty());
            (line.key.into(), raw.unwrap_or(line.value.into()))
        };
        lines.map(line).collect()
    };
    let read = http.header_map.as_ref().map(|map| {
        let line = |line: &Pair<'_>| (line.name.to_vec(), line.text.to_vec());
        map.iter().map(line).collect()
    });
    assert_eq!(read, whole.header_map.as_ref().map(lines));
}

/// An end of the connection equals that one. Of several addresses, which nobody sends, the last one
/// counts here, and all of them are merged there: merging the last one again changes nothing.
fn assert_end(read: Option<&SocketPeer<'_>>, whole: Option<&theirs::Peer>) {
    let shown = read.map(|end| (end.address.is_some(), end.principal));
    let whole_shown = whole.map(|end| (end.address.is_some(), end.principal.as_str()));
    assert_eq!(shown, whole_shown);
    let whole = whole.and_then(|end| end.address.clone());
    if let (Some(address), Some(mut merged)) = (read.and_then(|end| end.address), whole) {
        let before = merged.clone();
        assert_eq!(merged.merge(address), Ok(()));
        assert_eq!(merged, before);
    }
}

/// Each name in either has the same text in both.
pub(super) fn assert_pairs(read: &[Pair<'_>], whole: &std::collections::HashMap<String, String>) {
    for (name, text) in whole {
        assert_eq!(request::text(read, name), Some(text.as_bytes()));
    }
    for pair in read {
        let name = std::str::from_utf8(pair.name).unwrap_or_default();
        assert!(whole.contains_key(name), "{pair:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::google::protobuf::value::Kind;
    use envoy_types::pb::google::protobuf::{Struct, Timestamp, Value};
    use proptest::collection::{hash_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// A text, seldom an empty one or a long one.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{0,2}", "\\PC{0,200}"]
    }

    fn map() -> impl Strategy<Value = HashMap<String, String>> {
        hash_map(text(), text(), 0..5)
    }

    fn end() -> impl Strategy<Value = theirs::Peer> {
        let end = (text(), map(), text(), text(), any::<bool>());
        end.prop_map(
            |(service, labels, principal, certificate, is_somewhere)| theirs::Peer {
                address: is_somewhere.then(core::Address::default),
                service,
                labels,
                principal,
                certificate,
            },
        )
    }

    fn raw_header() -> impl Strategy<Value = core::HeaderValue> {
        let header = (text(), text(), vec(any::<u8>(), 0..9));
        header.prop_map(|(key, value, raw_value)| core::HeaderValue {
            key,
            value,
            raw_value,
        })
    }

    fn metadata() -> impl Strategy<Value = core::Metadata> {
        hash_map(text(), map(), 0..3).prop_map(|namespaces| {
            let value = |text| Value {
                kind: Some(Kind::StringValue(text)),
            };
            let object = |pairs: HashMap<String, String>| Struct {
                fields: pairs
                    .into_iter()
                    .map(|(name, text)| (name, value(text)))
                    .collect(),
            };
            let namespaces = namespaces.into_iter();
            core::Metadata {
                filter_metadata: namespaces
                    .map(|(name, pairs)| (name, object(pairs)))
                    .collect(),
                ..core::Metadata::default()
            }
        })
    }

    fn http() -> impl Strategy<Value = theirs::HttpRequest> {
        let texts = (text(), text(), text(), text(), text(), text());
        let raw = option::of(vec(raw_header(), 0..4));
        let rest = (any::<i64>(), vec(any::<u8>(), 0..9));
        (texts, map(), raw, rest).prop_map(|(texts, headers, raw, (size, raw_body))| {
            let (id, method, path, host, scheme, body) = texts;
            theirs::HttpRequest {
                id,
                method,
                path,
                host,
                scheme,
                body,
                headers,
                header_map: raw.map(|headers| core::HeaderMap { headers }),
                size,
                raw_body,
                ..theirs::HttpRequest::default()
            }
        })
    }

    fn check() -> impl Strategy<Value = v3::CheckRequest> {
        let ends = (option::of(end()), option::of(end()));
        let request = option::of((option::of(http()), any::<bool>()));
        let left = (option::of(metadata()), option::of(metadata()));
        let attributes = (ends, request, map(), left);
        option::of(attributes).prop_map(|attributes| v3::CheckRequest {
            attributes: attributes.map(|(ends, request, context_extensions, left)| {
                v3::AttributeContext {
                    source: ends.0,
                    destination: ends.1,
                    request: request.map(|(http, is_timed)| theirs::Request {
                        time: is_timed.then(Timestamp::default),
                        http,
                    }),
                    context_extensions,
                    metadata_context: left.0,
                    route_metadata_context: left.1,
                    tls_session: None,
                }
            }),
        })
    }

    /// Reads a check that was encoded properly.
    fn read_sound(message: &[u8]) {
        read(message);
        assert_eq!(CheckRequest::read(message).map(drop), Ok(()));
    }

    proptest! {
        #[test]
        fn a_check_shows_what_envoy_types_reads_in_it(check in check()) {
            read_sound(&check.encode_to_vec());
        }

        /// Two concatenated messages are one, in which the last value wins, as protobuf defines.
        #[test]
        fn two_checks_in_one_are_merged_as_envoy_types_merges_them(first in check(), second in check()) {
            read_sound(&[first.encode_to_vec(), second.encode_to_vec()].concat());
        }

        #[test]
        fn a_damaged_check_shows_what_envoy_types_reads_in_it_or_is_refused(
            check in check(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut message = check.encode_to_vec();
            for (at, byte) in damage {
                if !message.is_empty() {
                    let at = at.index(message.len());
                    message[at] = byte;
                }
            }
            read(&message);
        }
    }

    #[test]
    fn an_entry_of_a_map_has_a_length() {
        let attributes = |field: &[u8]| {
            let length = u8::try_from(field.len()).unwrap();
            [&[0x0a, length], field].concat()
        };
        for field in [
            &b"\x50\x02\x0a\x00"[..],
            b"\x53\x02\x0a\x00",
            b"\x0a\x04\x18\x02\x0a\x00",
            b"\x22\x06\x12\x04\x18\x02\x0a\x00",
        ] {
            let message = attributes(field);
            assert!(v3::CheckRequest::decode(&*message).is_ok(), "{field:?}");
            assert!(CheckRequest::read(&message).is_err(), "{field:?}");
        }
    }

    #[test]
    fn an_undecodable_check_is_an_error_that_says_where() {
        let http = |http: &[u8]| {
            let tagged = |tag: u8, inner: &[u8]| {
                [&[tag << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat()
            };
            let message = tagged(1, &tagged(4, &tagged(2, http)));
            CheckRequest::read(&message)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        for (bytes, expected) in [
            (&b"\x12\x01G"[..], Ok(())),
            (b"\x12\x02G", Err("buffer underflow")),
            (b"\x12\x01\xff", Err("HttpRequest.method: ")),
            (b"\x10\x01", Err("invalid wire type")),
            (b"\x22\x01\xff", Err("HttpRequest.path: ")),
            (b"\x32\x01\xff", Err("HttpRequest.scheme: ")),
            (
                b"\x1a\x02\x08\x01",
                Err("HttpRequest.headers: invalid wire type"),
            ),
            (
                b"\x6a\x02\x0a\x03",
                Err("HttpRequest.header_map: buffer underflow"),
            ),
            // Headers are checked when they are looked up.
            (b"\x1a\x03\x0a\x01\xff", Ok(())),
            (b"\x1a\x03\x12\x01\xff", Ok(())),
            (b"\x6a\x05\x0a\x03\x0a\x01\xff", Ok(())),
            (b"\x6a\x05\x0a\x03\x1a\x01\xff", Ok(())),
        ] {
            let read = http(bytes);
            match expected {
                Ok(()) => assert_eq!(read, Ok(()), "{bytes:?}"),
                Err(part) => assert!(
                    read.as_ref().unwrap_err().contains(part),
                    "{bytes:?} {read:?}"
                ),
            }
        }
    }
}
