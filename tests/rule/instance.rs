//! One instance of streamgate without its doors: a ledger, an outbox, and their background tasks.

use std::sync::Arc;

use streamgate::clock::Clock;
use streamgate::identity::{Claim, Kind, UserId};
use streamgate::ledger::{Decision, Ledger, Outage, Settings, UndoHint};
use streamgate::outbox::{Notice, Outbox, outbox};
use streamgate::session::{Admission, Ending};
use streamgate::store::Store;
use streamgate::telemetry::Metrics;
use tokio_util::task::AbortOnDropHandle;

/// A ledger and an outbox that run. They end when it is dropped, as in a process that is killed.
pub(super) struct Instance {
    pub(super) ledger: Arc<Ledger>,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// Its background tasks.
    running: AbortOnDropHandle<()>,
}

/// What a door has made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consequence {
    /// Whether the stream may play.
    pub(super) plays: bool,
    /// Whether a start was taken back.
    pub(super) taken_back: bool,
}

impl Instance {
    /// Starts one in front of that store. Call it in the test's runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by the instance, and ends with it"
    )]
    pub(super) fn start(store: Arc<dyn Store>, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let terms = settings.terms;
        let ledger = Ledger::new(store, settings, clock, Arc::clone(&metrics));
        let ledger = Arc::new(ledger);
        let (outbox, delivery) = outbox(Arc::clone(&ledger), terms, Arc::clone(&metrics));
        let background = Arc::clone(&ledger);
        let running = tokio::spawn(async move {
            tokio::join!(background.run_background(), delivery.run());
        });
        Self {
            ledger,
            outbox,
            metrics,
            running: AbortOnDropHandle::new(running),
        }
    }

    /// Takes a notice.
    pub(super) fn submit(&self, user: &UserId, notice: Notice) {
        self.outbox.submit(user.clone(), notice);
    }

    /// Does what a door does once the ledger has answered: it takes a start back that the stream
    /// doesn't have, or whose caller has left, and reports that a playback plays if it does.
    pub(super) fn conclude(
        &self,
        claim: &Claim,
        answer: &Result<Decision, Outage>,
        has_left: bool,
        plays_at_once: bool,
    ) -> Consequence {
        let undo = match answer {
            Ok(decision) => decision.undo,
            Err(outage) => outage
                .doubtful
                .map_or(UndoHint::Nothing, UndoHint::Doubtful),
        };
        let has_left = has_left && claim.key.kind == Kind::Request;
        let taken_back = match undo {
            UndoHint::Doubtful(ticket) => Some(ticket),
            UndoHint::Started(ticket) if has_left => Some(ticket),
            UndoHint::Started(_) | UndoHint::Nothing => None,
        };
        if let Some(ticket) = taken_back {
            let ending = Ending::Undone(ticket);
            self.submit(&claim.user, Notice::Release(claim.key.clone(), ending));
        }
        let plays = match answer {
            Ok(decision) => matches!(decision.admission, Admission::Admitted(_)) && !has_left,
            Err(_) => false,
        };
        let is_playback = claim.key.kind == Kind::Playback;
        if plays && plays_at_once && is_playback && undo != UndoHint::Nothing {
            self.submit(&claim.user, Notice::Played(claim.key.clone()));
        }
        Consequence {
            plays,
            taken_back: taken_back.is_some(),
        }
    }

    /// By its metrics, how many sessions it holds, and how much it has yet to tell the store.
    pub(super) fn held_and_untold(&self) -> (usize, usize) {
        let [held, owed, pending] = self.gauges([
            "streamgate_sessions_held ",
            "streamgate_sessions_owed ",
            "streamgate_releaser_pending ",
        ]);
        (held, owed + pending)
    }

    /// By its metrics, how many sessions it has yet to tell the store.
    pub(super) fn untold_sessions(&self) -> usize {
        let [owed] = self.gauges(["streamgate_sessions_owed "]);
        owed
    }

    /// The metrics of these names.
    fn gauges<const N: usize>(&self, names: [&str; N]) -> [usize; N] {
        self.ledger.sweep();
        let text = self.metrics.render();
        names.map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).trim().parse().unwrap()
        })
    }

    /// Whether its background tasks still run.
    pub(super) fn runs(&self) -> bool {
        !self.running.is_finished()
    }
}
