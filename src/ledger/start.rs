//! Turns a claim into a start, with the rules that apply to it, and decides it.

use std::time::Duration;

use tracing::{debug, warn};

use super::attempt::{Mode, StartAttempt};
use super::decision::{Basis, CallerDeadline, Decision, Outage, UndoHint};
use super::grace::{FreedCount, GraceWait, WakeReason};
use super::{CacheLookup, Ledger};
use crate::clock::Stopwatch;
use crate::config::{self, Changeable};
use crate::identity::{Claim, Kind, PlanName, SessionKey, Takeover, UserId};
use crate::policy::{PlanMatch, Policy};
use crate::session::{Admission, Ending, Refusal, Start, StartRules, Ticket, WhenFull};
use crate::telemetry::metrics::GraceOutcome;
use crate::util::lock;

/// How many names of unknown plans are remembered as already logged.
pub(super) const MAX_UNKNOWN_PLANS: usize = 1000;

impl Ledger {
    /// Decides whether this stream may start or continue. At a full limit the answer may wait, as
    /// long as `caller` has time for it. `lookup` is the result of [`Self::lookup`] for the claim.
    ///
    /// # Errors
    /// The store could not answer, and the outage rule denies.
    pub async fn admit(
        &self,
        claim: &Claim,
        lookup: CacheLookup,
        settings: &Changeable,
        caller: &CallerDeadline,
    ) -> Result<Decision, Outage> {
        let began = (self.grace.freed_count(), Stopwatch::start());
        let attempt = self.start_of(claim, Mode::Slot, settings);
        let renewed = match lookup {
            CacheLookup::Ask => self.go_on(&attempt).await,
            CacheLookup::Good { .. } | CacheLookup::Unknown => None,
        };
        let decided = match renewed {
            Some(decided) => decided,
            None => self.attempt(&attempt).await,
        };
        let decided = match decided {
            Ok(decision) => self.with_grace(&attempt, decision, caller, began).await,
            Err(outage) => Err(outage),
        };
        self.note_decided(claim, settings, decided)
    }

    /// The same for a client that reports on its stream and wants to know the state of its user's:
    /// it always asks the store.
    ///
    /// # Errors
    /// The store could not answer, and the outage rule reports that.
    pub async fn heartbeat(
        &self,
        claim: &Claim,
        settings: &Changeable,
        caller: &CallerDeadline,
    ) -> Result<Decision, Outage> {
        let began = (self.grace.freed_count(), Stopwatch::start());
        let attempt = self.start_of(claim, Mode::Slot, settings);
        let decided = match self.attempt_knowing(&attempt).await {
            Ok(decision) => self.with_grace(&attempt, decision, caller, began).await,
            Err(outage) => Err(outage),
        };
        self.note_decided(claim, settings, decided)
    }

    /// Counts a decision in the installation's numbers.
    fn note_decided(
        &self,
        claim: &Claim,
        settings: &Changeable,
        decided: Result<Decision, Outage>,
    ) -> Result<Decision, Outage> {
        let plans = &settings.limits.policy.plans;
        let plan = claim.plan.as_ref().filter(|plan| plans.contains_key(*plan));
        match &decided {
            Ok(decision) => match &decision.admission {
                Admission::Admitted(admitted) => {
                    let limit = decision.limit;
                    self.statistics.admitted(claim, plan, admitted, limit);
                }
                Admission::Refused(refusal) => {
                    let by_rule = matches!(decision.basis, Basis::Rule(_));
                    self.statistics.refused(claim, plan, refusal, by_rule);
                }
            },
            Err(_) => self.statistics.undecided(),
        }
        decided
    }

    /// The same for a client that wants its stream to continue but not to start; `None` if it isn't
    /// live.
    ///
    /// # Errors
    /// The store could not answer, and nothing is known here about that stream.
    pub async fn refresh(
        &self,
        claim: &Claim,
        settings: &Changeable,
    ) -> Result<Option<Decision>, Outage> {
        let attempt = self.start_of(claim, Mode::GoOn, settings);
        let decision = self.attempt_knowing(&attempt).await?;
        let unknown = matches!(
            decision.admission,
            Admission::Refused(Refusal::Full { .. } | Refusal::NotStoppable)
        );
        if unknown {
            return Ok(None);
        }
        self.note_decided(claim, settings, Ok(decision)).map(Some)
    }

