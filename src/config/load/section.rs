//! How a section declares its keys: each once, with everything about it.
//!
//! A section has a method `keys` that passes each of its keys, in the order of the documentation,
//! to a visitor, [`Keys`]. A [`Reader`] reads the value that is written, a list of [`KnownKey`]s
//! collects what the documentation says, a summary shows the value.

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
    /// Whether instances that count together need the same value.
    pub(in crate::config) is_shared: bool,
    /// Whether its value has an effect, so that the summary shows it.
    pub(in crate::config) is_shown: bool,
}

/// A visitor of all keys. It gets each key with the form and the place of its value.
pub(in crate::config) trait Keys {
    /// Visits one key. Returns whether its value can be used; few sections need to know.
    fn key<T>(&mut self, key: Key, form: Form<'_, T>, place: &mut T) -> bool;

    /// Visits a section that has no defaults and no key that is set.
    fn absent(&mut self, _section: &'static str) {}
}

/// Reads the written values into their places. A wrong value leaves its place unchanged.
pub(in crate::config) struct Reader<'a> {
    /// The values as they are written.
    pub(in crate::config) raw: &'a Raw,
    /// Where problems go.
    pub(in crate::config) report: &'a mut Report,
}

/// The facts about a key: its row in the documentation, and what the loader needs.
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
    /// A key that needs a restart, and that may differ between instances.
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

    /// The same key, which must be equal in instances that count together.
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
