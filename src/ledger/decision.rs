//! What the ledger answers: a decision, or an outage.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attempt::StartAttempt;
use super::calls;
use crate::config::OutageRule;
use crate::session::{Admission, AdmissionKind, Admitted, Ticket};
use crate::store::StoreError;
use crate::telemetry::metrics::Outcome;

/// How long a caller can wait for an answer.
#[derive(Debug, Clone)]
pub struct CallerDeadline {
    /// What was left of its deadline when it asked; `None` if it set none.
    pub deadline: Option<Duration>,
    /// Cancelled when the caller has gone.
    pub gone: CancellationToken,
}

impl CallerDeadline {
    /// A caller that waits as long as it takes.
    #[must_use]
    pub fn endless() -> Self {
        Self {
            deadline: None,
            gone: CancellationToken::new(),
        }
    }
}

/// The answer to a claim.
#[derive(Debug)]
pub struct Decision {
    /// Let in, or not.
    pub admission: Admission,
    /// Who says so.
    pub basis: Basis,
    /// The limit that applied.
    pub limit: u32,
    /// What this call may have left in the store.
    pub undo: UndoHint,
    /// How long the start waited for a slot to come free; no part of the time that the decision took.
    pub waited: Duration,
}

impl Decision {
    /// What the store has decided.
    pub(super) const fn of_store(admission: Admission, attempt: &StartAttempt<'_>) -> Self {
        let undo = match (&admission, attempt.start.ticket) {
            (
                Admission::Admitted(Admitted {
                    entry: AdmissionKind::Started,
                    ..
                }),
                Some(ticket),
            ) => UndoHint::Started(ticket),
            _ => UndoHint::Nothing,
        };
        Self {
            admission,
            basis: Basis::Store,
            limit: attempt.limit,
            undo,
            waited: Duration::ZERO,
        }
    }

    /// Whether a session has started by it.
    pub(super) const fn is_start(&self) -> bool {
        matches!(
            self.admission,
            Admission::Admitted(Admitted {
                entry: AdmissionKind::Started,
                ..
            })
        )
    }

    /// Whether it is a refusal.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.admission, Admission::Refused(_))
    }
}

/// Whose word a decision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The store's.
    Store,
    /// The store's of a while ago, which still holds.
    HeldLease,
    /// That of the rule which decides while the store is out.
    Rule(OutageRule),
}

/// What a call may have left in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoHint {
    /// Nothing that wasn't there before.
    Nothing,
    /// A session that it started, with that mark.
    Started(Ticket),
    /// Perhaps a session, though the start was not allowed: it is to be taken back.
    Doubtful(Ticket),
}

/// The store could not answer, and it was not for a rule to decide.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to ask the store: {error}")]
pub struct Outage {
    /// Why.
    #[source]
    pub error: StoreError,
    /// The mark of a start that may have taken place all the same, and is to be taken back if it isn't allowed.
    pub doubtful: Option<Ticket>,
    /// How long the start waited for a slot before that.
    pub waited: Duration,
}

impl From<StoreError> for Outage {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            doubtful: None,
            waited: Duration::ZERO,
        }
    }
}

impl Outage {
    /// What kind of failure it is, as the metrics have it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        calls::outcome(Some(&self.error))
    }
}
