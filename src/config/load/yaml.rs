//! The configuration exactly as written: one structure for the file's sections, filled from the file and then from the
//! environment. Nothing is checked here but the names of the keys and the shape of the sections.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Origin, Problem, Report};
use super::redact::may_hold_a_secret;
use super::value::{Value, Written};
use crate::config::sections::grpc::RawGrpc;
use crate::config::sections::http::RawHttp;
use crate::config::sections::identity::RawIdentity;
use crate::config::sections::leases::RawLeases;
use crate::config::sections::limits::RawLimits;
use crate::config::sections::refusal::RawRefusal;
use crate::config::sections::shutdown::RawShutdown;
use crate::config::sections::store::RawStore;
use crate::config::sections::telemetry::RawTelemetry;

/// The nodes that even an empty file may have.
const LEAST_NODES: usize = 64;

/// A key by its full name, and the place for its value.
pub(in crate::config) type Slot<'a> = (&'static str, &'a mut Option<Written>);

/// The file as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Raw {
    #[serde(deserialize_with = "section")]
    pub(in crate::config) grpc: RawGrpc,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) http: RawHttp,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) store: RawStore,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) limits: RawLimits,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) leases: RawLeases,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) identity: RawIdentity,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) refusal: RawRefusal,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) telemetry: RawTelemetry,
    #[serde(deserialize_with = "section")]
    pub(in crate::config) shutdown: RawShutdown,
}

impl Raw {
    /// Understands the text of a file, or notes why there is none.
    pub(in crate::config) fn read(text: Result<&[u8], &Problem>, report: &mut Report) -> Self {
        match text {
            Ok(text) => Self::understand(text, report),
            Err(problem) => {
                report.add(problem.clone());
                Self::default()
            }
        }
    }

    /// Understands the text of a file; what is wrong with it goes into the report.
    pub(in crate::config) fn understand(text: &[u8], report: &mut Report) -> Self {
        let text = match std::str::from_utf8(text) {
            Ok("") => {
                report.add(Problem {
                    origin: Origin::Line(0),
                    key: String::new(),
                    message: "the configuration file is empty (0 bytes), as after an interrupted write; to use only the defaults, write a comment into it, such as `# end`".to_owned(),
                });
                return Self::default();
            }
            Ok(text) => text,
            Err(error) => {
                let good = text.get(..error.valid_up_to()).unwrap_or_default();
                let lines = good.iter().filter(|byte| **byte == b'\n').count();
                report.add(Problem {
                    origin: Origin::Line(1 + lines as u64),
                    key: String::new(),
                    message: "not UTF-8; save the file as UTF-8".to_owned(),
                });
                return Self::default();
            }
        };
        Self::parse(text).unwrap_or_else(|problem| {
            report.add(problem);
            Self::default()
        })
    }

    /// Understands the text of a file; an empty one is one that sets nothing.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, Problem> {
        // A node takes a byte at least and makes two events at most, so this bounds only what aliases repeat. The library's
        // own bounds end at 125,000 users.
        let nodes = text.len() + LEAST_NODES;
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: nodes, max_events: 2 * nodes },
            // A snippet would repeat the lines around an error, and a password may stand in one of them.
            with_snippet: false,
            strict_booleans: true,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        };
        let mut path = Vec::new();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
            serde_path_to_error::deserialize::<_, Option<Self>>(yaml).map_err(|error| {
                path = names_of(error.path());
                error.into_inner()
            })
        })
        .map(Option::unwrap_or_default)
        .map_err(|error| problem(&error, path, text))
    }

    /// Every key there is, with the place for its value.
    pub(in crate::config) fn slots(&mut self) -> impl Iterator<Item = Slot<'_>> {
        let sections = [
            self.grpc.slots(),
            self.http.slots(),
            self.store.slots(),
            self.limits.slots(),
            self.leases.slots(),
            self.identity.slots(),
            self.refusal.slots(),
            self.telemetry.slots(),
            self.shutdown.slots(),
        ];
        sections.into_iter().flatten()
    }
}

/// The names in the path of an error, without what the reading of lines and keys adds to it.
fn names_of(path: &serde_path_to_error::Path) -> Vec<String> {
    let names = path.iter().filter_map(|segment| match segment {
        serde_path_to_error::Segment::Map { key } if key != "value" => Some(key.clone()),
        _ => None,
    });
    names.collect()
}

