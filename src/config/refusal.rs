//! What a refusal tells of the sessions that hold the slots.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::error::Report;
use super::raw::Slot;
use super::words::Words;
use super::written::{Written, Wrong};

/// `refusal`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRefusal {
    show: Option<Written>,
}

/// What a refusal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `refusal.show`; empty tells only the numbers.
    pub show: BTreeSet<Shown>,
}

/// A fact about a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// Its id.
    Session,
    /// The device it plays on.
    Device,
    /// What it plays.
    Content,
    /// When it began.
    StartedAt,
}

/// The words of `refusal.show`.
pub(super) const SHOWN: Words<Shown> = Words {
    known: &[
        ("session", Shown::Session),
        ("device", Shown::Device),
        ("content", Shown::Content),
        ("started_at", Shown::StartedAt),
    ],
    later: &[],
};

impl RawRefusal {
    pub(super) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![("refusal.show", &mut self.show)]
    }

    pub(super) fn check(&self, report: &mut Report) -> Refusal {
        Refusal {
            show: report.read(
                "refusal.show",
                self.show.as_ref(),
                Refusal::default().show,
                show,
            ),
        }
    }
}

fn show(written: &Written) -> Result<BTreeSet<Shown>, Wrong> {
    let items = written
        .items()
        .ok_or_else(|| written.wrong(format_args!("a list of {}", SHOWN.list())))?;
    items.iter().map(|item| SHOWN.read(item)).collect()
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            show: SHOWN.known.iter().map(|(_, shown)| *shown).collect(),
        }
    }
}
