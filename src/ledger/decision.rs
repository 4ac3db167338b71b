//! The ledger's answers: a decision, or an outage.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attempt::{Mode, StartAttempt};
use super::calls;
use crate::config::OutageRule;
use crate::session::{Admission, AdmissionKind, Admitted, Refusal, Ticket};
use crate::store::StoreError;
use crate::telemetry::metrics::Outcome;

/// How long a caller can wait for an answer.
#[derive(Debug, Clone)]
pub struct CallerDeadline {
    /// What was left of its deadline when it called; `None` if it set none.
    pub deadline: Option<Duration>,
    /// Cancelled when the caller has gone.
    pub gone: CancellationToken,
}

impl CallerDeadline {
    /// A caller that waits indefinitely.
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
    /// Admitted or refused.
    pub admission: Admission,
    /// Whose decision it is.
    pub basis: Basis,
    /// The limit that applied.
    pub limit: u32,
    /// What this call may have left in the store.
    pub undo: UndoHint,
    /// How long the start waited for a slot to come free; not part of the decision's own duration.
    pub waited: Duration,
}

impl Decision {
    /// The store's decision, under the limit that applied there.
    pub(super) fn of_store(admission: Admission, attempt: &StartAttempt<'_>) -> Self {
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
        let limit = match &admission {
            Admission::Admitted(admitted) => admitted.limit_override,
            Admission::Refused(Refusal::Full { limit, .. }) if attempt.mode == Mode::Slot => {
                Some(*limit)
            }
            Admission::Refused(_) => None,
        };
        Self {
            admission,
            basis: Basis::Store,
            limit: limit.unwrap_or(attempt.limit),
            undo,
            waited: Duration::ZERO,
        }
    }

    /// Whether it started a session.
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

/// Where a decision comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The store decided.
    Store,
    /// A held lease: the store's earlier decision, still valid.
    HeldLease,
    /// The outage rule, while the store is down.
    Rule(OutageRule),
}

/// What a call may have left in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoHint {
    /// Nothing new.
    Nothing,
    /// A session that it started, with that ticket.
    Started(Ticket),
    /// Perhaps a session, although the start was not allowed: the start must be taken back.
    Doubtful(Ticket),
}

/// The store could not answer, and no outage rule decided instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to ask the store: {error}")]
pub struct Outage {
    /// Why.
    #[source]
    pub error: StoreError,
    /// The ticket of a start that may have taken place nevertheless; it must be taken back if it
    /// isn't allowed.
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
    /// The kind of failure, as a metric label.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        calls::outcome(Some(&self.error))
    }
}
