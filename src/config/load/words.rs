//! Keys whose value is one of a few words.

use super::value::{Written, Wrong};

/// The words that a key takes, and what each means.
pub(in crate::config) struct Words<T: 'static> {
    /// What can be written now.
    pub(in crate::config) known: &'static [(&'static str, T)],
    /// What a later version will take: named, so that the error isn't mistaken for a typing error.
    pub(in crate::config) later: &'static [&'static str],
}

impl<T: Copy + PartialEq> Words<T> {
    /// The meaning of what is written.
    pub(in crate::config) fn read(&self, written: &Written) -> Result<T, Wrong> {
        let text = written.scalar().unwrap_or_default();
        match self.known.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None if self.later.contains(&text) => Err(written.unavailable(self.list())),
            None => Err(written.wrong(self.list())),
        }
    }

    /// The word for a meaning.
    pub(in crate::config) fn word(&self, meaning: T) -> &'static str {
        self.known
            .iter()
            .find(|(_, known)| *known == meaning)
            .map_or("", |(word, _)| word)
    }

    /// All words that can be written now.
    pub(in crate::config) fn list(&self) -> String {
        let words: Vec<_> = self.known.iter().map(|(word, _)| *word).collect();
        words.join(", ")
    }
}
