//! How the demo fails: with a sentence for the person who started it. No code distinguishes
//! failures, so there is one type.

use std::fmt::Display;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Prefixes an error with what was being done.
pub(crate) trait Doing<T> {
    /// `doing` completes "could not …".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("could not {}: {error}", doing())))
    }
}
