//! A claim becomes a start, with the rules that apply to it, and is decided.

use std::sync::PoisonError;

use tracing::{debug, warn};

use super::attempt::{Mode, StartAttempt};
use super::decision::{Basis, CallerDeadline, Decision, Outage, UndoHint};
use super::grace::{FreedCount, GraceWait, WakeReason};
use super::{CacheLookup, Ledger};
use crate::clock::Stopwatch;
use crate::config::{self, Changeable};
use crate::identity::Claim;
use crate::policy::{PlanMatch, Policy};
use crate::session::{
    Admission, Kind, PlanName, Refusal, SessionKey, Start, StartRules, Takeover, Ticket, UserId,
    WhenFull,
};
use crate::telemetry::metrics::GraceOutcome;

/// How many names of unknown plans are remembered as already logged.
pub(super) const MAX_UNKNOWN_PLANS: usize = 1000;

impl Ledger {
    /// May this stream start, or go on? At a full limit the answer may wait, as long as `caller` has room for it. `lookup` is what
    /// [`Self::lookup`] has said of the claim.
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
        self.with_grace(&attempt, decided?, caller, began).await
    }

    /// The same for a client that says how its stream stands and wants to hear how its user's do: the store is always asked.
    ///
    /// # Errors
    /// The store could not answer, and the outage rule is to say so.
    pub async fn heartbeat(
        &self,
        claim: &Claim,
        settings: &Changeable,
        caller: &CallerDeadline,
    ) -> Result<Decision, Outage> {
        let began = (self.grace.freed_count(), Stopwatch::start());
        let attempt = self.start_of(claim, Mode::Slot, settings);
        let decision = self.attempt_knowing(&attempt).await?;
        self.with_grace(&attempt, decision, caller, began).await
    }

    /// The same for a client that wants its stream to go on and not to start; `None` if it isn't live.
    ///
    /// # Errors
    /// The store could not answer, and nothing is known here of that stream.
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
        Ok((!unknown).then_some(decision))
    }

    /// What a claim asks for, by the caller's snapshot of the settings. A takeover names a session by its id alone, which is taken for
    /// a playback's.
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

    /// Lets a start that found all slots taken wait for one, where it may.
    async fn with_grace(
        &self,
        attempt: &StartAttempt<'_>,
        decision: Decision,
        caller: &CallerDeadline,
        (freed, asked): (FreedCount, Stopwatch),
    ) -> Result<Decision, Outage> {
        let StartAttempt {
            user, start, limit, ..
        } = attempt;
        let mut decision = decision;
        if let Admission::Refused(Refusal::Full { .. }) = decision.admission {
            let since = (freed, asked.elapsed());
            match self
                .grace
                .enter(user, (*limit, attempt.grace), caller, since)
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

    /// Waits for a slot, and tries again whenever one comes free and once at the end; the last answer, unless the caller has gone
    /// before there was another. What the store has refused stays refused should it fail meanwhile.
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
                // Should it hear of it all the same, it is told what it was told at first.
                self.metrics.grace(GraceOutcome::Refused);
                last.waited = turn.began.elapsed();
                return Ok(last);
            }
            let next = match (self.try_start(attempt).await, last.basis) {
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
            // An earlier try may have taken place unheard; what it may have left is taken back unless a later one was let in.
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

    /// How many streams the user may watch. An unknown plan is counted, and logged once; a missing one is counted.
    pub(super) fn limit(&self, policy: &Policy, user: &UserId, plan: Option<&PlanName>) -> u32 {
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
        resolved.limit
    }
}
