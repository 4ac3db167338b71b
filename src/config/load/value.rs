//! One value as it was written, and where: a leaf of the raw configuration.
//!
//! A leaf takes any shape when the file is read. The section, which knows what is allowed, reports
//! what is wrong. So the error is the same for the file and the environment, and has the line.

use std::fmt;
use std::time::Duration;

use super::error::ConfigProblem;
use super::origin::Origin;
use super::redact::{Hides, NOT_SHOWN, may_hold_a_secret};

/// How many characters of a value an error repeats at most.
const SHOWN_CHARS: usize = 120;

/// One value and where it was written.
#[derive(Clone)]
pub(in crate::config) struct RawValue {
    /// The value.
    pub(in crate::config) shape: Shape,
    /// Where it was written.
    pub(in crate::config) origin: Origin,
    /// Whether it is a part of something that may hold a secret. Then it may be half of a password.
    is_part_of_secret: bool,
    /// Says whether its text may hold a secret.
    hides: Hides,
}

/// A value of any shape.
#[derive(Clone)]
pub(in crate::config) enum Shape {
    /// `null`, or no value.
    Null,
    /// `true`, `false` or a number, by its text.
    Plain(String),
    /// Text. All values of the environment are text.
    Text(String),
    /// A list.
    List(Vec<RawValue>),
    /// Keys and values, in their order.
    Map(Vec<(String, RawValue)>),
}

/// Why a value is refused.
pub(in crate::config) struct Wrong {
    origin: Origin,
    /// The part of the key below the one that was read, such as a plan's name.
    below: Option<String>,
    message: String,
}

// === impl RawValue ===

impl RawValue {
    /// A value, and where it was written.
    pub(in crate::config) fn new(shape: Shape, origin: Origin) -> Self {
        Self {
            shape,
            origin,
            is_part_of_secret: false,
            hides: may_hold_a_secret,
        }
    }

    /// The same value, with another rule for what may hold a secret.
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

    /// The text of a value that may be left out by `null` or an empty text. For a list or a map, it
    /// is a text that nobody accepts.
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

    /// The entries of a map; a text is `key=value` with commas, as in the environment. `hides` says
    /// which names may hold a secret.
    pub(in crate::config) fn entries(&self, hides: Hides) -> Option<Vec<(String, Self)>> {
        // This searches the whole map, so it must not be done again for each entry.
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
        // At the last `=`: a name may contain one, a value never does.
        let (name, value) = text.rsplit_once('=')?;
        Some((name.trim().to_owned(), self.part(value, is_secret)))
    }

    /// Parts of this value's text, with its origin.
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

    /// This value as a part of another, which may hold a secret or not.
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

    /// The error that shows the value and what is allowed instead.
    pub(in crate::config) fn wrong(&self, allowed: impl fmt::Display) -> Wrong {
        self.refuse(format_args!("got {self}; allowed: {allowed}"))
    }

    /// The same for a key whose values are secret: the error shows the value only if it is empty.
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

    /// The error for a value that only a later version takes.
    pub(in crate::config) fn unavailable(&self, allowed: impl fmt::Display) -> Wrong {
        self.refuse(format_args!(
            "{self} is not available in this version; allowed: {allowed}"
        ))
    }

    /// An error with its own message.
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

/// Shows the value in an error or a log: without secrets, and cut off if it is long.
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
    /// The same error, about a part of the key's value, such as an entry of a map.
    pub(in crate::config) fn below(self, name: &str) -> Self {
        Self {
            below: Some(name.to_owned()),
            ..self
        }
    }

    /// The problem with that key.
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
