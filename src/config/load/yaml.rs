//! Reads a YAML file into a [`Raw`]. Only the names of the keys and the shape of the sections are
//! checked here.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Track;

use super::error::{ConfigProblem, Report};
use super::origin::Origin;
use super::raw::Raw;
use super::redact::may_hold_a_secret;
use super::renamed::RenamedKey;
use super::section::KnownKey;
use super::value::{RawValue, Shape};

/// The nodes that even an empty file may have.
const LEAST_NODES: usize = 64;

impl Raw {
    /// Reads the text of a file, or reports why there is no text.
    pub(in crate::config) fn read(
        known: Vec<KnownKey>,
        renamed: &'static [RenamedKey],
        text: Result<&[u8], &ConfigProblem>,
        report: &mut Report,
    ) -> Self {
        let mut raw = Self::new(known, renamed);
        let read = text.map_err(ConfigProblem::clone).and_then(|text| {
            let text = utf8(text)?;
            raw.parse(text)
        });
        if let Err(problem) = read {
            report.add(problem);
            raw.clear();
        }
        raw.rename_keys(report);
        raw
    }

    /// Reads the text of a file; an empty one sets nothing.
    pub(in crate::config) fn parse(&mut self, text: &str) -> Result<(), ConfigProblem> {
        // A node takes at least one byte and makes at most two events, so this bounds only what
        // aliases repeat. The library's own bounds allow 125,000 users.
        let nodes = text.len() + LEAST_NODES;
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: nodes, max_events: 2 * nodes },
            // A snippet would repeat the lines around an error, which may hold a password.
            with_snippet: false,
            strict_booleans: true,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        };
        let mut names = Vec::new();
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
            let mut track = Track::new();
            let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
            let read = Document(self).deserialize(yaml);
            read.inspect_err(|_| names = names_of(&track.path()))
        })
        .map_err(|error| problem(&error, names, text, self))
    }
}

/// The text of a file.
fn utf8(text: &[u8]) -> Result<&str, ConfigProblem> {
    let problem = |line, message: &str| ConfigProblem {
        origin: Origin::Line(line),
        key: String::new(),
        message: message.to_owned(),
    };
    match std::str::from_utf8(text) {
        Ok("") => Err(problem(
            0,
            "the configuration file is empty (0 bytes), as after an interrupted write; \
             to use only the defaults, write a comment into it, such as `# end`",
        )),
        Ok(text) => Ok(text),
        Err(error) => {
            let good = text.get(..error.valid_up_to()).unwrap_or_default();
            let lines = good.iter().filter(|byte| **byte == b'\n').count();
            Err(problem(
                1 + lines as u64,
                "not UTF-8; save the file as UTF-8",
            ))
        }
    }
}

/// The names in the path of an error, without the segments that `Spanned` adds.
fn names_of(path: &serde_path_to_error::Path) -> Vec<String> {
    let names = path.iter().filter_map(|segment| match segment {
        serde_path_to_error::Segment::Map { key } if key != "value" => Some(key.clone()),
        _ => None,
    });
    names.collect()
}

/// The part of an error's key that may be shown, and whether that is the whole key.
fn shown_key(names: &[String], line: u64, text: &str, raw: &Raw) -> (String, bool) {
    let mut shown = String::new();
    for name in names {
        if raw.is_secret(&shown) {
            // Names below a secret key are parts of the secret.
            return (shown, false);
        }
        let longer = below(&shown, name);
        let is_known = raw.names().any(|known| is_within(known, &longer));
        if !is_known && !is_surely_a_key(name, line, text) {
            return (shown, false);
        }
        shown = longer;
    }
    (shown, true)
}

/// Whether an unknown name was meant as a key. In `{urls: redis://:hunter2,a@cache}`, the comma
/// turns half of a password into a key. That needs braces: a name that begins its line is no such
/// half.
fn is_surely_a_key(name: &str, line: u64, text: &str) -> bool {
    // What follows the comma in a password looks like a mail address.
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

/// An error of the YAML reader in our words. Its own messages name Rust interfaces, and repeat what
/// is written, which may be a secret.
fn problem(
    error: &serde_saphyr::Error,
    mut names: Vec<String>,
    text: &str,
    raw: &Raw,
) -> ConfigProblem {
    use serde_saphyr::Error;
    let line = error.location().map_or(0, |location| location.line());
    let error = match error {
        Error::AliasError { error, .. } => error,
        error => error,
    };
    if let Error::DuplicateMappingKey { key, .. } = error {
        names.push(key.clone().unwrap_or_else(|| "?".to_owned()));
    }
    let (key, is_whole) = shown_key(&names, line, text, raw);
    let message = match error {
        Error::SerdeUnknownField { .. } => {
            let section = names.split_last().map_or(&[][..], |(_, section)| section);
            let known = raw.known().iter().map(|known| known.key.name);
            let allowed = names_in(&section.join("."), known).join(", ");
            let unknown = if is_whole {
                "unknown key"
            } else {
                "unknown key, which is not shown here"
            };
            format!("{unknown}; allowed here: {allowed}")
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
            // Our error begins with the line.
            let text = text
                .rsplit_once(" at line ")
                .map_or(&*text, |(text, _)| text);
            format!("not valid YAML: {}", without_value(text))
        }
    };
    ConfigProblem {
        origin: Origin::Line(line),
        key,
        message,
    }
}

/// The reader's message up to the place where it repeats what is written.
fn without_value(text: &str) -> &str {
    text.split(['`', '"']).next().unwrap_or_default().trim_end()
}

/// The full name of a key in a section. The section of the whole file has an empty name.
fn below(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        _ => format!("{section}.{name}"),
    }
}

/// Whether a key is that one or below it.
fn is_within(key: &str, all: &str) -> bool {
    let rest = key.strip_prefix(all);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The names right below a section, of the keys and sections that have these full names.
fn names_in(section: &str, known: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let start = below(section, "");
    let names = known.filter_map(|known| known.strip_prefix(&start)?.split('.').next());
    let mut names: Vec<_> = names.collect();
    names.dedup();
    names
}

// === Sections and leaves, as serde reads them ===

/// Reads a whole file, which may be empty.
struct Document<'a>(&'a mut Raw);

/// Reads a section. One without keys (`store:` and nothing below) sets nothing, as when its lines
/// are commented out.
struct Section<'a> {
    /// Where the values go.
    raw: &'a mut Raw,
    /// The full name of the section; empty for the file as a whole.
    name: &'a str,
}

/// Reads one of the names that a section may contain.
struct Name<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sections, with keys of their own below them")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let (raw, name) = (self.0, "");
        deserializer.deserialize_map(Section { raw, name })
    }
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section, with keys of its own below it")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let allowed = names_in(self.name, self.raw.names());
        while let Some(name) = map.next_key_seed(Name(&allowed))? {
            let name = below(self.name, name);
            let known = self.raw.names().find(|key| *key == name);
            match known {
                Some(key) => {
                    // A `null` leaves the key unset.
                    if let Some(value) = map.next_value()? {
                        self.raw.set(key, value);
                    }
                }
                None => {
                    let (raw, name) = (&mut *self.raw, &*name);
                    map.next_value_seed(Section { raw, name })?;
                }
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("field identifier")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|allowed| **allowed == name);
        known.copied().ok_or_else(|| E::unknown_field(name, &[]))
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Shape>::deserialize(deserializer)?;
        let origin = Origin::Line(spanned.referenced.line());
        Ok(Self::new(spanned.value, origin))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Shape::Map(entries))
    }
}
