//! Undoes a start that nobody waits for any more, or that was not allowed.

use std::sync::Arc;

use super::outcome::LedgerAnswer;
use crate::identity::Claim;
use crate::ledger::UndoHint;
use crate::outbox::{Notice, Outbox};
use crate::session::{Ending, Ticket};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Verdict;

/// Undoes a call's start if it is dropped before the answer goes out.
#[derive(Debug)]
#[must_use]
pub(crate) struct StartRollback {
    /// The call's claim.
    claim: Arc<Claim>,
    /// What may have to be undone.
    undo: UndoHint,
    /// Whether the answer went out.
    is_answered: bool,
    /// Delivers the undo.
    outbox: Outbox,
    /// Counts the calls that were abandoned.
    metrics: Arc<Metrics>,
}

impl StartRollback {
    /// The rollback of that answer to the claim. `is_alone` says that only this call's request
    /// plays under the session. The start of a playback that others may know is never undone,
    /// because its other requests rely on it.
    pub(crate) fn of(
        answer: &LedgerAnswer,
        claim: Arc<Claim>,
        is_alone: bool,
        outbox: Outbox,
        metrics: Arc<Metrics>,
    ) -> Self {
        let undo = match answer {
            Ok(decision) => match decision.undo {
                UndoHint::Started(_) if !is_alone => UndoHint::Nothing,
                undo => undo,
            },
            Err(outage) => outage
                .doubtful
                .map_or(UndoHint::Nothing, UndoHint::Doubtful),
        };
        Self {
            claim,
            undo,
            is_answered: false,
            outbox,
            metrics,
        }
    }

    /// Records that the answer goes out: from now on somebody else reports the stream's end. A
    /// doubtful start was not allowed, so it is undone.
    pub(crate) fn answered(mut self) {
        if let UndoHint::Doubtful(ticket) = self.undo {
            self.undo_start(ticket);
        }
        self.is_answered = true;
    }

    /// Undoes this call's start, if it took place and nobody has renewed it since.
    fn undo_start(&self, ticket: Ticket) {
        let notice = Notice::Release(self.claim.key.clone(), Ending::Undone(ticket));
        self.outbox.submit(self.claim.user.clone(), notice);
    }
}

impl Drop for StartRollback {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        match self.undo {
            UndoHint::Nothing => {}
            UndoHint::Started(ticket) | UndoHint::Doubtful(ticket) => self.undo_start(ticket),
        }
        self.metrics.check(Verdict::Cancelled, None);
    }
}
