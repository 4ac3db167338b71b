//! A finding, and the pieces that repair it.

use serde::Serialize;

use super::node::At;

/// Something that is missing or dangerous.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct EnvoyFinding {
    /// The line where it is, or where it belongs.
    pub(super) line: u64,
    /// The path to it.
    pub(super) path: String,
    /// The check that found it.
    pub(super) check: &'static str,
    /// What is wrong, why that matters, and what to do.
    pub(super) told: String,
    /// The piece to paste, by its name in `envoy/fragments`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) piece: Option<&'static str>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<EnvoyFinding>);

impl Findings {
    /// Adds one at that place, which a piece repairs.
    pub(super) fn add(
        &mut self,
        at: &At<'_>,
        check: &'static str,
        piece: Option<&'static str>,
        told: impl Into<String>,
    ) {
        self.0.push(EnvoyFinding {
            line: at.line(),
            path: at.path().to_owned(),
            check,
            told: told.into(),
            piece,
        });
    }

    /// Adds one if something isn't as it should be.
    pub(super) fn need(
        &mut self,
        is_good: bool,
        at: &At<'_>,
        check: &'static str,
        piece: &'static str,
        told: &str,
    ) {
        if !is_good {
            self.add(at, check, Some(piece), told);
        }
    }
}
