//! One value as it was written, and where: the leaf of the raw configuration.
//!
//! A leaf takes any shape when the file is read, so that what is wrong with it is said by the section that knows what is
//! allowed, in the same words for the file and for the environment, and with its line.

use std::fmt;
use std::time::Duration;

use super::error::ConfigProblem;
use super::origin::Origin;
use super::redact::{Hides, NOT_SHOWN, may_hold_a_secret};

/// The most of a value that an error repeats.
const SHOWN_CHARS: usize = 120;

/// One value and where it was written.
#[derive(Clone)]
pub(in crate::config) struct RawValue {
    /// The value.
    pub(in crate::config) shape: Shape,
    /// Where it was written.
    pub(in crate::config) origin: Origin,
    /// Whether it is a part of something that may hold a secret: it may be the half of a password then.
    is_part_of_secret: bool,
    /// Says of its text whether that may hold a secret.
    hides: Hides,
}

/// A value of any shape.
#[derive(Clone)]
pub(in crate::config) enum Shape {
    /// Nothing.
    Null,
    /// `true`, `false` or a number, by its text.
    Plain(String),
    /// Text; all that comes from the environment is text.
    Text(String),
    /// A list.
    List(Vec<RawValue>),
    /// Keys and values, in their order.
    Map(Vec<(String, RawValue)>),
}

/// Why a value can't be taken.
pub(in crate::config) struct Wrong {
    origin: Origin,
    /// The part of the key below the one that was read, such as a plan's name.
    below: Option<String>,
    message: String,
}

// === impl RawValue ===

impl RawValue {
    /// That value, written there.
    pub(in crate::config) fn new(shape: Shape, origin: Origin) -> Self {
        Self {
            shape,
            origin,
            is_part_of_secret: false,
            hides: may_hold_a_secret,
        }
    }

    /// The same, where something else says what may hold a secret.
    pub(in crate::config) fn hiding(&self, hides: Hides) -> Self {
        Self {
            hides,
            ..self.clone()
        }
    }

    /// The text of a value that is neither a list nor a map.
    pub(in crate::config) fn scalar(&self) -> Option<&str> {
        match &self.shape {
            Shape::Plain(text) | Shape::Text(text) => Some(text),
            Shape::Null | Shape::List(_) | Shape::Map(_) => None,
        }
    }

    /// The text of a value that may be left out by `null` or by nothing; what is no text is one that nobody accepts.
    pub(in crate::config) fn optional(&self) -> Option<&str> {
        let text = match &self.shape {
            Shape::Null => return None,
            Shape::Plain(text) | Shape::Text(text) => text.trim(),
            Shape::List(_) | Shape::Map(_) => "?",
        };
        (!text.is_empty()).then_some(text)
    }

    /// The items of a list; a text is a list with commas, as in the environment.
    pub(in crate::config) fn items(&self) -> Option<Vec<Self>> {
        match &self.shape {
            Shape::List(items) => {
                let is_secret = self.may_hold_a_secret();
                let items = items.iter().map(|item| item.hiding(self.hides));
                let items = items.map(|item| item.inside(is_secret));
                Some(items.collect())
            }
            Shape::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Shape::Plain(text) | Shape::Text(text) => Some(self.parts(text.split(','))),
            Shape::Null | Shape::Map(_) => None,
        }
    }

    /// The entries of a map; a text is `key=value` with commas, as in the environment. `hides` says which
    /// names may hold a secret.
    pub(in crate::config) fn entries(&self, hides: Hides) -> Option<Vec<(String, Self)>> {
        // This searches the whole map, so it must not happen again for each entry.
        let is_secret = self.is_part_of_secret || self.shape.may_hold_a_secret(hides);
        match &self.shape {
            Shape::Map(entries) => Some(
                entries
                    .iter()
                    .map(|(name, written)| (name.clone(), written.clone().inside(is_secret)))
                    .collect(),
            ),
            Shape::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Shape::Text(text) => {
                let entries = text.split(',').map(|entry| self.entry(entry, is_secret));
                entries.collect()
            }
            Shape::Null | Shape::Plain(_) | Shape::List(_) => None,
        }
    }

    fn entry(&self, text: &str, is_secret: bool) -> Option<(String, Self)> {
        // The last `=`: a value never holds one, a name may.
        let (name, value) = text.rsplit_once('=')?;
        Some((name.trim().to_owned(), self.part(value, is_secret)))
    }

    /// Parts of this value's text, with this value's origin.
    pub(in crate::config) fn parts(
        &self,
        texts: impl Iterator<Item = impl AsRef<str>>,
    ) -> Vec<Self> {
        let is_secret = self.may_hold_a_secret();
        texts
            .map(|text| self.part(text.as_ref(), is_secret))
            .collect()
    }

    fn part(&self, text: &str, is_part_of_secret: bool) -> Self {
        Self {
            shape: Shape::Text(text.trim().to_owned()),
            origin: self.origin.clone(),
            is_part_of_secret,
            hides: self.hides,
        }
    }

