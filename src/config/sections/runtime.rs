//! How many threads serve.

use std::num::NonZeroUsize;

use crate::config::load::form::number;
use crate::config::load::section::{Key, Keys};

/// What runs the instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runtime {
    /// `runtime.workers`: how many threads answer requests; 0 for one per core.
    pub workers: u32,
}

/// More threads than cores only wait for each other.
const MAX_WORKERS: u32 = 256;

impl Runtime {
    /// Declares the keys of `runtime`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "runtime.workers",
                "How many threads answer requests. `0`: one for each core that the process may use.",
            ),
            number(0..=MAX_WORKERS),
            &mut self.workers,
        );
    }

    /// The number of threads, if it is set.
    #[must_use]
    pub fn threads(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(usize::try_from(self.workers).ok()?)
    }
}
