//! How a section declares its keys: each once, with all that is known about it.
//!
//! A section has a method `keys` that passes each of its keys, in the order of the documentation,
//! to some [`Keys`]. What these do with it differs: a [`Reader`] reads the value that is written, a
//! list of [`KnownKey`]s collects what the documentation says, a summary shows the value.

use super::error::Report;
use super::form::Form;
use super::raw::Raw;
use super::redact::Hides;

/// A key of the configuration, apart from its value.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Key {
    /// Its full name: the names of its sections and its own, joined by dots.
    pub(in crate::config) name: &'static str,
    /// What it means, for the documentation: plain sentences in Markdown, without `|`.
    pub(in crate::config) about: &'static str,
    /// Whether a new value applies while the process runs; otherwise after a restart.
    pub(in crate::config) is_live: bool,
    /// Whether instances that count together should have the same value.
    pub(in crate::config) is_shared: bool,
    /// Whether its value has an effect, so that the summary shows it.
    pub(in crate::config) is_shown: bool,
}

/// What passes over all keys: each with the form of its values, and with the place of its value.
pub(in crate::config) trait Keys {
    /// Passes one key. The answer is whether its value can be used; no other key depends on that
    /// unless its section says so.
    fn key<T>(&mut self, key: Key, form: Form<'_, T>, place: &mut T) -> bool;

    /// Passes a section of which no key is set, and which has no defaults.
    fn absent(&mut self, _section: &'static str) {}
}

/// Reads what is written into the places of the keys' values; what is wrong leaves them as they are.
pub(in crate::config) struct Reader<'a> {
    /// What is written.
    pub(in crate::config) raw: &'a Raw,
    /// Where problems go.
    pub(in crate::config) report: &'a mut Report,
}

/// What is known about a key: its row in the documentation, and what the loader must know.
#[derive(Debug)]
pub(in crate::config) struct KnownKey {
    /// The key.
    pub(in crate::config) key: Key,
    /// Its default, as YAML.
    pub(in crate::config) default: String,
    /// The values that it takes, for the documentation.
    pub(in crate::config) values: String,
    /// The words that its value consists of or begins with; none where it takes any text or number.
    pub(in crate::config) words: Vec<&'static str>,
    /// For a map, whose entries have variables of their own: which names may hold a secret.
    pub(in crate::config) entries: Option<Hides>,
    /// Whether its value may hold a secret, such as a password.
    pub(in crate::config) is_secret: bool,
}

// === impl Key ===

impl Key {
    /// A key that needs a restart, and that each instance may have as it likes.
    pub(in crate::config) const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            is_live: false,
            is_shared: false,
            is_shown: true,
        }
    }

    /// The same key, whose new values apply while the process runs.
    pub(in crate::config) const fn live(self) -> Self {
        Self {
            is_live: true,
            ..self
        }
    }

    /// The same key, which instances that count together should have alike.
    pub(in crate::config) const fn shared(self) -> Self {
        Self {
            is_shared: true,
            ..self
        }
    }

    /// The same key, which has an effect only on this condition.
    pub(in crate::config) const fn shown_if(self, is_shown: bool) -> Self {
        Self { is_shown, ..self }
    }
}

// === impl Keys ===

impl Keys for Reader<'_> {
    fn key<T>(&mut self, key: Key, form: Form<'_, T>, place: &mut T) -> bool {
        match self.raw.get(key.name).map(|written| form.read(written)) {
            None => true,
            Some(Ok(value)) => {
                *place = value;
                true
            }
            Some(Err(wrong)) => {
                self.report.add(wrong.into_problem(key.name));
                false
            }
        }
    }
}

impl Keys for Vec<KnownKey> {
    fn key<T>(&mut self, key: Key, form: Form<'_, T>, place: &mut T) -> bool {
        self.push(KnownKey {
            key,
            default: form.show(place).to_string(),
            is_secret: form.exposed(place).is_some(),
            values: form.values,
            words: form.words,
            entries: form.entries,
        });
        true
    }
}
