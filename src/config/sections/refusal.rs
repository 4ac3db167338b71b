//! What a refusal says about other sessions, and where clients find the guide to problems.

use std::collections::BTreeSet;

use ::http::Uri;

use crate::config::load::form::{Form, Words, list, or_null};
use crate::config::load::redact::is_more_than_a_page;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};

/// What a refusal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalSettings {
    /// `refusal.show`: empty gives only the numbers.
    pub show: BTreeSet<Shown>,
    /// `refusal.problems`: where clients find the guide to problems; if unset, on this instance.
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
};

impl RefusalSettings {
    /// Declares the keys of `refusal`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        let words = |shown: &BTreeSet<Shown>| list(shown.iter().map(|shown| SHOWN.word(*shown)));
        keys.key(
            Key::new(
                "refusal.show",
                "What a refusal says about other sessions: about those that hold the slots and, with \
                 `session`, about the one that took over. `[]` gives only the numbers. The log, which is \
                 yours, always names the holders.",
            )
            .live(),
            Form::new(format!("a list of {}", SHOWN.documented()), show, words)
                .of_words(SHOWN.words().collect()),
            &mut self.show,
        );
        keys.key(
            Key::new(
                "refusal.problems",
                "Where clients find [the guide to problems][guide]; each problem's `type` begins with it. \
                 Unset, it is `/v1/problems`, which every instance and the shipped gateway serve.",
            )
            .live(),
            Form::new("an `http(s)://` address without `#`, or `null`", problems, |page| {
                or_null(page.as_ref())
            }),
            &mut self.problems,
        );
    }
}

fn show(written: &RawValue) -> Result<BTreeSet<Shown>, Wrong> {
    let items = written
        .items()
        .ok_or_else(|| written.wrong(format_args!("a list of {}", SHOWN.list())))?;
    items.iter().map(|item| SHOWN.read(item)).collect()
}

fn problems(written: &RawValue) -> Result<Option<String>, Wrong> {
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

impl Default for RefusalSettings {
    fn default() -> Self {
        Self {
            show: SHOWN.known.iter().map(|(_, shown)| *shown).collect(),
            problems: None,
        }
    }
}
