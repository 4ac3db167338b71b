//! One instance of streamgate without its doors: a ledger, an outbox, and their background tasks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamgate::config::{InForce, Leases, OutageRule};
use streamgate::identity::{Kind, UserId};
use streamgate::ledger::{Ledger, Settings};
use streamgate::outbox::{Notice, Outbox, outbox};
use streamgate::session::Terms;
use streamgate::telemetry::Metrics;
use tokio_util::task::AbortOnDropHandle;

use super::notes::Notes;
use super::shared_store::SharedStore;
use super::witness::{Delay, Witness};

/// How long sessions count: so short that a history sees many leases end.
pub(super) const LEASES: Leases = Leases {
    request: Duration::from_secs(6),
    playback: Duration::from_secs(9),
};

/// The longest time that a call to the store is under way.
const DEADLINE: Duration = Duration::from_millis(300);

/// More sessions than any history has.
const ROOM_TO_HOLD: usize = 100_000;

/// What all instances have in common.
pub(super) struct Installation {
    pub(super) shared: Arc<SharedStore>,
    pub(super) notes: Arc<Mutex<Notes>>,
    pub(super) in_force: Arc<InForce>,
    pub(super) rule: OutageRule,
    pub(super) delays: Vec<Delay>,
}

/// One instance.
pub(super) struct Instance {
    pub(super) witness: Arc<Witness>,
    pub(super) ledger: Arc<Ledger>,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// Its background tasks.
    running: AbortOnDropHandle<()>,
}

/// What the store grants.
pub(super) fn terms() -> Terms {
    Terms::new(LEASES.playback, DEADLINE)
}

impl Installation {
    /// The instance of that number. Call it in the test's runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by the instance, and ends with it"
    )]
    pub(super) fn instance(&self, number: usize) -> Instance {
        let (shared, notes) = (Arc::clone(&self.shared), Arc::clone(&self.notes));
        let witness = Arc::new(Witness::new(number, shared, notes, self.delays.clone()));
        let metrics = Arc::new(Metrics::new());
        let settings = Settings {
            in_force: Arc::clone(&self.in_force),
            leases: LEASES,
            terms: terms(),
            outage: self.rule,
            room_to_hold: ROOM_TO_HOLD,
        };
        let store = Arc::<Witness>::clone(&witness);
        let clock = Arc::new(self.shared.clock());
        let ledger = Ledger::new(store, settings, clock, Arc::clone(&metrics));
        let ledger = Arc::new(ledger);
        let (outbox, delivery) = outbox(Arc::clone(&ledger), terms(), Arc::clone(&metrics));
        let background = Arc::clone(&ledger);
        let running = tokio::spawn(async move {
            tokio::join!(background.run_background(), delivery.run());
        });
        Instance {
            witness,
            ledger,
            outbox,
            metrics,
            running: AbortOnDropHandle::new(running),
        }
    }
}

impl Instance {
    /// Takes a notice.
    pub(super) fn submit(&self, user: &UserId, notice: Notice) {
        self.outbox.submit(user.clone(), notice);
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

/// How long a session of that kind counts.
pub(super) fn lease_of(kind: Kind) -> Duration {
    LEASES.of(kind)
}
