//! Plays a history, and judges what the instances answer meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use streamgate::clock::Timestamp;
use streamgate::config::{self, Changeable, InForce, OutageRule};
use streamgate::identity::{Claim, DeviceId, Facts, Kind, SessionKey, Takeover, UserId};
use streamgate::ledger::{CacheLookup, CallerDeadline, Decision, Outage, UndoHint};
use streamgate::outbox::Notice;
use streamgate::policy::Policy;
use streamgate::session::{Ending, Provenance, Sighting};
use tokio::task::JoinSet;

use super::history::{
    DERIVED, Door, History, INSTANCES, Limits, Manner, Report, ShardOutage, Step, TakeOver, USERS,
    Viewer,
};
use super::instance::{Installation, LEASES, WatchedInstance, lease_of, terms};
use super::judge::name_of;
use super::notes::Notes;
use super::shared_store::{Backend, SharedStore};
use crate::rule::instance::{Consequence, Instance};
use testkit::streams::user;

/// The pause between two requests of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the test knows of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// How many of its requests are under way.
    busy: usize,
    /// How it asks, if it was let in when it last did.
    pub(super) watching: Option<(Viewer, Manner)>,
    /// Whether anybody has ever ended it.
    pub(super) touched: bool,
    /// Since when it is over: its end was the last thing that happened to it, with no request under
    /// way.
    pub(super) over_since: Option<Timestamp>,
    /// Whether it had been let in when its end came, so that no older end keeps that one from being
    /// remembered for its full time.
    is_first_end: bool,
    /// Whether an end came while a request was under way, which may have been let in before.
    ended_while_busy: bool,
}

/// A history that is being played.
pub(super) struct Trial {
    pub(super) shared: Arc<SharedStore>,
    notes: Arc<Mutex<Notes>>,
    pub(super) instances: Vec<WatchedInstance>,
    in_force: Arc<InForce>,
    pub(super) rule: OutageRule,
    pub(super) users: Vec<UserId>,
    streams: Mutex<HashMap<(UserId, SessionKey), Stream>>,
    /// How many steps so far were [trouble](Step::is_trouble).
    troubles: AtomicUsize,
    /// How many outages there are now.
    pub(super) outages: AtomicUsize,
}

impl Trial {
    /// Nothing has happened yet. `number` makes the users' names unlike those of other trials.
    pub(super) fn new(history: &History, backend: &Backend<'_>, number: u32) -> Self {
        let shared = Arc::new(SharedStore::new(backend, terms()));
        let in_force = Arc::new(InForce::new(changeable(&history.limits)));
        let installation = Installation {
            shared: Arc::clone(&shared),
            notes: Arc::default(),
            in_force: Arc::clone(&in_force),
            rule: history.rule,
            delays: history.delays.clone(),
        };
        Self {
            shared,
            instances: (0..INSTANCES)
                .map(|number| installation.instance(number))
                .collect(),
            notes: installation.notes,
            in_force,
            rule: history.rule,
            users: (0..USERS)
                .map(|place| user(&format!("user {place} of {number}")))
                .collect(),
            streams: Mutex::default(),
            troubles: AtomicUsize::new(0),
            outages: AtomicUsize::new(0),
        }
    }

    /// Plays a history to its end: until all that it has begun is over.
    pub(super) async fn play(self: &Arc<Self>, history: &History) {
        let mut under_way = JoinSet::new();
        for (pause, step) in &history.steps {
            tokio::time::sleep(*pause).await;
            let (trial, step) = (Arc::clone(self), step.clone());
            self.look().await;
            if step.is_trouble() {
                self.troubles.fetch_add(1, Ordering::SeqCst);
            }
            if matches!(step, Step::Fail(_)) {
                self.outages.fetch_add(1, Ordering::SeqCst);
            }
            under_way.spawn(async move { trial.perform(step).await });
        }
        while let Some(done) = under_way.join_next().await {
            done.unwrap();
        }
    }

