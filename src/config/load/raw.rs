//! The configuration as written: a value for each key that is set, in the file or the environment.

use std::collections::BTreeMap;

use super::section::KnownKey;
use super::value::RawValue;

/// What is written, by key.
pub(in crate::config) struct Raw {
    /// Every key there is, in the order of the documentation.
    known: Vec<KnownKey>,
    /// The values of the keys that are set, by their full names.
    values: BTreeMap<&'static str, RawValue>,
}

impl Raw {
    /// Nothing written yet, for any of these keys.
    pub(in crate::config) fn new(known: Vec<KnownKey>) -> Self {
        Self {
            known,
            values: BTreeMap::new(),
        }
    }

    /// Every key there is.
    pub(in crate::config) fn known(&self) -> &[KnownKey] {
        &self.known
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
