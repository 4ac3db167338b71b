//! The log as JSON: one object per line, with an event's fields next to its time, level, message
//! and target. A list is an array.

use std::fmt;

use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::user_hash::{HashedUsers, UserHash};

/// Texts that are logged as a list. `{:?}` is for people; `{:#?}` is a JSON array.
pub(super) struct Texts<'a>(pub(super) &'a [String]);

impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return self.0.fmt(f);
        }
        // Serializing texts can't fail.
        let array = serde_json::to_string(self.0).unwrap_or_default();
        f.write_str(&array)
    }
}

/// The fields that are [`Texts`].
const LISTS: [&str; 1] = ["holders"];

/// Formats each event as an object, with hashes in the place of user ids if it has a key for them.
pub(super) struct JsonLines(pub(super) Option<UserHash>);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let mut visitor = HashedUsers {
            hash: self.0.as_ref(),
            fields: Fields(vec![
                ("timestamp", time.into()),
                ("level", metadata.level().as_str().into()),
            ]),
        };
        event.record(&mut visitor);
        let mut fields = visitor.fields;
        fields.0.push(("target", metadata.target().into()));
        writeln!(writer, "{}", fields.object().ok_or(fmt::Error)?)
    }
}

/// The fields of an object, in order.
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// The object.
    fn object(&self) -> Option<String> {
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut text);
        let mut object = serializer.serialize_map(Some(self.0.len())).ok()?;
        for (name, value) in &self.0 {
            object.serialize_entry(name, value).ok()?;
        }
        object.end().ok()?;
        String::from_utf8(text).ok()
    }

    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if LISTS.contains(&field.name())
            && let Ok(list) = serde_json::from_str::<Value>(&format!("{value:#?}"))
        {
            return self.push(field, list);
        }
        self.push(field, format!("{value:?}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, OnceLock};

    use tracing::Dispatch;

    use super::*;
    use crate::clock::Timestamp;
    use crate::identity::{Facts, Kind, SessionId, SessionKey, UserId};
    use crate::session::{Flags, Refusal, Session};
    use crate::telemetry::RefusedStream;

    /// Ids that would break a line or an array without escaping.
    const NASTY: [&str; 12] = [
        "a",
        "\"",
        "\\",
        "\\\"",
        "a\",\"b",
        "[\"a\"]",
        "{\"level\":\"ERROR\"}",
        "{}",
        "'",
        "映画 é\u{202e}\u{feff}",
        "\u{2028}\u{10ffff}",
        "%0a\\n\\u0000",
    ];

    /// What is written to it.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// All of it, as text.
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The JSON log of a function, line by line.
    fn logged(log: impl FnOnce()) -> Vec<Value> {
        // If there is only one subscriber, a thread without it can disable a line everywhere.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| {
            let unheard = tracing_subscriber::fmt().with_writer(io::sink);
            Dispatch::new(unheard.finish())
        });
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines(None))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = lines.text();
        let lines = text.lines();
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    fn session(id: &str) -> Session {
        Session {
            key: SessionKey {
                kind: Kind::Playback,
                id: SessionId::parse(id).unwrap(),
            },
            facts: Facts::default(),
            started_at: Timestamp::default(),
            renewed_at: Timestamp::default(),
            expires_at: Timestamp::default(),
            ticket: None,
            flags: Flags::default(),
        }
    }

    #[test]
    fn each_line_parses_and_holders_are_an_array() {
        let holders: Vec<_> = NASTY.into_iter().map(session).collect();
        let refusal = Refusal::Full {
            limit: 3,
            holders: holders.clone(),
            decided_at: Timestamp::default(),
        };
        let lines = logged(|| {
            for name in NASTY {
                let refused = RefusedStream {
                    request_id: name.to_owned(),
                    user: &UserId::parse(name).unwrap(),
                    key: &session(name).key,
                    refusal: &refusal,
                    limit: 3,
                    by_this_instance_alone: false,
                    enforced: true,
                };
                refused.tell(0);
            }
        });
        assert_eq!(lines.len(), NASTY.len());
        let keys: Vec<_> = holders.iter().map(|held| held.key.to_string()).collect();
        for (line, name) in lines.iter().zip(NASTY) {
            assert_eq!(line["user.id"], name);
            assert_eq!(line["request.id"], name);
            assert_eq!(line["holders"], Value::from(keys.clone()), "{line}");
            assert_eq!(
                (&line["level"], &line["message"], &line["limit"]),
                (&"INFO".into(), &"a stream was refused".into(), &3.into())
            );
        }
    }

    #[test]
    fn numbers_stay_numbers_and_nothing_is_left_out() {
        let lines = logged(|| {
            let absent: Option<u32> = None;
            tracing::warn!(
                small = -1,
                large = u64::MAX,
                half = 0.5,
                odd = f64::NAN,
                yes = true,
                absent,
                "told {}",
                1
            );
        });
        let [line] = &lines[..] else {
            panic!("{lines:?}");
        };
        let expected = serde_json::json!({
            "timestamp": line["timestamp"], "level": "WARN", "small": -1, "large": u64::MAX, "half": 0.5, "odd": null, "yes": true,
            "message": "told 1", "target": module_path!(),
        });
        assert_eq!(*line, expected);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
