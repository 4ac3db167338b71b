//! The one thing that doors talk to: who may watch how much, asked of the store, counted, and traced.
//!
//! The ledger resolves the user's allowance, answers from what it holds where that is as good as the store's word, gives a start at a
//! full limit its grace, and notes what the store answered. What a failing store leads to is said here and nowhere else: for starts in
//! [`Ledger::by_rule`], for renewals and releases where they fail.

mod grace;
mod held;
#[cfg(test)]
mod outage_tests;
mod pulse;
mod suspicion;
mod tend;
#[cfg(test)]
mod tests;
mod wiring;

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::{Clock, Stopwatch};
use crate::config::{self, Changeable, InForce, Leases, Outage as Rule};
use crate::identity::Claim;
use crate::policy::PlanMatch;
#[cfg(test)]
use crate::policy::Policy;
use crate::session::{
    Admission, Admitted, EndCause, Ending, Entry, Kind, PlanName, Provenance, Refusal, Released,
    Renewal, Session, SessionId, SessionKey, Sighting, Start, StartRules, Takeover, Terms, Ticket,
    Timestamp, UserId, WhenFull,
};
use crate::store::{Cursor, Listing, Page, Seen, ServerIdentity, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{
    GraceOutcome, Lapse, Operation, Outcome, ReleaseCause, RenewalOutcome,
};
use crate::throttle::Throttle;
use grace::{Frees, Grace, Turn, Woken};
use held::{Counted, Evidence, Held, Look, Stamp};
pub use pulse::StoreHealth;
use pulse::{Call, Pulse};
use suspicion::Suspicion;
use wiring::Wiring;
pub use wiring::{AccessLog, UNWIRED};

/// How many names of unknown plans are remembered as already logged.
const MAX_UNKNOWN_PLANS: usize = 1000;

/// How many sessions are held where the store is shared: some hundred megabytes. More are asked about each time.
pub const ROOM_TO_HOLD: usize = 250_000;

/// What a claim asks of the store.
#[derive(Debug)]
struct Asked {
    /// What wants to start.
    start: Start,
    /// What applies to it.
    rules: StartRules,
}

/// A start, with all that decides about it.
#[derive(Debug, Clone, Copy)]
struct Bid<'a> {
    /// Whose stream it is.
    user: &'a UserId,
    /// What wants to start.
    start: &'a Start,
    /// What applies to it.
    rules: &'a StartRules,
    /// Whether it may take a slot.
    wish: Wish,
}

/// What a stream asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// A slot, if it has none.
    Slot,
    /// To keep the slot that it has.
    GoOn,
}

impl<'a> Bid<'a> {
    /// What the store decides by. Where no stream is allowed, what is live is renewed and nothing is started.
    fn store_rules(&self) -> Cow<'a, StartRules> {
        match self.wish {
            Wish::Slot => Cow::Borrowed(self.rules),
            Wish::GoOn => Cow::Owned(StartRules {
                limit: 0,
                ..self.rules.clone()
            }),
        }
    }
}

/// How long a caller can wait for an answer.
#[derive(Debug, Clone)]
pub struct Patience {
    /// What was left of its deadline when it asked; `None` if it set none.
    pub deadline: Option<Duration>,
    /// Cancelled when the caller has gone.
    pub gone: CancellationToken,
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
    pub leaves: Leaves,
    /// How long the start waited for a slot to come free; no part of the time that the decision took.
    pub waited: Duration,
}

/// Whose word a decision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The store's.
    Store,
    /// The store's of a while ago, which still holds.
    HeldLease,
    /// That of the rule which decides while the store is out.
    Rule(Rule),
}

/// What a call may have left in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
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

/// How a ledger is to count.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may watch how much, and what happens at a full limit; it may change.
    pub in_force: Arc<InForce>,
    /// How long sessions count.
    pub leases: Leases,
    /// What leases and tombstones may be.
    pub terms: Terms,
    /// What decides while the store is out.
    pub outage: Rule,
    /// How many sessions are held; none where the store is this process itself.
    pub room_to_hold: usize,
}

#[cfg(test)]
impl Settings {
    /// Deny in an outage, no grace, and as little room as tests need.
    pub(crate) fn of(policy: Policy) -> Self {
        Self::with_grace(policy, Duration::ZERO)
    }

    /// The same with that grace.
    pub(crate) fn with_grace(policy: Policy, grace: Duration) -> Self {
        let limits = config::Limits {
            policy,
            grace,
            ..Default::default()
        };
        let settings = Changeable {
            limits,
            ..Default::default()
        };
        Self {
            in_force: Arc::new(InForce::new(settings)),
            leases: Leases::default(),
            terms: Terms::new(Duration::from_secs(30), Duration::from_millis(50)),
            outage: Rule::Deny,
            room_to_hold: 1000,
        }
    }
}