    /// All instances.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().map(|watched| &watched.instance)
    }

    /// The instance of that number.
    pub(super) fn instance(&self, number: usize) -> &Instance {
        &self.instances[number].instance
    }

    /// What all instances have heard.
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// Records a violation.
    pub(super) fn wrong(&self, what: String) {
        self.notes().wrong(what);
    }

    /// How many steps so far were [trouble](Step::is_trouble).
    pub(super) fn troubles(&self) -> usize {
        self.troubles.load(Ordering::SeqCst)
    }

    /// Whether none was.
    pub(super) fn is_calm(&self) -> bool {
        self.troubles() == 0
    }

    /// All streams.
    pub(super) fn streams(&self) -> MutexGuard<'_, HashMap<(UserId, SessionKey), Stream>> {
        self.streams.lock().unwrap()
    }

    /// Changes what is known of a stream.
    fn note(&self, viewer: &Viewer, change: impl FnOnce(&mut Stream)) {
        let name = (self.users[viewer.user].clone(), viewer.key.clone());
        change(self.streams().entry(name).or_default());
    }

    /// Does one thing.
    async fn perform(&self, step: Step) {
        self.notes().log(self.shared.now(), &format!("{step:?}"));
        match step {
            Step::Ask(viewer, manner) => {
                self.note(&viewer, |stream| {
                    stream.ended_while_busy &= stream.busy > 0;
                    (stream.busy, stream.over_since) = (stream.busy + 1, None);
                });
                for time in 0..manner.times {
                    if time > 0 {
                        tokio::time::sleep(INTERVAL).await;
                    }
                    if !self.ask(&viewer, &manner).await {
                        break;
                    }
                }
                self.note(&viewer, |stream| stream.busy -= 1);
            }
            Step::Report(viewer, reports) => {
                for report in reports {
                    self.report(&viewer, report);
                }
            }
            Step::Release(viewer, ending) => self.release(&viewer, ending).await,
            Step::List(instance, user) => {
                let (watched, user) = (&self.instances[instance], &self.users[user]);
                let listed = watched.instance.ledger.list(user).await;
                if let (Err(outage), true) = (listed, watched.witness.is_well(user)) {
                    self.wrong(format!("{outage} without an outage"));
                }
            }
            Step::Fail(outage) => self.fail(&outage).await,
            Step::Forget => {
                self.shared.forget_all().await;
                self.streams()
                    .values_mut()
                    .for_each(|stream| stream.over_since = None);
            }
            Step::Change(limits) => self.in_force.change(changeable(&limits)).unwrap(),
        }
    }

    /// Shards fail, and then answer again or are replaced.
    async fn fail(&self, outage: &ShardOutage) {
        let witnesses = outage.instances.iter();
        let witnesses = witnesses.map(|instance| &self.instances[*instance].witness);
        for witness in witnesses.clone() {
            witness.fail(&outage.places, outage.failure);
        }
        tokio::time::sleep(outage.lasting).await;
        for witness in witnesses {
            if outage.promotes {
                witness.promote(&outage.places);
            } else {
                witness.heal(&outage.places);
            }
        }
        self.outages.fetch_sub(1, Ordering::SeqCst);
        self.catches_up().await;
    }

    /// A stream asks once, as its door does; whether it may play.
    pub(super) async fn ask(&self, viewer: &Viewer, manner: &Manner) -> bool {
        let claim = self.claim(viewer, manner);
        let Instance { ledger, .. } = self.instance(viewer.instance);
        let (settings, since) = (self.in_force.now(), self.notes().answered());
        let caller = CallerDeadline::endless();
        let answer = match manner.door {
            Door::Check => match ledger.lookup(&claim) {
                CacheLookup::Good { .. } => {
                    self.judge_good(viewer, &claim);
                    self.note(viewer, |stream| {
                        stream.watching = Some((viewer.clone(), manner.clone()));
                    });
                    return true;
                }
                lookup => ledger.admit(&claim, lookup, &settings, &caller).await,
            },
            Door::Heartbeat => ledger.heartbeat(&claim, &settings, &caller).await,
            Door::Refresh => match ledger.refresh(&claim, &settings).await {
                Ok(None) => {
                    self.note(viewer, |stream| stream.watching = None);
                    return false;
                }
                Ok(Some(decision)) => Ok(decision),
                Err(outage) => Err(outage),
            },
        };
        self.notes().count(name_of(&answer));
        let told = format!("{viewer:?} got {answer:?}");
        self.notes().log(self.shared.now(), &told);
        self.judge(viewer, &claim, &settings, since, &answer);
        if let Ok(decision) = &answer
            && let UndoHint::Started(ticket) = decision.undo
        {
            // It may have been taken back in vain, and let in by the outage rule after all.
            let known = (viewer.instance, claim.user.clone(), claim.key.clone());
            self.notes().stands(&known, ticket);
        }
        self.after(viewer, manner, &claim, &answer)
    }

    /// What a door does once the ledger has answered; whether the stream may play.
    fn after(
        &self,
        viewer: &Viewer,
        manner: &Manner,
        claim: &Claim,
        answer: &Result<Decision, Outage>,
    ) -> bool {
        let instance = self.instance(viewer.instance);
        let Consequence { plays, taken_back } =
            instance.conclude(claim, answer, manner.leaves, manner.plays);
        if taken_back {
            self.note(viewer, |stream| stream.touched = true);
        }
        self.note(viewer, |stream| {
            stream.watching = plays.then(|| (viewer.clone(), manner.clone()));
        });
        plays
    }

    /// What a door makes of a request.
    fn claim(&self, viewer: &Viewer, manner: &Manner) -> Claim {
        let takeover = manner.takes_over.as_ref().map(|whose| match whose {
            TakeOver::Oldest => Takeover::Oldest,
            TakeOver::Named(key) => Takeover::Session(key.id.clone()),
        });
        Claim {
            user: self.users[viewer.user].clone(),
            plan: None,
            key: viewer.key.clone(),
            facts: Facts {
                device: manner.device.map(|device| DeviceId::parse(device).unwrap()),
                ..Facts::default()
            },
            takeover,
            message: None,
            derived: viewer.key.id.as_str() == DERIVED,
            free: false,
        }
    }

    /// Envoy reports about a stream.
    fn report(&self, viewer: &Viewer, report: Report) {
        let key = viewer.key.clone();
        let notice = match report {
            Report::Runs => {
                let sighting = Sighting {
                    lease: lease_of(key.kind),
                    facts: Facts::default(),
                    started_at: None,
                    provenance: Provenance::Counted,
                    derived: false,
                    key,
                };
                Notice::Renew(sighting, None, None)
            }
            Report::Played => Notice::Played(key),
            Report::Failed => Notice::Release(key, Ending::Failed),
            Report::Ended => Notice::Release(key, Ending::Stream),
        };
        let (now, is_calm) = (self.shared.now(), self.is_calm());
        let user = &self.users[viewer.user];
        let displaced = self.notes().was_displaced(user, &viewer.key);
        self.note(viewer, |stream| match report {
            // A late sign of life changes nothing, unless the end is lost or forgotten.
            Report::Runs => {
                let is_sure = is_calm && stream.is_first_end && !displaced;
                let is_remembered = |over: &Timestamp| is_sure && over.after(LEASES.playback) > now;
                stream.over_since = stream.over_since.filter(is_remembered);
            }
            Report::Played => {}
            Report::Failed => stream.touched = true,
            Report::Ended => stream.end(&viewer.key, Ending::Stream, now),
        });
        self.instance(viewer.instance)
            .submit(&self.users[viewer.user], notice);
    }

    /// A client or an operator ends a stream.
    async fn release(&self, viewer: &Viewer, ending: Ending) {
        let (user, key) = (&self.users[viewer.user], &viewer.key);
        let now = self.shared.now();
        self.note(viewer, |stream| stream.end(key, ending, now));
        let ledger = &self.instance(viewer.instance).ledger;
        let released = ledger.release(user, key, ending, Duration::ZERO).await;
        let told = format!("the end of {viewer:?} by {ending:?}: {released:?}");
        self.notes().log(self.shared.now(), &told);
        if let Err(outage) = released {
            if self.instances[viewer.instance].witness.is_well(user) {
                self.wrong(format!("{outage} without an outage"));
            }
            if ending != Ending::Operator || key.kind.is_stoppable() {
                self.notes().ended(viewer.instance, user, key);
            }
            let known = (viewer.instance, user.clone(), key.clone());
            self.notes().owe(known, ending, now);
        }
    }
}

impl Stream {
    /// Somebody says that it is over.
    fn end(&mut self, key: &SessionKey, ending: Ending, now: Timestamp) {
        let sticks = match ending {
            Ending::Stream => key.kind.leaves_tombstone(),
            _ => key.kind == Kind::Playback,
        };
        let was_watching = self.watching.take().is_some();
        (self.touched, self.is_first_end) = (true, was_watching && !self.ended_while_busy);
        self.ended_while_busy |= self.busy > 0;
        self.over_since = (sticks && self.busy == 0).then_some(now);
    }
}

/// The settings with these limits.
fn changeable(limits: &Limits) -> Changeable {
    Changeable {
        limits: config::Limits {
            policy: Policy::new(limits.limit),
            when_full: limits.when_full,
            displacements: limits.displacements,
            grace: limits.grace,
            quiet: Duration::from_secs(3),
            ..config::Limits::default()
        },
        ..Changeable::default()
    }
}