    /// This value as a part of one that may hold a secret or not.
    fn inside(self, is_part_of_secret: bool) -> Self {
        Self {
            is_part_of_secret,
            ..self
        }
    }

    /// Whether an error must not repeat it.
    pub(in crate::config) fn may_hold_a_secret(&self) -> bool {
        self.is_part_of_secret || self.shape.may_hold_a_secret(self.hides)
    }

    /// What an error says when something else is allowed.
    pub(in crate::config) fn wrong(&self, allowed: impl fmt::Display) -> Wrong {
        self.refuse(format_args!("got {self}; allowed: {allowed}"))
    }

    /// The same about a value that is never shown, whatever it looks like; unless nothing is in it that could be a secret.
    pub(in crate::config) fn wrong_secret(&self, allowed: impl fmt::Display) -> Wrong {
        let has_nothing = match &self.shape {
            Shape::Null => true,
            Shape::Plain(_) => false,
            Shape::Text(text) => text.trim().is_empty(),
            Shape::List(items) => items.is_empty(),
            Shape::Map(entries) => entries.is_empty(),
        };
        if has_nothing && !self.is_part_of_secret {
            return self.wrong(allowed);
        }
        self.refuse(format_args!("got {NOT_SHOWN}; allowed: {allowed}"))
    }

    /// What an error says when the value is one of a later version.
    pub(in crate::config) fn unavailable(&self, allowed: impl fmt::Display) -> Wrong {
        self.refuse(format_args!(
            "{self} is not available in this version; allowed: {allowed}"
        ))
    }

    /// An error in its own words.
    pub(in crate::config) fn refuse(&self, message: impl fmt::Display) -> Wrong {
        Wrong {
            origin: self.origin.clone(),
            below: None,
            message: message.to_string(),
        }
    }

    /// A whole number in a range.
    pub(in crate::config) fn number(
        &self,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Wrong> {
        let number = self.scalar().and_then(|text| text.trim().parse().ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.wrong(format_args!(
                    "a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A duration in a range, with its unit.
    pub(in crate::config) fn duration(
        &self,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<Duration, Wrong> {
        let allowed = format!(
            "a duration from {} to {}, such as 250ms, 15s or 1m30s",
            shown_duration(*range.start()),
            shown_duration(*range.end())
        );
        let text = self.scalar().unwrap_or_default().trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.refuse(format_args!(
                "got {self}, which has no unit: write {text}ms or {text}s; allowed: {allowed}"
            )));
        }
        humantime::parse_duration(text)
            .ok()
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| self.wrong(allowed))
    }
}

/// Shows the value as an error or a log may: without secrets, and not endlessly.
impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.may_hold_a_secret() {
            return f.write_str(NOT_SHOWN);
        }
        let shown = self.shape.shown();
        match shown.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => write!(f, "{}…", shown.get(..end).unwrap_or_default()),
            None => f.write_str(&shown),
        }
    }
}

// === impl Shape ===

impl Shape {
    fn may_hold_a_secret(&self, hides: Hides) -> bool {
        let may_item =
            |item: &RawValue| item.is_part_of_secret || item.shape.may_hold_a_secret(hides);
        match self {
            Self::Null => false,
            Self::Plain(text) | Self::Text(text) => hides(text),
            Self::List(items) => items.iter().any(may_item),
            Self::Map(entries) => entries
                .iter()
                .any(|(name, written)| hides(name) || may_item(written)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Plain(text) => text.clone(),
            Self::Text(text) => format!("{text:?}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.shape.shown()).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(name, written)| format!("{name}: {}", written.shape.shown()))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

// === impl Wrong ===

impl Wrong {
    /// The same, about a key below the one that was read.
    pub(in crate::config) fn below(self, name: &str) -> Self {
        Self {
            below: Some(name.to_owned()),
            ..self
        }
    }

    /// The problem, now that the key is known.
    pub(in crate::config) fn into_problem(self, key: &str) -> ConfigProblem {
        let key = match self.below {
            Some(name) => format!("{key}.{name}"),
            None => key.to_owned(),
        };
        ConfigProblem {
            origin: self.origin,
            key,
            message: self.message,
        }
    }
}

/// The duration as people write it: `1m30s`, and `24h` where `humantime` would say `1day`.
pub(in crate::config) fn shown_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut shown = String::new();
    for (unit, nanos) in UNITS {
        let count = rest / nanos;
        rest %= nanos;
        if count > 0 {
            shown.push_str(&format!("{count}{unit}"));
        }
    }
    if shown.is_empty() {
        "0s".to_owned()
    } else {
        shown
    }
}

/// The units of a duration, each with its nanoseconds.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_as_it_is_written() {
        for text in [
            "0s",
            "50ms",
            "1s500ms",
            "15s",
            "1m30s",
            "24h",
            "1h1m1s1ms1us1ns",
        ] {
            assert_eq!(
                shown_duration(humantime::parse_duration(text).unwrap()),
                text
            );
        }
    }
}
