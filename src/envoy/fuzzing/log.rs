//! The access log that we decode equals the one that `envoy-types` decodes. See
//! [`crate::fuzzing`].

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use prost::Message;

use super::request::assert_pairs;
use crate::envoy::wire::entry::{LogEntry, LogMessage};

/// The message in those bytes, or an empty one. If `envoy-types` accepts it too, both see the same
/// in the fields that neither merges.
///
/// We accept more, as we don't look at the texts that we don't use.
pub(in crate::envoy) fn read(message: &[u8]) -> LogMessage<'_> {
    let read = LogMessage::read(message);
    if let (Ok(read), Ok(whole)) = (&read, StreamAccessLogsMessage::decode(message))
        && let Some(LogEntries::HttpLogs(whole)) = whole.log_entries
        && read.tcp_entries == 0
    {
        assert_eq!(read.entries.len(), whole.log_entry.len());
        for (read, whole) in read.entries.iter().zip(&whole.log_entry) {
            assert_shows(read, whole);
        }
    }
    read.unwrap_or_default()
}

/// The entry's own texts and numbers equal those of that message.
pub(super) fn assert_shows(read: &LogEntry<'_>, whole: &HttpAccessLogEntry) {
    let common = whole.common_properties.clone().unwrap_or_default();
    assert_eq!(read.log_type, common.access_log_type);
    assert_eq!(read.has_upstream, common.upstream_remote_address.is_some());
    let request = whole.request.clone().unwrap_or_default();
    assert_eq!(read.request_id, request.request_id);
    assert_eq!(read.path, request.path);
    assert_pairs(&read.headers, &request.request_headers);
    let response = whole.response.clone().unwrap_or_default();
    assert_eq!(read.response_code_details, response.response_code_details);
    assert_eq!(
        read.response_code.is_some(),
        response.response_code.is_some()
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use envoy_types::pb::envoy::config::core::v3::{Address, Metadata, Node};
    use envoy_types::pb::envoy::data::accesslog::v3::{
        AccessLogCommon, HttpRequestProperties, HttpResponseProperties, TlsProperties,
    };
    use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
        HttpAccessLogEntries, Identifier,
    };
    use envoy_types::pb::google::protobuf;
    use envoy_types::pb::google::protobuf::value::Kind;
    use proptest::collection::{hash_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::envoy::wire::entry::{OUR_NAMESPACE, OurAnswer};

    /// A text, seldom an empty one or a long one.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{0,2}", "\\PC{0,200}"]
    }

    fn map() -> impl Strategy<Value = HashMap<String, String>> {
        hash_map(text(), text(), 0..5)
    }

    /// A value of our answer, mostly a text.
    fn value() -> impl Strategy<Value = Kind> {
        prop_oneof![
            4 => text().prop_map(Kind::StringValue),
            1 => any::<bool>().prop_map(Kind::BoolValue),
            1 => (0.0..9.0).prop_map(Kind::NumberValue),
        ]
    }

    /// Metadata with our answer or without it.
    fn metadata() -> impl Strategy<Value = Metadata> {
        let name = prop_oneof!["decision", "user", "kind", "session", "other"];
        let answer = hash_map(name, option::of(value()), 0..5);
        let namespace = prop_oneof![Just(OUR_NAMESPACE.to_owned()), text()];
        hash_map(namespace, answer, 0..3).prop_map(|namespaces| {
            let object = |fields: HashMap<String, Option<Kind>>| protobuf::Struct {
                fields: fields
                    .into_iter()
                    .map(|(name, kind)| (name, protobuf::Value { kind }))
                    .collect(),
            };
            let namespaces = namespaces.into_iter();
            Metadata {
                filter_metadata: namespaces
                    .map(|(name, fields)| (name, object(fields)))
                    .collect(),
                ..Metadata::default()
            }
        })
    }

    /// Seconds and nanoseconds, sometimes negative ones.
    fn time() -> impl Strategy<Value = (i64, i32)> {
        prop_oneof![
            (0..2_000_000_000_i64, 0..999_999_999),
            (any::<i64>(), any::<i32>())
        ]
    }

    fn common() -> impl Strategy<Value = AccessLogCommon> {
        let times = (option::of(time()), option::of(time()));
        let rest = (-1..20_i32, any::<bool>(), any::<bool>(), text());
        (times, option::of(metadata()), map(), rest).prop_map(
            |((began, took), metadata, tags, rest)| {
                let (access_log_type, has_upstream, has_tls, route_name) = rest;
                AccessLogCommon {
                    access_log_type,
                    start_time: began
                        .map(|(seconds, nanos)| protobuf::Timestamp { seconds, nanos }),
                    duration: took.map(|(seconds, nanos)| protobuf::Duration { seconds, nanos }),
                    metadata,
                    custom_tags: tags,
                    upstream_remote_address: has_upstream.then(Address::default),
                    tls_properties: has_tls.then(TlsProperties::default),
                    route_name,
                    sample_rate: 1.0,
                    ..AccessLogCommon::default()
                }
            },
        )
    }

    fn entry() -> impl Strategy<Value = HttpAccessLogEntry> {
        let request = (text(), text(), text(), map());
        let response = (option::of(any::<u32>()), text(), map());
        let parts = (
            option::of(common()),
            option::of(request),
            option::of(response),
        );
        parts.prop_map(
            |(common_properties, request, response)| HttpAccessLogEntry {
                common_properties,
                request: request.map(|(request_id, path, user_agent, request_headers)| {
                    HttpRequestProperties {
                        request_id,
                        path,
                        user_agent,
                        request_headers,
                        ..HttpRequestProperties::default()
                    }
                }),
                response: response.map(|(code, response_code_details, response_headers)| {
                    HttpResponseProperties {
                        response_code: code.map(|value| protobuf::UInt32Value { value }),
                        response_code_details,
                        response_headers,
                        ..HttpResponseProperties::default()
                    }
                }),
                ..HttpAccessLogEntry::default()
            },
        )
    }

    fn message() -> impl Strategy<Value = StreamAccessLogsMessage> {
        let identifier = option::of((text(), text()));
        (identifier, vec(entry(), 0..4)).prop_map(|(identifier, log_entry)| {
            let identifier = identifier.map(|(id, log_name)| Identifier {
                node: Some(Node {
                    id,
                    ..Node::default()
                }),
                log_name,
            });
            StreamAccessLogsMessage {
                identifier,
                log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })),
            }
        })
    }

    /// The time, if it isn't negative.
    fn positive(seconds: i64, nanos: i32) -> Option<Duration> {
        let nanos = u32::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000);
        Some(Duration::new(u64::try_from(seconds).ok()?, nanos?))
    }

    /// Our answer, as `envoy-types` shows it.
    fn answer(metadata: &Metadata) -> Option<OurAnswer<'_>> {
        let fields = &metadata.filter_metadata.get(OUR_NAMESPACE)?.fields;
        let text = |name| match fields.get(name)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.as_str()),
            _ => None,
        };
        Some(OurAnswer {
            decision: text("decision"),
            user: text("user"),
            kind: text("kind"),
            session: text("session"),
        })
    }

    proptest! {
        #[test]
        fn a_message_shows_what_envoy_types_reads_in_it(message in message()) {
            let bytes = message.encode_to_vec();
            prop_assert!(LogMessage::read(&bytes).is_ok());
            let read = read(&bytes);
            let sender = message.identifier.map(|sender| {
                (sender.node.unwrap_or_default().id, sender.log_name)
            });
            let shown = read.sender.map(|sender| (sender.node.to_owned(), sender.log.to_owned()));
            prop_assert_eq!(shown, sender);
            let Some(LogEntries::HttpLogs(whole)) = message.log_entries else {
                unreachable!("it has entries about requests");
            };
            for (read, whole) in read.entries.iter().zip(whole.log_entry) {
                let common = whole.common_properties.unwrap_or_default();
                let began = common.start_time.and_then(|time| positive(time.seconds, time.nanos));
                prop_assert_eq!(read.start_time, began);
                let took = common.duration.and_then(|time| positive(time.seconds, time.nanos));
                prop_assert_eq!(read.duration, took);
                let metadata = common.metadata.unwrap_or_default();
                prop_assert_eq!(read.ours, answer(&metadata));
                prop_assert_eq!(Metadata::decode(read.metadata), Ok(metadata));
                let response = whole.response.unwrap_or_default();
                let code = response.response_code.map(|code| u64::from(code.value));
                prop_assert_eq!(read.response_code, code);
            }
        }

        #[test]
        fn a_damaged_message_shows_what_envoy_types_reads_in_it_or_is_refused(
            message in message(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = message.encode_to_vec();
            for (at, byte) in damage {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            read(&bytes);
        }
    }

    #[test]
    fn a_text_that_is_used_and_is_not_utf8_is_refused_and_another_is_not() {
        let message = |path: &str, user_agent: &str| {
            let request = Some(HttpRequestProperties {
                path: path.to_owned(),
                user_agent: user_agent.to_owned(),
                ..HttpRequestProperties::default()
            });
            let entry = HttpAccessLogEntry {
                request,
                ..HttpAccessLogEntry::default()
            };
            let mut bytes = entry.encode_to_vec();
            for byte in &mut bytes {
                if *byte == b'~' {
                    *byte = 0xff;
                }
            }
            LogEntry::read(&bytes).is_ok()
        };
        assert!(message("/a", "~"));
        assert!(!message("~", "a"));
    }
}