/// Counts streams.
#[derive(Debug)]
pub struct Ledger {
    /// Where rosters are kept.
    store: Arc<dyn Store>,
    /// Says who may watch how much, and what happens at a full limit.
    in_force: Arc<InForce>,
    /// How long sessions count.
    leases: Leases,
    /// Lets starts wait for a slot.
    grace: Grace,
    /// Knows whether the store answers.
    pulse: Pulse,
    /// Decides while it doesn't.
    rule: Rule,
    /// What this instance knows by itself.
    held: Held,
    /// Bounds how often it is logged that the store has forgotten.
    forgot: Throttle,
    /// Whose sessions the store did not know of late.
    suspicion: Suspicion,
    /// Whether Envoy's access log arrives.
    wiring: Wiring,
    /// Counts it all.
    metrics: Arc<Metrics>,
    /// Plans that nobody knows and that have been logged.
    unknown_plans: Mutex<HashSet<PlanName>>,
}

impl Ledger {
    /// A ledger over that store. What it does beside its calls is done by [`Self::tend`].
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (leases, room) = (settings.leases, settings.room_to_hold);
        Self {
            store,
            in_force: settings.in_force,
            leases,
            grace: Grace::default(),
            pulse: Pulse::new(settings.outage),
            rule: settings.outage,
            held: Held::new(room, leases, settings.terms, clock),
            forgot: Throttle::every(tend::TOLD_IN_VAIN_PAUSE),
            suspicion: Suspicion::new(leases.playback / 3),
            wiring: Wiring::new(leases.request),
            metrics,
            unknown_plans: Mutex::default(),
        }
    }

    /// Whether the store has said of a claim's session that it counts it, and that still holds: the path of nearly every request of a
    /// playback.
    #[must_use]
    pub fn recalls(&self, claim: &Claim) -> bool {
        let look = self.held.look(&claim.user, &claim.key, &claim.facts);
        matches!(look, Look::Good { .. })
    }

    /// May this stream start, or go on? At a full limit the answer may wait, as long as `patience` has room for it.
    ///
    /// # Errors
    /// The store could not answer, and the outage rule is to say so.
    pub async fn admit(&self, claim: &Claim, patience: &Patience) -> Result<Decision, Outage> {
        let began = (self.grace.frees(), Stopwatch::start());
        let asked = self.asked(claim);
        let bid = Self::bid(claim, &asked);
        let decided = match self.go_on(bid).await {
            Some(decided) => decided,
            None => self.attempt(bid).await,
        };
        self.with_grace(bid, decided?, patience, began).await
    }

    /// The same for a client that says how its stream stands and wants to hear how its user's do: the store is always asked.
    ///
    /// # Errors
    /// The store could not answer, and the outage rule is to say so.
    pub async fn heartbeat(&self, claim: &Claim, patience: &Patience) -> Result<Decision, Outage> {
        let began = (self.grace.frees(), Stopwatch::start());
        let asked = self.asked(claim);
        let bid = Self::bid(claim, &asked);
        let decision = self.attempt_knowing(bid).await?;
        self.with_grace(bid, decision, patience, began).await
    }

    /// The same for a client that wants its stream to go on and not to start; `None` if it isn't live.
    ///
    /// # Errors
    /// The store could not answer, and nothing is known here of that stream.
    pub async fn refresh(&self, claim: &Claim) -> Result<Option<Decision>, Outage> {
        let asked = self.asked(claim);
        let bid = Bid {
            wish: Wish::GoOn,
            ..Self::bid(claim, &asked)
        };
        let decision = self.attempt_knowing(bid).await?;
        let unknown = matches!(
            decision.admission,
            Admission::Refused(Refusal::Full { .. } | Refusal::NotStoppable)
        );
        Ok((!unknown).then_some(decision))
    }

    /// This stream was seen running; `plan` is what its user is said to be on, and `response` what names the one response that was seen,
    /// where the gateway told. A response that runs on after its playback's end is counted as the `request` that it is: nothing here can
    /// stop it.
    ///
    /// # Errors
    /// The store could not answer. That the stream runs is remembered.
    pub async fn renew(
        &self,
        user: &UserId,
        plan: Option<&PlanName>,
        sighting: &Sighting,
        response: Option<&SessionId>,
    ) -> Result<Renewal, Outage> {
        let seen = Seen {
            user: user.clone(),
            sighting: sighting.clone(),
            limit: self.limit_of(user, plan),
        };
        let renewed = match self.settle_ends(user).await {
            Ok(()) => self.tell_running(&seen).await,
            Err(outage) => Err(outage),
        };
        match (&renewed, response) {
            (Ok(Renewal::Ended(_)), Some(response)) if sighting.key.kind == Kind::Playback => {
                let key = SessionKey {
                    kind: Kind::Request,
                    id: response.clone(),
                };
                let lease = self.leases.of(key.kind);
                let sighting = Sighting {
                    key,
                    lease,
                    ..seen.sighting
                };
                self.tell_running(&Seen { sighting, ..seen }).await
            }
            (Err(_), _) => {
                self.held.sighted(user, sighting, seen.limit);
                renewed
            }
            (Ok(_), _) => renewed,
        }
    }

    /// Envoy reports that a request of this session got through to its viewer.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn played(&self, user: &UserId, key: &SessionKey) -> Result<(), Outage> {
        let stamp = self.held.stamp(user);
        let told = self
            .timed(Operation::Played, || self.store.played(user, key))
            .await;
        match told {
            Ok(Some(playing)) => {
                let limit = self.limit_of(user, None);
                self.held.playing(user, stamp, key, playing, limit);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(outage) => {
                self.held.played_untold(user, key);
                Err(outage)
            }
        }
    }

    /// Whether it is known here that some of this session has reached its viewer, so that there is nothing to report.
    #[must_use]
    pub fn knows_playing(&self, user: &UserId, key: &SessionKey) -> bool {
        self.held.is_proven(user, key)
    }

    /// Whether that session may be counted because of what this instance has told the store. Where nothing is held, any may be.
    #[must_use]
    pub fn may_count(&self, user: &UserId, key: &SessionKey) -> bool {
        self.held.holds_nothing() || self.held.counts(user, key)
    }

    /// This session is over, as somebody said `age` ago.
    ///
    /// # Errors
    /// The store could not answer. The end is remembered and told before the user's other sessions are, but whoever has to be sure that it is
    /// told hands it to the releaser.
    pub async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        cause: ReleaseCause,
        age: Duration,
    ) -> Result<Released, Outage> {
        if cause == ReleaseCause::Undone {
            self.wiring.exclude(user, key);
        }
        let told = self.tell_ended(user, key, ending, age).await;
        match &told {
            Ok(Released::Freed(_)) => {
                self.metrics.release(cause);
                self.grace.slot_freed(user);
            }
            // It was let in, and nobody has said before that it is over.
            Ok(Released::NotLive) if cause == ReleaseCause::AccessLog => {
                self.metrics.lapse(Lapse::End);
            }
            Ok(_) => {}
            Err(_) => {
                self.held.ended_untold(user, key, ending, cause, age);
                self.grace.slot_freed(user);
            }
        }
        debug!(user.id = %user, session.key = %key, ?ending, ?told, "a session is over");
        told
    }

    /// How many streams the user may watch who is said to be on that plan.
    #[must_use]
    pub fn limit_of(&self, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let in_force = self.in_force.now();
        in_force.limits.policy.allowance(user, plan).allowance.limit
    }

    /// What applies now of what may change.
    #[must_use]
    pub fn in_force(&self) -> Arc<Changeable> {
        self.in_force.now()
    }

    /// How long a session of that kind counts without a sign of life.
    #[must_use]
    pub const fn lease_of(&self, kind: Kind) -> Duration {
        self.leases.of(kind)
    }

    /// The time, by what tells it to what is held.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.held.now()
    }

    /// The user's live sessions.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn list(&self, user: &UserId) -> Result<Listing, Outage> {
        self.timed(Operation::List, || self.store.list(user)).await
    }

    /// Everybody's live sessions, a part at a time: [`Store::page`].
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn page(&self, from: &Cursor, size: usize) -> Result<Page, Outage> {
        self.timed(Operation::Page, || self.store.page(from, size))
            .await
    }

    /// Looks whether the store is there, so that its state is known where nobody asks for anything.
    pub async fn probe(&self) {
        // The outcome is noted on the way, and there is nobody else to tell.
        drop(self.timed(Operation::Ping, || self.store.ping()).await);
    }

    /// How the store is, as its last calls showed it.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.pulse.health()
    }

    /// The server that the store counts in at the moment, for people; without secrets.
    #[must_use]
    pub fn store_server(&self) -> Option<String> {
        self.store.server()
    }

    /// Identifies the store's server, which is asked now; `None` where there is no server.
    ///
    /// # Errors
    /// The store could not answer. Not counted as a store failure: it needs rights that streams don't.
    pub async fn server_identity(&self) -> Result<Option<ServerIdentity>, StoreError> {
        self.pulse.may_ask()?;
        self.store.server_identity().await
    }

    /// Whether Envoy's access log arrives, as far as this instance can tell.
    #[must_use]
    pub fn access_log(&self) -> AccessLog {
        self.wiring.state()
    }

    /// An entry of Envoy's access log has come that bears our mark.
    pub fn heard_access_log(&self) {
        self.wiring.heard(&self.metrics);
    }

    /// Tells whether the store answers, from now on.
    #[must_use]
    pub fn watch_store(&self) -> watch::Receiver<bool> {
        self.pulse.watch()
    }

    /// Drops what is held in vain, and tells how much is held. To be called every few seconds, and before anybody reads the metrics.
    pub fn sweep(&self) {
        let tally = self.held.sweep();
        self.metrics.sessions(tally.sessions, tally.owed);
    }

    /// What a session is told that this instance knows and that is to ask: the store is told that it runs. `None` if it isn't such a one.
    async fn go_on(&self, bid: Bid<'_>) -> Option<Result<Decision, Outage>> {
        let Bid {
            user, start, rules, ..
        } = bid;
        let Look::Ask = self.held.look(user, &start.key, &start.facts) else {
            return None;
        };
        let seen = Seen {
            limit: rules.limit,
            ..self.held.sighting(user, &start.key)?
        };
        self.renews_itself(&seen);
        let renewed = match self.settle_ends(user).await {
            Ok(()) => self.tell_running(&seen).await,
            Err(outage) => Err(outage),
        };
        let admission = match renewed {
            Ok(Renewal::Renewed { .. } | Renewal::PutBack { .. } | Renewal::Provisional { .. }) => {
                Admission::Admitted(self.held.admitted(user, &start.key)?)
            }
            // Whether it may start again is for the store to say.
            Ok(Renewal::Ended(_) | Renewal::Crowded) => return None,
            Err(outage) => return Some(self.by_rule(bid, outage)),
        };
        Some(Ok(Decision::of_store(admission, bid)))
    }

    /// Asks for a slot: the store, or the rule where that doesn't answer. If there is no playback of the id that is to be taken over, but
    /// something else of it holds a slot, that was meant.
    async fn attempt(&self, bid: Bid<'_>) -> Result<Decision, Outage> {
        let mut decision = self.attempt_as_it_is(bid).await?;
        let Some(meant) = meant_among_holders(&bid.rules.when_full, &decision.admission) else {
            return Ok(decision);
        };
        if !meant.kind.is_stoppable() {
            decision.admission = Admission::Refused(Refusal::NotStoppable);
            return Ok(decision);
        }
        let rules = &StartRules {
            when_full: WhenFull::TakeOver(meant),
            ..bid.rules.clone()
        };
        self.attempt_as_it_is(Bid { rules, ..bid }).await
    }

    /// Asks for a slot: the store, or the rule where that doesn't answer.
    async fn attempt_as_it_is(&self, bid: Bid<'_>) -> Result<Decision, Outage> {
        match self.try_start(bid).await {
            Ok(admission) => Ok(Decision::of_store(admission, bid)),
            Err(outage) => self.by_rule(bid, outage),
        }
    }

    /// The same for a session that may be held: if the store has forgotten it, and now finds no slot for it, it is told that it runs.
    async fn attempt_knowing(&self, bid: Bid<'_>) -> Result<Decision, Outage> {
        let was_sure = self.held.evidence(bid.user, &bid.start.key) == Evidence::Proof;
        let decision = self.attempt(bid).await?;
        match &decision.admission {
            Admission::Admitted(admitted) if was_sure && admitted.entry == Entry::Started => {
                self.suspect_loss(bid.user, &bid.start.key);
                Ok(decision)
            }
            Admission::Refused(Refusal::Full { .. }) if was_sure => {
                let Some(seen) = self.held.sighting(bid.user, &bid.start.key) else {
                    return Ok(decision);
                };
                match self.tell_running(&seen).await {
                    Ok(_) => self.attempt(bid).await,
                    Err(outage) => self.by_rule(bid, outage),
                }
            }
            Admission::Admitted(_) | Admission::Refused(_) => Ok(decision),
        }
    }

    /// Lets a start that found all slots taken wait for one, where it may.
    async fn with_grace(
        &self,
        bid: Bid<'_>,
        decision: Decision,
        patience: &Patience,
        (frees, asked): (Frees, Stopwatch),
    ) -> Result<Decision, Outage> {
        let Bid {
            user, start, rules, ..
        } = bid;
        let mut decision = decision;
        if let Admission::Refused(Refusal::Full { .. }) = decision.admission {
            let since = (frees, asked.elapsed());
            let longest = self.in_force.now().limits.grace;
            match self
                .grace
                .enter(user, (rules.limit, longest), patience, since)
            {
                Some(turn) => decision = self.wait_for_slot(turn, bid, decision, patience).await?,
                None => self.metrics.grace(GraceOutcome::Skipped),
            }
        }
        if decision.is_start() {
            self.metrics.start(start.key.kind);
        }
        if start.key.kind == Kind::Request {
            self.note_request(user, start, &decision);
        }
        debug!(user.id = %user, session.key = %start.key, ?decision, "a start was decided");
        Ok(decision)
    }

    /// Notes what was decided about a `request`, which Envoy's access log should report. A second check of a running one has renewed it.
    fn note_request(&self, user: &UserId, start: &Start, decision: &Decision) {
        match (decision.is_start(), decision.basis, start.ticket) {
            (true, Basis::Store, Some(ticket)) => self.wiring.begun(user, &start.key, ticket),
            (false, ..) if !decision.is_refused() => self.wiring.exclude(user, &start.key),
            _ => {}
        }
    }

    /// What a claim asks of the store. A takeover names a session by its id alone, which is taken for a playback's.
    fn asked(&self, claim: &Claim) -> Asked {
        let in_force = self.in_force.now();
        let start = Start {
            key: claim.key.clone(),
            facts: claim.facts.clone(),
            lease: self.leases.of(claim.key.kind),
            ticket: Ticket::new(rand::random()),
            derived: claim.derived,
        };
        let when_full = match &claim.takeover {
            None => match in_force.limits.when_full {
                config::WhenFull::Refuse => WhenFull::Refuse,
                config::WhenFull::DisplaceOldest => WhenFull::DisplaceOldest,
                config::WhenFull::DisplaceIdlest => WhenFull::DisplaceIdlest,
            },
            Some(Takeover::Oldest) => WhenFull::DisplaceOldest,
            Some(Takeover::Session(id)) => WhenFull::TakeOver(SessionKey {
                kind: Kind::Playback,
                id: id.clone(),
            }),
        };
        let rules = StartRules {
            limit: self.limit(&claim.user, claim.plan.as_ref()),
            when_full,
            takeover: claim.takeover.is_some(),
            displacements: in_force.limits.displacements,
            free: claim.free,
            quiet: in_force.limits.quiet,
        };
        Asked { start, rules }
    }

    /// The start of a claim, with what decides about it.
    const fn bid<'a>(claim: &'a Claim, asked: &'a Asked) -> Bid<'a> {
        Bid {
            user: &claim.user,
            start: &asked.start,
            rules: &asked.rules,
            wish: Wish::Slot,
        }
    }

    /// What becomes of a start that the store can't decide, for the reason of that `outage`: the one place where `store.outage` is heeded.
    ///
    /// Who holds a lease goes on to its end, whatever the rule.
    fn by_rule(&self, bid: Bid<'_>, outage: Outage) -> Result<Decision, Outage> {
        let Bid {
            user, start, rules, ..
        } = bid;
        let limit = rules.limit;
        let decision = |admission, basis, leaves| Decision {
            admission,
            basis,
            limit,
            leaves,
            waited: outage.waited,
        };
        if let Some(mut admitted) = self.held.admitted(user, &start.key) {
            // It was seen running, and the store doesn't know.
            self.held.seen(user, &start.key, start.lease);
            admitted.session.facts.update(&start.facts);
            let admission = Admission::Admitted(admitted);
            return Ok(decision(admission, Basis::HeldLease, Leaves::Nothing));
        }
        if bid.wish == Wish::GoOn && !self.held.counts(user, &start.key) {
            return Err(outage);
        }
        let applied = match self.rule {
            Rule::Deny => {
                // It is no longer watching, and not to be told of as if it were.
                self.held.forget(user, &start.key);
                return Err(outage);
            }
            Rule::Allow if limit > 0 => u32::MAX,
            Rule::Allow | Rule::Local => limit,
        };
        let applied_rules = StartRules {
            limit: applied,
            ..rules.clone()
        };
        let admission = match self.held.admit(user, start, limit, &applied_rules) {
            Some(admission) => admission,
            // It can't be remembered; that is no reason to keep it out.
            None if applied == u32::MAX => Admission::Admitted(self.unheld(start)),
            None => return Err(outage),
        };
        let leaves = match (&admission, start.ticket, outage.doubtful) {
            (Admission::Admitted(_), Some(ticket), _) => Leaves::Started(ticket),
            (Admission::Refused(_), _, Some(ticket)) => Leaves::Doubtful(ticket),
            _ => Leaves::Nothing,
        };
        Ok(decision(admission, Basis::Rule(self.rule), leaves))
    }

    /// What a session is told that is let in and of which nothing is known.
    fn unheld(&self, start: &Start) -> Admitted {
        let decided_at = self.held.now();
        Admitted {
            entry: Entry::Started,
            session: Session::starting(start, decided_at.after(start.lease), decided_at),
            active: 1,
            displaced: Vec::new(),
            decided_at,
        }
    }

    /// Asks the store for a slot, once it has been told what it is yet to be told of this user. If it can't be told, it isn't asked: that
    /// would cost the caller another deadline.
    async fn try_start(&self, bid: Bid<'_>) -> Result<Admission, Outage> {
        let Bid { user, start, .. } = bid;
        self.settle(user).await?;
        let (stamp, held) = (
            self.held.stamp(user),
            self.held.sure_beside(user, &start.key),
        );
        let admission = self.ask_for_slot(bid).await?;
        if let Some(ticket) = start.ticket
            && self.is_contradicted(bid, &admission, held)
            && self.has_forgotten_others(user, &start.key).await
        {
            // Beside those that it had forgotten there may be no room for this one, which nobody has been told of yet.
            let undoing = Ending::Undone(ticket);
            let undone = self.tell_ended(user, &start.key, undoing, Duration::ZERO);
            undone.await.map_err(|outage| Outage {
                doubtful: Some(ticket),
                ..outage
            })?;
            let stamp = self.held.stamp(user);
            let admission = self.ask_for_slot(bid).await?;
            self.hold(bid, stamp, &admission);
            return Ok(admission);
        }
        self.hold(bid, stamp, &admission);
        Ok(admission)
    }

    /// Asks the store for a slot.
    async fn ask_for_slot(&self, bid: Bid<'_>) -> Result<Admission, Outage> {
        let Bid { user, start, .. } = bid;
        let rules = bid.store_rules();
        let asked = self
            .timed(Operation::Admit, || self.store.admit(user, start, &rules))
            .await;
        asked.map_err(|outage| Outage {
            doubtful: start.ticket.filter(|_| outage.error.outcome_is_unknown()),
            ..outage
        })
    }

    /// Holds what the store has answered to a start.
    fn hold(&self, bid: Bid<'_>, stamp: Stamp, admission: &Admission) {
        let Bid {
            user, start, rules, ..
        } = bid;
        match admission {
            Admission::Admitted(admitted) => {
                let is_start = admitted.entry == Entry::Started;
                let Session {
                    expires_at, flags, ..
                } = admitted.session;
                let counted = Counted {
                    key: &start.key,
                    facts: &start.facts,
                    started_at: is_start.then_some(admitted.decided_at),
                    lease: start.lease.min(expires_at.since(admitted.decided_at)),
                    limit: rules.limit,
                    derived: flags.derived,
                    played: flags.played,
                    provisional: flags.provisional,
                };
                let displaced = &admitted.displaced;
                self.held.counted(user, stamp, &counted, displaced);
            }
            Admission::Refused(Refusal::Ended(cause, _)) => {
                self.held.ended(user, &start.key, Some(cause.clone()));
            }
            Admission::Refused(Refusal::Full { .. } | Refusal::NotStoppable) => {}
        }
    }

    /// Whether the store has let a session in and counts fewer than it must still do: some have ended elsewhere, or it has forgotten. Those
    /// that must still count are fewer than were held when it was asked, if some have ended here meanwhile. Where others gave way, it
    /// has counted up to the limit itself.
    fn is_contradicted(&self, bid: Bid<'_>, admission: &Admission, held_before: usize) -> bool {
        let Admission::Admitted(admitted) = admission else {
            return false;
        };
        let held = self.held.sure_beside(bid.user, &bid.start.key);
        admitted.entry == Entry::Started
            && admitted.displaced.is_empty()
            && admitted.active <= held.min(held_before)
    }

    /// Tells the store that a stream runs, and holds what it answers.
    async fn tell_running(&self, seen: &Seen) -> Result<Renewal, Outage> {
        let (user, sighting) = (&seen.user, &seen.sighting);
        let stamp = self.held.stamp(user);
        let renewal = self
            .timed(Operation::Renew, || {
                self.store.renew(user, sighting, seen.limit)
            })
            .await?;
        self.note_renewal(seen, stamp, &renewal);
        Ok(renewal)
    }

    /// This instance is about to renew that session, without a report of Envoy's access log.
    fn renews_itself(&self, seen: &Seen) {
        if seen.sighting.key.kind == Kind::Request {
            self.wiring.exclude(&seen.user, &seen.sighting.key);
        }
    }

    /// Holds what the store has answered to a renewal.
    fn note_renewal(&self, seen: &Seen, stamp: Stamp, renewal: &Renewal) {
        let Seen {
            user,
            sighting,
            limit,
        } = seen;
        self.metrics.renewal(match renewal {
            Renewal::Renewed { .. } => RenewalOutcome::Renewed,
            Renewal::PutBack { .. } => RenewalOutcome::PutBack,
            Renewal::Provisional { .. } => RenewalOutcome::Provisional,
            Renewal::Ended(_) => RenewalOutcome::Ended,
            Renewal::Crowded => RenewalOutcome::Crowded,
        });
        debug!(user.id = %user, session.key = %sighting.key, ?renewal, "a running stream was seen");
        let counted = Counted {
            key: &sighting.key,
            facts: &sighting.facts,
            started_at: sighting.started_at,
            lease: sighting.lease,
            limit: *limit,
            derived: sighting.derived,
            played: sighting.provenance != Provenance::Unplayed,
            provisional: matches!(renewal, Renewal::Provisional { .. }),
        };
        match renewal {
            Renewal::Renewed { .. } | Renewal::Provisional { .. } => {
                self.held.counted(user, stamp, &counted, &[]);
            }
            Renewal::PutBack { .. } => {
                if sighting.key.kind == Kind::Request {
                    self.metrics.lapse(Lapse::Periodic);
                }
                let evidence = self.held.evidence(user, &sighting.key);
                self.held.counted(user, stamp, &counted, &[]);
                match evidence {
                    Evidence::Proof | Evidence::Doubt => self.suspect_loss(user, &sighting.key),
                    Evidence::None => {}
                }
            }
            Renewal::Ended(cause) => self.held.ended(user, &sighting.key, Some(cause.clone())),
            Renewal::Crowded => self.held.crowded(user, sighting),
        }
    }

    /// Tells the store that a session is over. Nobody is answered from memory meanwhile, nor by what was asked before.
    async fn tell_ended(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, Outage> {
        // What has not played is never answered from memory, and a failure means nothing to what has.
        if ending != Ending::Failed {
            self.held.ending(user, key);
        }
        let released = self
            .timed(Operation::Release, || {
                self.store.release(user, key, ending, age)
            })
            .await?;
        match (&released, ending) {
            (_, Ending::Undone(ticket)) => {
                let was_there = matches!(released, Released::Freed(_));
                self.held.undone(user, key, ticket, was_there);
            }
            (Released::Kept | Released::NotStoppable, _) | (Released::NotLive, Ending::Failed) => {}
            (Released::Freed(_), Ending::Failed) => self.held.ended(user, key, None),
            (Released::AlreadyEnded(cause), _) => self.held.ended(user, key, Some(cause.clone())),
            (Released::Freed(_) | Released::NotLive, Ending::Operator) => {
                self.held.ended(user, key, Some(EndCause::Operator));
            }
            (Released::Freed(_) | Released::NotLive, _) => {
                self.held.ended(user, key, Some(EndCause::Released));
            }
        }
        Ok(released)
    }

    /// Waits for a slot, and tries again whenever one comes free and once at the end; the last answer, unless the caller has gone
    /// before there was another. What the store has refused stays refused should it fail meanwhile.
    async fn wait_for_slot(
        &self,
        turn: Turn<'_>,
        bid: Bid<'_>,
        refused: Decision,
        patience: &Patience,
    ) -> Result<Decision, Outage> {
        let mut last = refused;
        loop {
            let woken = turn.wait(&patience.gone).await;
            if woken == Woken::CallerGone {
                // Should it hear of it all the same, it is told what it was told at first.
                self.metrics.grace(GraceOutcome::Refused);
                last.waited = turn.elapsed();
                return Ok(last);
            }
            let next = match (self.try_start(bid).await, last.basis) {
                (Ok(admission), _) => Decision::of_store(admission, bid),
                (Err(outage), Basis::Store) => Decision {
                    admission: last.admission.clone(),
                    leaves: outage.doubtful.map_or(last.leaves, Leaves::Doubtful),
                    ..last
                },
                (Err(outage), _) => self.by_rule(bid, outage).map_err(|outage| {
                    let waited = turn.elapsed();
                    Outage { waited, ..outage }
                })?,
            };
            // An earlier try may have taken place unheard; what it may have left is taken back unless a later one was let in.
            let leaves = match (next.leaves, last.leaves) {
                (Leaves::Nothing, earlier) if next.is_refused() => earlier,
                (leaves, _) => leaves,
            };
            last = Decision {
                waited: turn.elapsed(),
                leaves,
                ..next
            };
            let full = matches!(last.admission, Admission::Refused(Refusal::Full { .. }));
            if !full || woken == Woken::TurnOver || turn.is_over() {
                self.metrics.grace(if last.is_refused() {
                    GraceOutcome::Refused
                } else {
                    GraceOutcome::Admitted
                });
                return Ok(last);
            }
        }
    }

    /// How many streams the user may watch. An unknown plan is counted, and logged once; a missing one is counted.
    fn limit(&self, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let in_force = self.in_force.now();
        let policy = &in_force.limits.policy;
        let resolved = policy.allowance(user, plan);
        if resolved.plan == PlanMatch::Missing {
            self.metrics.missing_plan();
        }
        if let (PlanMatch::Unknown, Some(plan)) = (resolved.plan, plan) {
            self.metrics.unknown_plan();
            let mut known = self
                .unknown_plans
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if known.len() < MAX_UNKNOWN_PLANS && known.insert(plan.clone()) {
                warn!(plan.name = %plan, limit = policy.default, "a plan that limits.plans doesn't have: the default applies");
            }
        }
        resolved.allowance.limit
    }

    /// Has the store asked if it may be, waits for it, counts the call and notes what it says about the store's health.
    async fn timed<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let is_probe = operation == Operation::Ping;
        if let (false, Err(error)) = (is_probe, self.pulse.may_ask()) {
            self.metrics
                .store(operation, Outcome::NotAsked, Duration::ZERO);
            return Err(error.into());
        }
        let asked = Stopwatch::start();
        let answer = call().await;
        self.metrics
            .store(operation, outcome(answer.as_ref().err()), asked.elapsed());
        // The listing of everybody needs rights of its own: that they are missing is no reason to stop asking about streams.
        let lacks_rights = matches!(answer, Err(StoreError::Rejected(_)));
        if operation != Operation::Page || !lacks_rights {
            let call = Call { asked, is_probe };
            self.pulse.note(answer.as_ref().err(), call, &self.metrics);
        }
        answer.map_err(Outage::from)
    }
}