    /// The start that a claim asks for, under the caller's snapshot of the settings. A takeover
    /// names a session only by its id, which is taken to be a playback's.
    fn start_of<'a>(
        &self,
        claim: &'a Claim,
        mode: Mode,
        settings: &Changeable,
    ) -> StartAttempt<'a> {
        let limits = &settings.limits;
        let start = Start {
            key: claim.key.clone(),
            facts: claim.facts.clone(),
            lease: self.leases.of(claim.key.kind),
            ticket: Ticket::new(rand::random()),
            derived: claim.derived,
        };
        let when_full = match &claim.takeover {
            None => match limits.when_full {
                config::FullRule::Refuse => WhenFull::Refuse,
                config::FullRule::DisplaceOldest => WhenFull::DisplaceOldest,
                config::FullRule::DisplaceIdlest => WhenFull::DisplaceIdlest,
            },
            Some(Takeover::Oldest) => WhenFull::DisplaceOldest,
            Some(Takeover::Session(id)) => WhenFull::TakeOver(SessionKey {
                kind: Kind::Playback,
                id: id.clone(),
            }),
        };
        let limit = self.limit(&limits.policy, &claim.user, claim.plan.as_ref());
        let rules = StartRules {
            limit: match mode {
                Mode::Slot => limit,
                Mode::GoOn => 0,
            },
            when_full,
            takeover: claim.takeover.is_some(),
            displacements: limits.displacements,
            free: claim.free,
            quiet: limits.quiet,
            renews_only: mode == Mode::GoOn,
            message: claim.message.clone(),
        };
        StartAttempt {
            user: &claim.user,
            start,
            rules,
            limit,
            mode,
            grace: limits.grace,
        }
    }

    /// Lets a start that found all slots taken wait for one, if it may.
    async fn with_grace(
        &self,
        attempt: &StartAttempt<'_>,
        decision: Decision,
        caller: &CallerDeadline,
        (freed, asked): (FreedCount, Stopwatch),
    ) -> Result<Decision, Outage> {
        let StartAttempt { user, start, .. } = attempt;
        let mut decision = decision;
        if let Admission::Refused(Refusal::Full { .. }) = decision.admission {
            let since = (freed, asked.elapsed());
            match self
                .grace
                .enter(user, (decision.limit, attempt.grace), caller, since)
            {
                Some(turn) => {
                    decision = self.wait_for_slot(turn, attempt, decision, caller).await?;
                }
                None => self.metrics.grace(GraceOutcome::Skipped),
            }
        }
        if decision.is_start() {
            self.metrics.start(start.key.kind);
        }
        if start.key.kind == Kind::Request {
            self.note_request(user, start, &decision);
        }
        debug!(user.id = user.as_str(), session.key = %start.key, ?decision, "a start was decided");
        Ok(decision)
    }

    /// Records the decision about a `request`, which Envoy's access log should report. A second
    /// check of a running one has renewed it.
    fn note_request(&self, user: &UserId, start: &Start, decision: &Decision) {
        match (decision.is_start(), decision.basis, start.ticket) {
            (true, Basis::Store, Some(ticket)) => self.wiring.begun(user, &start.key, ticket),
            (false, ..) if !decision.is_refused() => self.wiring.exclude(user, &start.key),
            _ => {}
        }
    }

    /// Waits for a slot, and tries again whenever one comes free and once at the end. Returns the
    /// last answer, unless the caller leaves before there is another. What the store has refused
    /// stays refused if the store fails meanwhile.
    async fn wait_for_slot(
        &self,
        turn: GraceWait<'_>,
        attempt: &StartAttempt<'_>,
        refused: Decision,
        caller: &CallerDeadline,
    ) -> Result<Decision, Outage> {
        let mut last = refused;
        loop {
            let woken = turn.wait(&caller.gone).await;
            if woken == WakeReason::CallerGone {
                // If it still listens, it gets its first answer.
                self.metrics.grace(GraceOutcome::Refused);
                last.waited = turn.began.elapsed();
                return Ok(last);
            }
            let next = match (self.try_again(attempt, last.undo).await, last.basis) {
                (Ok(admission), _) => Decision::of_store(admission, attempt),
                (Err(outage), Basis::Store) => Decision {
                    admission: last.admission.clone(),
                    undo: outage.doubtful.map_or(last.undo, UndoHint::Doubtful),
                    ..last
                },
                (Err(outage), _) => self.by_rule(attempt, outage).map_err(|outage| {
                    let waited = turn.began.elapsed();
                    Outage { waited, ..outage }
                })?,
            };
            // An earlier try may have taken place although its answer was lost; its effect is taken
            // back unless a later one was admitted.
            let undo = match (next.undo, last.undo) {
                (UndoHint::Nothing, earlier) if next.is_refused() => earlier,
                (undo, _) => undo,
            };
            last = Decision {
                waited: turn.began.elapsed(),
                undo,
                ..next
            };
            let full = matches!(last.admission, Admission::Refused(Refusal::Full { .. }));
            if !full || woken == WakeReason::TurnOver || last.waited >= turn.room {
                self.metrics.grace(if last.is_refused() {
                    GraceOutcome::Refused
                } else {
                    GraceOutcome::Admitted
                });
                return Ok(last);
            }
        }
    }

    /// Tries once more to start, for a call whose earlier try may have taken place although its
    /// answer was lost. That one is taken back first: this try would find its session and renew it,
    /// and a session that was renewed can't be taken back if the caller leaves.
    async fn try_again(
        &self,
        attempt: &StartAttempt<'_>,
        earlier: UndoHint,
    ) -> Result<Admission, Outage> {
        if let UndoHint::Doubtful(ticket) = earlier {
            let (user, key) = (attempt.user, &attempt.start.key);
            let undoing = (Ending::Undone(ticket), None);
            let undone = self.tell_ended(user, key, undoing, Duration::ZERO);
            undone.await.map_err(|outage| Outage {
                doubtful: Some(ticket),
                ..outage
            })?;
        }
        self.try_start(attempt).await
    }

    /// The user's limit. An unknown plan is counted, and logged once; a missing one is counted.
    pub(super) fn limit(&self, policy: &Policy, user: &UserId, plan: Option<&PlanName>) -> u32 {
        let resolved = policy.allowance(user, plan);
        if resolved.plan == PlanMatch::Missing {
            self.metrics.missing_plan();
        }
        if let (PlanMatch::Unknown, Some(plan)) = (resolved.plan, plan) {
            self.metrics.unknown_plan();
            let mut known = lock(&self.unknown_plans);
            if known.len() < MAX_UNKNOWN_PLANS && known.insert(plan.clone()) {
                warn!(plan.name = %plan, limit = policy.default, "a plan that limits.plans doesn't have: the default applies");
            }
        }
        resolved.limit
    }
}
