//! The forms of values: how each is read, shown and documented.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::redact::Hides;
use super::value::{RawValue, Shape, Wrong, shown_duration};

/// Reads a value.
type Read<'a, T> = Box<dyn Fn(&RawValue) -> Result<T, Wrong> + 'a>;

/// The form of a key's values.
pub(in crate::config) struct Form<'a, T> {
    read: Read<'a, T>,
    show: Box<dyn Fn(&T) -> Rendered + 'a>,
    /// The whole value with its secrets, to detect a change.
    expose: Option<fn(&T) -> String>,
    /// The values that the key takes, for the documentation.
    pub(super) values: String,
    /// The words that a value consists of or begins with.
    pub(super) words: Vec<&'static str>,
    /// For a map: which names of entries may hold a secret.
    pub(super) entries: Option<Hides>,
}

/// A value as YAML, without secrets.
pub(in crate::config) enum Rendered {
    /// In one line.
    Line(String),
    /// Names, not yet quoted, and values, each in a line of its own.
    Map(Vec<(String, String)>),
}

/// The words that a key takes, and what each means.
pub(in crate::config) struct Words<T: 'static> {
    /// The words.
    pub(in crate::config) known: &'static [(&'static str, T)],
}

// === impl Form ===

impl<'a, T> Form<'a, T> {
    /// A form of values that fit into one line.
    pub(in crate::config) fn new(
        values: impl Into<String>,
        read: impl Fn(&RawValue) -> Result<T, Wrong> + 'a,
        show: impl Fn(&T) -> String + 'a,
    ) -> Self {
        Self {
            read: Box::new(read),
            show: Box::new(move |value| Rendered::Line(show(value))),
            expose: None,
            values: values.into(),
            words: Vec::new(),
            entries: None,
        }
    }

    /// A form of maps; `hides` says which names of entries may hold a secret.
    pub(in crate::config) fn map(
        values: impl Into<String>,
        hides: Hides,
        read: impl Fn(&RawValue) -> Result<T, Wrong> + 'a,
        show: impl Fn(&T) -> Vec<(String, String)> + 'a,
    ) -> Self {
        Self {
            show: Box::new(move |value| Rendered::Map(show(value))),
            entries: Some(hides),
            ..Self::new(values, read, |_| String::new())
        }
    }

    /// The same form, whose values consist of these words or begin with them.
    pub(in crate::config) fn of_words(self, words: Vec<&'static str>) -> Self {
        Self { words, ..self }
    }

    /// The same form, whose values may hold a secret, and so are neither shown nor logged.
    pub(in crate::config) fn secret(self, expose: fn(&T) -> String) -> Self {
        Self {
            expose: Some(expose),
            ..self
        }
    }

    /// Reads a value.
    pub(in crate::config) fn read(&self, written: &RawValue) -> Result<T, Wrong> {
        (self.read)(written)
    }

    /// Shows a value as YAML, without secrets.
    pub(in crate::config) fn show(&self, value: &T) -> Rendered {
        (self.show)(value)
    }

    /// The whole value, if it may hold a secret. For comparison only.
    pub(in crate::config) fn exposed(&self, value: &T) -> Option<String> {
        self.expose.map(|expose| expose(value))
    }
}

/// Durations in a range.
pub(in crate::config) fn duration(range: RangeInclusive<Duration>) -> Form<'static, Duration> {
    let ends = (shown_duration(*range.start()), shown_duration(*range.end()));
    Form::new(
        format!("`{}` to `{}`", ends.0, ends.1),
        move |written| written.duration(range.clone()),
        |value| shown_duration(*value),
    )
}

/// Whole numbers in a range.
pub(in crate::config) fn number(range: RangeInclusive<u32>) -> Form<'static, u32> {
    Form::new(
        format!("{} to {}", range.start(), range.end()),
        move |written| written.number(range.clone()),
        u32::to_string,
    )
}

/// Paths of files, as `read` finds them by [`path`].
pub(in crate::config) fn file<'a>(
    read: impl Fn(&RawValue) -> Result<Option<PathBuf>, Wrong> + 'a,
) -> Form<'a, Option<PathBuf>> {
    Form::new("a path, or `null`", read, |path| {
        or_null(path.as_ref().map(|path| path.display()))
    })
}

/// The value is no path.
pub(in crate::config) struct NotAPath;

/// The path of a file; none if the value is `null` or empty. So an empty variable can unset the key
/// of the file.
pub(in crate::config) fn path(written: &RawValue) -> Result<Option<PathBuf>, NotAPath> {
    let text = match &written.shape {
        Shape::Null => return Ok(None),
        Shape::Text(text) if text.is_empty() => return Ok(None),
        Shape::Text(text) => text,
        Shape::Plain(_) | Shape::List(_) | Shape::Map(_) => return Err(NotAPath),
    };
    // Somebody may have written the private key itself here, which must not appear in a log.
    let is_path = !text.contains(char::is_control) && !text.contains("-----");
    is_path.then(|| Some(text.into())).ok_or(NotAPath)
}

// === impl Words ===

impl<T: Copy + PartialEq> Words<T> {
    /// The form of one of these words.
    pub(in crate::config) fn form(&self) -> Form<'_, T> {
        let read = |written: &RawValue| self.read(written);
        Form::new(self.documented(), read, |value| {
            self.word(*value).to_owned()
        })
        .of_words(self.words().collect())
    }

    /// Reads one of the words.
    pub(in crate::config) fn read(&self, written: &RawValue) -> Result<T, Wrong> {
        let text = written.scalar().unwrap_or_default();
        match self.known.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => Err(written.wrong(self.list())),
        }
    }

    /// The word for a meaning.
    pub(in crate::config) fn word(&self, meaning: T) -> &'static str {
        let known = self.known.iter().find(|(_, known)| *known == meaning);
        known.map_or("", |(word, _)| word)
    }

    /// All words.
    pub(in crate::config) fn words(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().map(|(word, _)| *word)
    }

    /// All words as a list, for an error.
    pub(in crate::config) fn list(&self) -> String {
        self.words().collect::<Vec<_>>().join(", ")
    }

    /// All words as a list, for the documentation.
    pub(in crate::config) fn documented(&self) -> String {
        let words: Vec<_> = self.words().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    }
}

// === YAML ===

impl Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => f.write_str(line),
            Self::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(name, value)| format!("{}: {value}", quoted(name)));
                write!(f, "{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The text, or `null`.
pub(in crate::config) fn or_null(text: Option<impl Display>) -> String {
    text.map_or_else(|| "null".to_owned(), |text| quoted(&text))
}

/// A list of texts.
pub(in crate::config) fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| quoted(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// The text, with quotes if YAML would misread it without them.
pub(in crate::config) fn quoted(value: &(impl Display + ?Sized)) -> String {
    let text = value.to_string();
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&&*text.to_ascii_lowercase());
    // Every JSON string is a YAML string.
    if is_plain {
        text
    } else {
        serde_json::Value::from(text).to_string()
    }
}
