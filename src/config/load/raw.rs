//! The configuration as written: a value for each key that the file or the environment sets.

use std::collections::BTreeMap;

use super::renamed::RenamedKey;
use super::section::KnownKey;
use super::value::RawValue;

/// The values as they are written, by key.
pub(in crate::config) struct Raw {
    /// Every key there is, in the order of the documentation.
    known: Vec<KnownKey>,
    /// The keys that may still be written by an old name.
    renamed: &'static [RenamedKey],
    /// A warning for each old name that is used.
    warnings: Vec<String>,
    /// The values of the keys that are set, by their full names.
    values: BTreeMap<&'static str, RawValue>,
}

impl Raw {
    /// Nothing written yet, for any of these keys.
    pub(in crate::config) fn new(known: Vec<KnownKey>, renamed: &'static [RenamedKey]) -> Self {
        Self {
            known,
            renamed,
            warnings: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    /// Every key there is.
    pub(in crate::config) fn known(&self) -> &[KnownKey] {
        &self.known
    }

    /// The keys that may still be written by an old name.
    pub(super) fn renamed(&self) -> &'static [RenamedKey] {
        self.renamed
    }

    /// Every name that a file may have: each key's, and the old ones that still work.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let names = self.known.iter().map(|known| known.key.name);
        names.chain(self.renamed.iter().map(|renamed| renamed.old))
    }

    /// Whether the value of the key with that name, be it an old one, may hold a secret.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        let old = self.renamed.iter().find(|renamed| renamed.old == name);
        let name = old.map_or(name, |renamed| renamed.new);
        let mut known = self.known.iter();
        known.any(|known| known.is_secret && known.key.name == name)
    }

    /// A warning for each old name that is used.
    pub(in crate::config) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The value of a key, if it is set.
    pub(in crate::config) fn get(&self, name: &str) -> Option<&RawValue> {
        self.values.get(name)
    }

    /// Takes the value of a key out, if it is set.
    pub(super) fn take(&mut self, name: &str) -> Option<RawValue> {
        self.values.remove(name)
    }

    /// Sets the value of a key, in place of the one it had.
    pub(super) fn set(&mut self, name: &'static str, value: RawValue) {
        self.values.insert(name, value);
    }

    /// Forgets everything that is written.
    pub(super) fn clear(&mut self) {
        self.values.clear();
    }
}
