//! What takes back the start of a call that nobody waits for any more.

use std::sync::Arc;

use super::Answer;
use crate::ledger::UndoHint;
use crate::outbox::{Notice, Outbox};
use crate::session::{SessionKey, Ticket, UserId};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Verdict;

/// What a call may have left in the store, until its answer goes out.
#[derive(Debug)]
#[must_use]
pub(in crate::envoy) struct Grant {
    /// Whose start it is.
    pub(in crate::envoy) user: UserId,
    /// The session that may have started.
    pub(in crate::envoy) key: SessionKey,
    /// Whether nothing but this call's request plays under it.
    pub(in crate::envoy) is_alone: bool,
    /// What may have to be taken back.
    pub(in crate::envoy) hold: Hold,
    /// Takes it back.
    pub(in crate::envoy) outbox: Outbox,
    /// Counts the calls that nobody waited for.
    pub(in crate::envoy) metrics: Arc<Metrics>,
}

/// What a call may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::envoy) enum Hold {
    /// Nothing that is to be taken back.
    Nothing,
    /// A session that it started.
    Started(Ticket),
    /// Perhaps a session: the store's answer did not come, and so the start is not allowed.
    Doubtful(Ticket),
    /// Nothing any more: the answer went out.
    Answered,
}

impl Grant {
    /// Notes what the answer leaves behind. The start of a playback that others may know is never taken back: its other requests count
    /// on it.
    pub(in crate::envoy) fn hold(&mut self, answer: &Answer) {
        self.hold = match answer {
            Ok(decision) => match decision.undo {
                UndoHint::Started(ticket) if self.is_alone => Hold::Started(ticket),
                UndoHint::Started(_) | UndoHint::Nothing => Hold::Nothing,
                UndoHint::Doubtful(ticket) => Hold::Doubtful(ticket),
            },
            Err(outage) => outage.doubtful.map_or(Hold::Nothing, Hold::Doubtful),
        };
    }

    /// The answer goes out: from now on Envoy's access log tells of the stream's end. A doubtful start was not allowed, and has none.
    pub(in crate::envoy) fn answered(mut self) {
        if let Hold::Doubtful(ticket) = self.hold {
            self.take_back(ticket);
        }
        self.hold = Hold::Answered;
    }

    /// Has this call's start undone, should it have taken place and nobody have renewed it since.
    fn take_back(&self, ticket: Ticket) {
        self.outbox
            .submit(self.user.clone(), Notice::Undo(self.key.clone(), ticket));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        match self.hold {
            Hold::Answered => return,
            Hold::Nothing => {}
            Hold::Started(ticket) | Hold::Doubtful(ticket) => self.take_back(ticket),
        }
        self.metrics.check(Verdict::Cancelled);
    }
}