/// The key that an error is about as far as it can be shown, and whether that is all of it.
fn shown_key(names: &[String], line: u64, text: &str) -> (String, bool) {
    let mut raw = Raw::default();
    let keys: Vec<_> = raw.slots().map(|(key, _)| key).collect();
    let mut shown = String::new();
    for name in names {
        let longer = match &*shown {
            "" => name.clone(),
            // Whatever is below it was meant as a part of an address.
            "store.redis.urls" => return (shown, false),
            _ => format!("{shown}.{name}"),
        };
        let is_known = keys.iter().any(|key| {
            let rest = key.strip_prefix(&longer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if !is_known && !is_surely_a_key(name, line, text) {
            return (shown, false);
        }
        shown = longer;
    }
    (shown, true)
}

/// Whether a name that we don't know was meant as a key. In `{urls: redis://:hunter2,a@cache}` the comma makes a key of the
/// half of a password. That needs braces: where a name begins its line, it is no such half.
fn is_surely_a_key(name: &str, line: u64, text: &str) -> bool {
    // Behind the comma in a password stands what looks like somebody's mail address.
    if may_hold_a_secret(name) {
        return false;
    }
    if !may_hold_a_secret(text) {
        return true;
    }
    let before = usize::try_from(line.saturating_sub(2)).unwrap_or(usize::MAX);
    let mut lines = text.lines().skip(before);
    let above = if line > 1 { lines.next() } else { None };
    let quotes = ['"', '\''];
    let begins_its_line = lines.next().is_some_and(|line| {
        let rest = line.trim_start().trim_start_matches(quotes);
        let rest = rest
            .strip_prefix(name)
            .map(|rest| rest.trim_start_matches(quotes));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    });
    let is_inside_braces = above.is_some_and(|above| above.trim_end().ends_with([',', '{', '[']));
    begins_its_line && !is_inside_braces
}

/// An error of the YAML reader in our words; its own name its interfaces, which nobody who writes a file knows, and repeat
/// what is written, which may be a secret.
fn problem(error: &serde_saphyr::Error, mut names: Vec<String>, text: &str) -> Problem {
    use serde_saphyr::Error;
    let line = error.location().map_or(0, |location| location.line());
    let error = match error {
        Error::AliasError { error, .. } => error,
        error => error,
    };
    if let Error::DuplicateMappingKey { key, .. } = error {
        names.push(key.clone().unwrap_or_else(|| "?".to_owned()));
    }
    let (key, is_whole) = shown_key(&names, line, text);
    let message = match error {
        Error::SerdeUnknownField { expected, .. } => {
            let unknown = if is_whole {
                "unknown key"
            } else {
                "unknown key, which is not shown here"
            };
            format!("{unknown}; allowed here: {}", expected.join(", "))
        }
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        } => format!("got {}; allowed: {expected}", without_value(unexpected)),
        Error::DuplicateMappingKey { .. } if is_whole => "written twice; allowed: once".to_owned(),
        Error::DuplicateMappingKey { .. } => {
            "a key, which is not shown here, is written twice; allowed: once".to_owned()
        }
        Error::MultipleDocuments { .. } => "got a second YAML document; allowed: one".to_owned(),
        Error::QuotingRequired { .. } => "not valid YAML: a text that needs quotes".to_owned(),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            // The line is already in front.
            let text = text
                .rsplit_once(" at line ")
                .map_or(&*text, |(text, _)| text);
            format!("not valid YAML: {}", without_value(text))
        }
    };
    Problem {
        origin: Origin::Line(line),
        key,
        message,
    }
}

/// The reader's words up to where they repeat what is written.
fn without_value(text: &str) -> &str {
    text.split(['`', '"']).next().unwrap_or_default().trim_end()
}

// === Sections and leaves, as serde reads them ===

/// Reads a section. One without keys (`store:` and nothing below) sets nothing, as when its lines are commented out.
pub(in crate::config) fn section<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    struct Section<T>(PhantomData<T>);

    impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for Section<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a section, with keys of its own below it")
        }

        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Section(PhantomData))
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Value>::deserialize(deserializer)?;
        let origin = Origin::Line(spanned.referenced.line());
        Ok(Self::new(spanned.value, origin))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
