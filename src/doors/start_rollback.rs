//! Undoes a start that nobody waits for any more, or that was not allowed.

use std::sync::Arc;

use super::outcome::LedgerAnswer;
use crate::identity::Claim;
use crate::ledger::UndoHint;
use crate::outbox::{Notice, Outbox};
use crate::session::Ticket;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Verdict;

/// What a call may have left in the store, until its answer goes out. Dropped before that, it undoes the start.
#[derive(Debug)]
#[must_use]
pub(crate) struct StartRollback {
    /// What the call asked for.
    claim: Arc<Claim>,
    /// What may have to be undone.
    undo: UndoHint,
    /// Whether the answer went out.
    is_answered: bool,
    /// Delivers the undo.
    outbox: Outbox,
    /// Counts the calls that nobody waited for.
    metrics: Arc<Metrics>,
}

impl StartRollback {
    /// What the answer to that claim leaves behind. `is_alone` says that nothing but this call's
    /// request plays under the session: the start of a playback that others may know is never
    /// undone, since its other requests count on it.
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

    /// The answer goes out: from now on somebody else reports the stream's end. A doubtful start was not allowed, so it is undone.
    pub(crate) fn answered(mut self) {
        if let UndoHint::Doubtful(ticket) = self.undo {
            self.undo_start(ticket);
        }
        self.is_answered = true;
    }

    /// Has this call's start undone, should it have taken place and nobody have renewed it since.
    fn undo_start(&self, ticket: Ticket) {
        let notice = Notice::Undo(self.claim.key.clone(), ticket);
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
