//! The instances, each with a way of its own to the store that all share, and the trouble that each
//! of them has.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use streamgate::clock::{SystemClock, Timestamp};
use streamgate::config::{self, Changeable, FullRule, InForce, Leases, OutageRule};
use streamgate::ledger::Settings;
use streamgate::policy::Policy;
use streamgate::session::Terms;
use streamgate::store::MemoryStore;
use streamgate::store::faulty::{Fault, FaultyStore};
use tokio_util::sync::CancellationToken;

use super::truth::{INTERVAL, SETTLE};
use crate::rule::instance::Instance;

/// The leases that instances are started with. They differ while settings are rolled out.
const LEASES: [u64; 3] = [9, 15, 30];

/// The longest of them.
pub(super) const LONGEST_LEASE: Duration = Duration::from_secs(30);

/// The deadline of a call to the store.
const DEADLINE: Duration = Duration::from_millis(50);

/// More sessions than there ever are.
const ROOM_TO_HOLD: usize = 100_000;

/// One run of one instance: its number, and how often it had been started before.
pub(super) type Place = (usize, usize);

/// What the store grants, and all instances say that it may.
pub(super) fn terms() -> Terms {
    Terms::new(LONGEST_LEASE, DEADLINE)
}

/// An instance and its way to the store.
pub(super) struct Gateway {
    /// Its number, and how often it was started.
    pub(super) place: Place,
    pub(super) instance: Arc<Instance>,
    /// Its way to the store.
    pub(super) store: Arc<FaultyStore>,
    /// Cancelled when it is killed, so that nobody waits for its answers.
    pub(super) killed: CancellationToken,
    pub(super) in_force: Arc<InForce>,
    pub(super) rule: OutageRule,
    pub(super) lease: Duration,
    pub(super) trouble: Trouble,
}

/// When an instance's calls have failed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trouble {
    /// Whether some fail now.
    pub(super) is_on: bool,
    /// Since when, pauses in which no lease can have been renewed included.
    pub(super) since: Timestamp,
    /// Since when none has failed.
    pub(super) clear: Timestamp,
    /// When one may last have taken place later than the instance knows.
    pub(super) acted_late: Option<Timestamp>,
}

/// The limits that change while instances run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) limit: u32,
    pub(super) when_full: FullRule,
    grace: Duration,
}

impl Limits {
    /// Some limits.
    pub(super) fn any(rng: &mut StdRng) -> Self {
        Self {
            limit: rng.random_range(1..=3),
            when_full: match rng.random_range(0..4) {
                0 => FullRule::DisplaceOldest,
                1 => FullRule::DisplaceIdlest,
                _ => FullRule::Refuse,
            },
            grace: Duration::from_millis([0, 250][rng.random_range(0..2)]),
        }
    }

    /// The settings with these limits.
    pub(super) fn changeable(self) -> Changeable {
        Changeable {
            limits: config::Limits {
                policy: Policy::new(self.limit),
                when_full: self.when_full,
                grace: self.grace,
                ..config::Limits::default()
            },
            ..Changeable::default()
        }
    }
}

impl Gateway {
    /// Starts that run of an instance, with settings of its own.
    pub(super) fn start(
        place: Place,
        (shared, clock): (&Arc<MemoryStore>, &SystemClock),
        limits: Limits,
        (rule, lease): (OutageRule, Duration),
    ) -> Self {
        let store = FaultyStore::before(Arc::clone(shared));
        let in_force = Arc::new(InForce::new(limits.changeable()));
        let settings = Settings {
            in_force: Arc::clone(&in_force),
            leases: Leases {
                request: lease,
                playback: lease,
            },
            terms: terms(),
            outage: rule,
            room_to_hold: ROOM_TO_HOLD,
        };
        let below = Arc::<FaultyStore>::clone(&store);
        let instance = Instance::start(below, settings, Arc::new(clock.clone()));
        Self {
            place,
            instance: Arc::new(instance),
            store,
            killed: CancellationToken::new(),
            in_force,
            rule,
            lease,
            trouble: Trouble::default(),
        }
    }

    /// From now on its calls fare like that. Those that are only slow are no trouble.
    pub(super) fn fares(&mut self, fault: &Fault, now: Timestamp) {
        let fails = !matches!(fault, Fault::None | Fault::Takes(_) | Fault::AnswersLate(_));
        if fails && !self.trouble.is_on {
            // Until then some lease may not have been renewed since the trouble before.
            let is_over = self.trouble.clear.after(self.lease / 3).after(INTERVAL * 2);
            if now >= is_over.after(SETTLE) {
                self.trouble.since = now;
            }
        }
        if self.trouble.is_on && !fails {
            self.trouble.clear = now;
        }
        if Self::acts_late(fault) {
            self.trouble.acted_late = Some(Timestamp::from_millis(u64::MAX));
        } else if self.trouble.acted_late > Some(now) {
            self.trouble.acted_late = Some(now);
        }
        self.trouble.is_on = fails;
        self.store.fails(fault);
    }

    /// Whether calls take place after they are said to have timed out.
    fn acts_late(fault: &Fault) -> bool {
        match fault {
            Fault::ActsLate(_) => true,
            Fault::Every(_, fault) => Self::acts_late(fault),
            _ => false,
        }
    }

    /// Whether its calls fail, or have until so recently that it may not have noticed.
    pub(super) fn has_trouble(&self, now: Timestamp) -> bool {
        self.trouble.is_on || now < self.trouble.clear.after(SETTLE)
    }

    /// Whether the trouble is shorter than two thirds of a lease, so that nobody who watches may
    /// notice. The last renewal before it was as long ago as a request is apart from the next.
    pub(super) fn is_short(&self, now: Timestamp) -> bool {
        let unnoticed = (self.lease * 2 / 3).saturating_sub(INTERVAL + INTERVAL);
        now < self.trouble.since.after(unnoticed)
    }
}

/// What an instance is started with: an outage rule and a lease.
pub(super) fn any_settings(rng: &mut StdRng) -> (OutageRule, Duration) {
    let rules = [OutageRule::Allow, OutageRule::Deny, OutageRule::Local];
    let lease = LEASES[rng.random_range(0..LEASES.len())];
    (rules[rng.random_range(0..3)], Duration::from_secs(lease))
}
