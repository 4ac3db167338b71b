//! The configuration exactly as written: one structure for the file's sections, filled from the file and then from the
//! environment. Nothing is checked here but the names of the keys and the shape of the sections.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Origin, Problem, Report};
use super::identity::RawIdentity;
use super::leases::RawLeases;
use super::limits::RawLimits;
use super::listen::{RawGrpc, RawHttp};
use super::redact::redact;
use super::refusal::RawRefusal;
use super::shutdown::RawShutdown;
use super::store::RawStore;
use super::telemetry::RawTelemetry;
use super::written::{Value, Written};

/// A key by its full name, and the place for its value.
pub(super) type Slot<'a> = (&'static str, &'a mut Option<Written>);

/// The file as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(deserialize_with = "section")]
    pub(super) grpc: RawGrpc,
    #[serde(deserialize_with = "section")]
    pub(super) http: RawHttp,
    #[serde(deserialize_with = "section")]
    pub(super) store: RawStore,
    #[serde(deserialize_with = "section")]
    pub(super) limits: RawLimits,
    #[serde(deserialize_with = "section")]
    pub(super) leases: RawLeases,
    #[serde(deserialize_with = "section")]
    pub(super) identity: RawIdentity,
    #[serde(deserialize_with = "section")]
    pub(super) refusal: RawRefusal,
    #[serde(deserialize_with = "section")]
    pub(super) telemetry: RawTelemetry,
    #[serde(deserialize_with = "section")]
    pub(super) shutdown: RawShutdown,
}

impl Raw {
    /// Reads the file; what is wrong with it goes into the report.
    pub(super) fn read(file: &Path, report: &mut Report) -> Self {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("can't read the configuration file: {error}");
                report.add(Problem {
                    origin: Origin::Line(0),
                    key: String::new(),
                    message,
                });
                return Self::default();
            }
        };
        Self::parse(&text).unwrap_or_else(|problem| {
            report.add(problem);
            Self::default()
        })
    }

    /// Understands the text of a file; an empty one is one that sets nothing.
    fn parse(text: &str) -> Result<Self, Problem> {
        let options = serde_saphyr::options! {
            // A snippet would repeat the lines around an error, and a password may stand in one of them.
            with_snippet: false,
            strict_booleans: true,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        };
        let mut path = String::new();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
            serde_path_to_error::deserialize::<_, Option<Self>>(yaml).map_err(|error| {
                path = key_of(error.path());
                error.into_inner()
            })
        })
        .map(Option::unwrap_or_default)
        .map_err(|error| problem(&error, path))
    }

    /// Every key there is, with the place for its value.
    pub(super) fn slots(&mut self) -> impl Iterator<Item = Slot<'_>> {
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

/// The key that an error is about, without what the reading of lines and keys adds to its path.
fn key_of(path: &serde_path_to_error::Path) -> String {
    let names = path.iter().filter_map(|segment| match segment {
        serde_path_to_error::Segment::Map { key } if key != "value" => Some(key.as_str()),
        _ => None,
    });
    redact(&names.collect::<Vec<_>>().join("."))
}

/// An error of the YAML reader in our words; its own name its interfaces, which nobody who writes a file knows.
fn problem(error: &serde_saphyr::Error, mut key: String) -> Problem {
    use serde_saphyr::Error;
    let message = match error {
        Error::SerdeUnknownField { expected, .. } => {
            format!("unknown key; allowed here: {}", expected.join(", "))
        }
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        } => format!("got {unexpected}; allowed: {expected}"),
        Error::DuplicateMappingKey { key: twice, .. } => {
            let twice = twice.as_deref().unwrap_or("?");
            key = if key.is_empty() {
                twice.to_owned()
            } else {
                format!("{key}.{twice}")
            };
            "written twice; allowed: once".to_owned()
        }
        Error::MultipleDocuments { .. } => "got a second YAML document; allowed: one".to_owned(),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            // The line is already in front.
            format!(
                "not valid YAML: {}",
                text.rsplit_once(" at line ")
                    .map_or(&*text, |(text, _)| text)
            )
        }
    };
    let line = error.location().map_or(0, |location| location.line());
    let message = if message.contains("://") {
        redact(&message)
    } else {
        message
    };
    Problem {
        origin: Origin::Line(line),
        key: redact(&key),
        message,
    }
}

// === Sections and leaves, as serde reads them ===

/// Reads a section. One without keys (`store:` and nothing below) sets nothing, as when its lines are commented out.
pub(super) fn section<'de, D, T>(deserializer: D) -> Result<T, D::Error>
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
        Ok(Self {
            value: spanned.value,
            origin: Origin::Line(spanned.referenced.line()),
        })
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
