//! What all instances of a trial have in common.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamgate::config::{InForce, Leases, OutageRule};
use streamgate::identity::Kind;
use streamgate::ledger::Settings;
use streamgate::session::Terms;

use super::notes::Notes;
use super::shared_store::SharedStore;
use super::witness::{Delay, Witness};
use crate::rule::instance::Instance;

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

/// One instance, and what it has in place of the store.
pub(super) struct WatchedInstance {
    pub(super) witness: Arc<Witness>,
    pub(super) instance: Instance,
}

/// What the store grants.
pub(super) fn terms() -> Terms {
    Terms::new(LEASES.playback, DEADLINE)
}

impl Installation {
    /// The instance of that number. Call it in the test's runtime.
    pub(super) fn instance(&self, number: usize) -> WatchedInstance {
        let (shared, notes) = (Arc::clone(&self.shared), Arc::clone(&self.notes));
        let witness = Arc::new(Witness::new(number, shared, notes, self.delays.clone()));
        let settings = Settings {
            in_force: Arc::clone(&self.in_force),
            leases: LEASES,
            terms: terms(),
            outage: self.rule,
            room_to_hold: ROOM_TO_HOLD,
        };
        let store = Arc::<Witness>::clone(&witness);
        let clock = Arc::new(self.shared.clock());
        WatchedInstance {
            witness,
            instance: Instance::start(store, settings, clock),
        }
    }
}

/// How long a session of that kind counts.
pub(super) fn lease_of(kind: Kind) -> Duration {
    LEASES.of(kind)
}
