//! The one thing that doors talk to: who may watch how much, asked of the store, counted, and traced.
//!
//! The ledger resolves the user's allowance, gives a start at a full limit its grace, and notes what the store answered. What a
//! failing store leads to is said here and nowhere else: the call is an [`Outage`], and the door answers that it can't tell.

mod grace;
mod pulse;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Stopwatch;
use crate::config::Leases;
use crate::policy::{PlanMatch, Policy};
use crate::session::{
    Admission, Ending, Facts, PlanName, Refusal, Released, Renewal, SessionKey, Sighting, Start,
    Ticket, UserId, WhenFull,
};
use crate::store::{Listing, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{GraceOutcome, Operation, Outcome, ReleaseCause, RenewalOutcome};
use grace::{Grace, Turn, Woken};
use pulse::Pulse;
pub use pulse::StoreHealth;

/// How many names of unknown plans are remembered as already logged.
const MAX_UNKNOWN_PLANS: usize = 1000;

/// What a door has made out of a request for a stream.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose stream it is.
    pub user: UserId,
    /// The plan they are said to be on.
    pub plan: Option<PlanName>,
    /// Which stream it is.
    pub key: SessionKey,
    /// What else is known of it.
    pub facts: Facts,
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
    /// The limit that applied.
    pub limit: u32,
    /// The mark of this call on the session it may have started.
    pub ticket: Option<Ticket>,
    /// How long the start waited for a slot to come free; no part of the time that the decision took.
    pub waited: Duration,
}

/// The store could not answer.
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

/// Counts streams.
#[derive(Debug)]
pub struct Ledger {
    /// Where rosters are kept.
    store: Arc<dyn Store>,
    /// Says who may watch how much.
    policy: Policy,
    /// How long sessions count.
    leases: Leases,
    /// Lets starts wait for a slot.
    grace: Grace,
    /// Knows whether the store answers.
    pulse: Pulse,
    /// Counts it all.
    metrics: Arc<Metrics>,
    /// Plans that nobody knows and that have been logged.
    unknown_plans: Mutex<HashSet<PlanName>>,
}