/// The session of another kind that a takeover may have meant: one that holds a slot and has that id.
fn meant_among_holders(when_full: &WhenFull, admission: &Admission) -> Option<SessionKey> {
    match (when_full, admission) {
        (WhenFull::TakeOver(named), Admission::Refused(Refusal::Full { holders, .. })) => {
            let mut keys = holders.iter().map(|session| &session.key);
            keys.find(|key| key.id == named.id && key.kind != named.kind)
                .cloned()
        }
        _ => None,
    }
}

impl Decision {
    /// What the store has decided.
    const fn of_store(admission: Admission, bid: Bid<'_>) -> Self {
        let leaves = match (&admission, bid.start.ticket) {
            (
                Admission::Admitted(Admitted {
                    entry: Entry::Started,
                    ..
                }),
                Some(ticket),
            ) => Leaves::Started(ticket),
            _ => Leaves::Nothing,
        };
        Self {
            admission,
            basis: Basis::Store,
            limit: bid.rules.limit,
            leaves,
            waited: Duration::ZERO,
        }
    }

    /// Whether a session has started by it.
    const fn is_start(&self) -> bool {
        matches!(
            self.admission,
            Admission::Admitted(Admitted {
                entry: Entry::Started,
                ..
            })
        )
    }

    /// Whether it is a refusal.
    const fn is_refused(&self) -> bool {
        matches!(self.admission, Admission::Refused(_))
    }
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
        outcome(Some(&self.error))
    }
}

impl Patience {
    /// A caller that waits as long as it takes.
    #[must_use]
    pub fn endless() -> Self {
        Self {
            deadline: None,
            gone: CancellationToken::new(),
        }
    }
}

/// What a metric calls the store's answer.
fn outcome(error: Option<&StoreError>) -> Outcome {
    match error {
        None => Outcome::Ok,
        Some(StoreError::Timeout(_)) => Outcome::Timeout,
        Some(StoreError::Disconnected(_)) => Outcome::Disconnected,
        Some(StoreError::NotAsked(_)) => Outcome::NotAsked,
        Some(StoreError::Full(_)) => Outcome::Full,
        Some(StoreError::Rejected(_)) => Outcome::Rejected,
        Some(StoreError::Protocol(_)) => Outcome::Protocol,
    }
}
