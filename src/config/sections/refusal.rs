//! What a refusal tells: of the sessions that hold the slots, and where problems are explained.

use std::collections::BTreeSet;

use ::http::Uri;
use serde::Deserialize;

use crate::config::load::error::Report;
use crate::config::load::redact::is_more_than_a_page;
use crate::config::load::value::{Written, Wrong};
use crate::config::load::words::Words;
use crate::config::load::yaml::Slot;

/// `refusal`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawRefusal {
    show: Option<Written>,
    problems: Option<Written>,
}

/// What a refusal tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `refusal.show`; empty tells only the numbers.
    pub show: BTreeSet<Shown>,
    /// `refusal.problems`: where clients find the guide to problems; on this instance if it isn't set.
    pub problems: Option<String>,
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
pub(in crate::config) const SHOWN: Words<Shown> = Words {
    known: &[
        ("session", Shown::Session),
        ("device", Shown::Device),
        ("content", Shown::Content),
        ("started_at", Shown::StartedAt),
    ],
    later: &[],
};

impl RawRefusal {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("refusal.show", &mut self.show),
            ("refusal.problems", &mut self.problems),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Refusal {
        let default = Refusal::default();
        Refusal {
            show: report.read("refusal.show", self.show.as_ref(), default.show, show),
            problems: report.read(
                "refusal.problems",
                self.problems.as_ref(),
                default.problems,
                problems,
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

fn problems(written: &Written) -> Result<Option<String>, Wrong> {
    let Some(text) = written.optional() else {
        return Ok(None);
    };
    let uri = text.parse::<Uri>().ok();
    let is_web = uri.is_some_and(|uri| {
        let host = uri.authority().map_or("@", |authority| authority.as_str());
        matches!(uri.scheme_str(), Some("http" | "https")) && !host.contains('@')
    });
    if is_web && !text.contains('#') {
        Ok(Some(text.to_owned()))
    } else {
        Err(written.hiding(is_more_than_a_page).wrong(
            "an http:// or https:// address without #, such as https://api.example.com/v1/problems",
        ))
    }
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            show: SHOWN.known.iter().map(|(_, shown)| *shown).collect(),
            problems: None,
        }
    }
}