impl Ledger {
    /// A ledger over that store. `grace` is how long a start at a full limit may wait for a slot.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        policy: Policy,
        leases: Leases,
        grace: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            policy,
            leases,
            grace: Grace::new(grace),
            pulse: Pulse::default(),
            metrics,
            unknown_plans: Mutex::default(),
        }
    }

    /// May this stream start? At a full limit the answer may wait, as long as `patience` has room for it.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn admit(&self, claim: &Claim, patience: &Patience) -> Result<Decision, Outage> {
        let (frees, asked) = (self.grace.frees(), Stopwatch::start());
        let limit = self.limit(&claim.user, claim.plan.as_ref());
        let ticket = Ticket::new(rand::random());
        let start = Start {
            key: claim.key.clone(),
            facts: claim.facts.clone(),
            lease: self.leases.of(claim.key.kind),
            ticket,
        };
        let mut admission = self.try_start(&claim.user, &start, limit).await?;
        let mut waited = Duration::ZERO;
        if let Admission::Refused(Refusal::Full { .. }) = admission {
            match self
                .grace
                .enter(&claim.user, limit, patience, (frees, asked.elapsed()))
            {
                Some(turn) => {
                    let waiting = self.wait_for_slot(turn, &start, limit, patience);
                    let (last, waited_for) = waiting.await?;
                    // A caller that has gone is told what it was told at first, should it hear of it.
                    (admission, waited) = (last.unwrap_or(admission), waited_for);
                }
                None => self.metrics.grace(GraceOutcome::Skipped),
            }
        }
        debug!(user.id = %claim.user, session.key = %claim.key, ?admission, "a start was decided");
        Ok(Decision {
            admission,
            limit,
            ticket,
            waited,
        })
    }

    /// This stream was seen running; `plan` is what its user is said to be on. An unknown one was counted when it asked to start.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn renew(
        &self,
        user: &UserId,
        plan: Option<&PlanName>,
        sighting: &Sighting,
    ) -> Result<Renewal, Outage> {
        let limit = self.policy.allowance(user, plan).allowance.limit;
        let renewal = self
            .timed(Operation::Renew, self.store.renew(user, sighting, limit))
            .await?;
        self.metrics.renewal(match renewal {
            Renewal::Renewed { .. } => RenewalOutcome::Renewed,
            Renewal::PutBack { .. } => RenewalOutcome::PutBack,
            Renewal::Ended(_) => RenewalOutcome::Ended,
            Renewal::Crowded => RenewalOutcome::Crowded,
        });
        debug!(user.id = %user, session.key = %sighting.key, ?renewal, "a running stream was seen");
        Ok(renewal)
    }

    /// This session is over.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        cause: ReleaseCause,
    ) -> Result<Released, Outage> {
        let released = self
            .timed(Operation::Release, self.store.release(user, key, ending))
            .await?;
        if let Released::Freed(_) = released {
            self.metrics.release(cause);
            self.grace.slot_freed(user);
        }
        debug!(user.id = %user, session.key = %key, ?ending, ?released, "a session is over");
        Ok(released)
    }

    /// The user's live sessions.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn list(&self, user: &UserId) -> Result<Listing, Outage> {
        self.timed(Operation::List, self.store.list(user)).await
    }

    /// Looks whether the store is there, so that its state is known where nobody asks for anything.
    pub async fn probe(&self) {
        // The outcome is noted on the way, and there is nobody else to tell.
        drop(self.timed(Operation::Ping, self.store.ping()).await);
    }

    /// How the store is, as its last calls showed it.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.pulse.health()
    }

    /// Asks the store for a slot.
    async fn try_start(
        &self,
        user: &UserId,
        start: &Start,
        limit: u32,
    ) -> Result<Admission, Outage> {
        let asked = self
            .timed(
                Operation::Admit,
                self.store.admit(user, start, limit, &WhenFull::Refuse),
            )
            .await;
        asked.map_err(|outage| Outage {
            doubtful: start.ticket.filter(|_| outage.error.outcome_is_unknown()),
            ..outage
        })
    }

    /// Waits for a slot, and tries again whenever one comes free and once at the end; the last answer, unless the caller has gone
    /// before there was another, and how long that took.
    async fn wait_for_slot(
        &self,
        turn: Turn<'_>,
        start: &Start,
        limit: u32,
        patience: &Patience,
    ) -> Result<(Option<Admission>, Duration), Outage> {
        loop {
            let woken = turn.wait(&patience.gone).await;
            if woken == Woken::CallerGone {
                self.metrics.grace(GraceOutcome::Refused);
                return Ok((None, turn.elapsed()));
            }
            let tried = self.try_start(turn.user(), start, limit).await;
            let waited = turn.elapsed();
            let admission = tried.map_err(|outage| Outage { waited, ..outage })?;
            let full = matches!(admission, Admission::Refused(Refusal::Full { .. }));
            if !full || woken == Woken::TurnOver || turn.is_over() {
                self.metrics.grace(if full {
                    GraceOutcome::Refused
                } else {
                    GraceOutcome::Admitted
                });
                return Ok((Some(admission), waited));
            }
        }
    }

    /// How many streams the user may watch. An unknown plan is counted, and logged once.
    fn limit(&self, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let resolved = self.policy.allowance(user, plan);
        if let (PlanMatch::Unknown, Some(plan)) = (resolved.plan, plan) {
            self.metrics.unknown_plan();
            let mut known = self
                .unknown_plans
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if known.len() < MAX_UNKNOWN_PLANS && known.insert(plan.clone()) {
                warn!(plan.name = %plan, limit = self.policy.default, "a plan that limits.plans doesn't have: the default applies");
            }
        }
        resolved.allowance.limit
    }

    /// Waits for the store, counts the call and notes what it says about the store's health.
    async fn timed<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Outage> {
        let asked = Stopwatch::start();
        let answer = call.await;
        self.metrics
            .store(operation, outcome(answer.as_ref().err()), asked.elapsed());
        self.pulse.note(answer.as_ref().err(), &self.metrics);
        answer.map_err(|error| Outage {
            error,
            doubtful: None,
            waited: Duration::ZERO,
        })
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
