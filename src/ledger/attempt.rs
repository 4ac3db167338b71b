//! One attempt to start a session: what the claim asks for, and what the store or the outage rule answers.

use std::time::Duration;

use super::Ledger;
use super::decision::{Decision, Outage};
use super::lease_cache::{Confirmed, ForgetSignal, ReadVersion};
use crate::session::{
    Admission, AdmissionKind, Admitted, Ending, Refusal, Renewal, Session, Start, StartRules,
    UserId, WhenFull,
};
use crate::store::Seen;
use crate::telemetry::metrics::Operation;

/// A start, with everything that decides about it: one snapshot of the settings, taken when the claim came.
#[derive(Debug, Clone)]
pub(super) struct StartAttempt<'a> {
    /// Whose stream it is.
    pub(super) user: &'a UserId,
    /// The session that wants to start.
    pub(super) start: Start,
    /// What the store decides by.
    pub(super) rules: StartRules,
    /// How many streams the user may watch.
    pub(super) limit: u32,
    /// Whether it may take a slot; where it may not, the limit in `rules` is 0, so that what is
    /// live is renewed and nothing is started.
    pub(super) mode: Mode,
    /// How long it may wait for a slot: `limits.grace`.
    pub(super) grace: Duration,
}

/// What a stream asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A slot, if it has none.
    Slot,
    /// To keep the slot that it has.
    GoOn,
}

impl Ledger {
    /// Renews a session that this instance holds but must ask the store about. `None` if it is not held any more, or can't go on.
    pub(super) async fn go_on(
        &self,
        attempt: &StartAttempt<'_>,
    ) -> Option<Result<Decision, Outage>> {
        let StartAttempt {
            user, start, limit, ..
        } = attempt;
        let seen = Seen {
            limit: *limit,
            ..self.cache.sighting(user, &start.key)?
        };
        self.renews_itself(&seen);
        let renewed = match self.settle_ends(user).await {
            Ok(()) => self.tell_running(&seen).await,
            Err(outage) => Err(outage),
        };
        let admission = match renewed {
            Ok(Renewal::Renewed { .. } | Renewal::PutBack { .. } | Renewal::Provisional { .. }) => {
                Admission::Admitted(self.cache.admitted(user, &start.key)?)
            }
            // Whether it may start again is for the store to say.
            Ok(Renewal::Ended(_) | Renewal::Crowded) => return None,
            Err(outage) => return Some(self.by_rule(attempt, outage)),
        };
        Some(Ok(Decision::of_store(admission, attempt)))
    }

    /// Asks the store for a slot, or the outage rule if the store can't answer. A takeover names an
    /// id, which is taken for a playback's; if no playback has it, but another session with a slot
    /// does, the takeover means that session.
    pub(super) async fn attempt(&self, attempt: &StartAttempt<'_>) -> Result<Decision, Outage> {
        let decision = match self.try_start(attempt).await {
            Ok(admission) => Decision::of_store(admission, attempt),
            Err(outage) => self.by_rule(attempt, outage)?,
        };
        let WhenFull::TakeOver(named) = &attempt.rules.when_full else {
            return Ok(decision);
        };
        let Admission::Refused(Refusal::Full { holders, .. }) = &decision.admission else {
            return Ok(decision);
        };
        let mut keys = holders.iter().map(|session| &session.key);
        match keys.find(|key| key.id == named.id && key.kind != named.kind) {
            Some(meant) if meant.kind.is_stoppable() => {
                let when_full = WhenFull::TakeOver(meant.clone());
                self.attempt_again(attempt, when_full).await
            }
            Some(_) => Ok(Decision {
                admission: Admission::Refused(Refusal::NotStoppable),
                ..decision
            }),
            None => Ok(decision),
        }
    }

    /// Asks for the same slot, with something else to happen where all are taken.
    async fn attempt_again(
        &self,
        attempt: &StartAttempt<'_>,
        when_full: WhenFull,
    ) -> Result<Decision, Outage> {
        let mut attempt = attempt.clone();
        attempt.rules.when_full = when_full;
        match self.try_start(&attempt).await {
            Ok(admission) => Ok(Decision::of_store(admission, &attempt)),
            Err(outage) => self.by_rule(&attempt, outage),
        }
    }

    /// The same for a session that may be held: if the store has forgotten it, and now finds no slot for it, it is told that it runs.
    pub(super) async fn attempt_knowing(
        &self,
        attempt: &StartAttempt<'_>,
    ) -> Result<Decision, Outage> {
        let was_sure = self.cache.signal(attempt.user, &attempt.start.key) == ForgetSignal::Proof;
        let decision = self.attempt(attempt).await?;
        match &decision.admission {
            Admission::Admitted(admitted)
                if was_sure && admitted.entry == AdmissionKind::Started =>
            {
                self.suspect_loss(attempt.user, &attempt.start.key);
                Ok(decision)
            }
            Admission::Refused(Refusal::Full { .. }) if was_sure => {
                let Some(seen) = self.cache.sighting(attempt.user, &attempt.start.key) else {
                    return Ok(decision);
                };
                match self.tell_running(&seen).await {
                    Ok(_) => self.attempt(attempt).await,
                    Err(outage) => self.by_rule(attempt, outage),
                }
            }
            Admission::Admitted(_) | Admission::Refused(_) => Ok(decision),
        }
    }

    /// Asks the store for a slot, once it has been told what it is yet to be told of this user. If it can't be told, it isn't asked: that
    /// would cost the caller another deadline.
    pub(super) async fn try_start(&self, attempt: &StartAttempt<'_>) -> Result<Admission, Outage> {
        let StartAttempt { user, start, .. } = attempt;
        let mut known = self.cache.before_start(user, &start.key);
        if known.is_unsynced {
            self.settle(user).await?;
            known = self.cache.before_start(user, &start.key);
        }
        let admission = self.ask_for_slot(attempt).await?;
        if let (Some(ticket), Admission::Admitted(admitted)) = (start.ticket, &admission)
            && known.sure_beside > 0
            && self.is_contradicted(attempt, admitted, known.sure_beside)
            && self.has_forgotten_others(user, &start.key).await
        {
            // Beside those that it had forgotten there may be no room for this one, which nobody has been told of yet.
            let undoing = Ending::Undone(ticket);
            let undone = self.tell_ended(user, &start.key, undoing, Duration::ZERO);
            undone.await.map_err(|outage| Outage {
                doubtful: Some(ticket),
                ..outage
            })?;
            let version = self.cache.version(user);
            let admission = self.ask_for_slot(attempt).await?;
            self.hold(attempt, version, &admission);
            return Ok(admission);
        }
        self.hold(attempt, known.version, &admission);
        Ok(admission)
    }

    /// Asks the store for a slot.
    async fn ask_for_slot(&self, attempt: &StartAttempt<'_>) -> Result<Admission, Outage> {
        let StartAttempt {
            user, start, rules, ..
        } = attempt;
        let asked = self
            .timed(Operation::Admit, || self.store.admit(user, start, rules))
            .await;
        asked.map_err(|outage| Outage {
            doubtful: start.ticket.filter(|_| outage.error.outcome_is_unknown()),
            ..outage
        })
    }

    /// Holds what the store has answered to a start.
    fn hold(&self, attempt: &StartAttempt<'_>, version: ReadVersion, admission: &Admission) {
        let StartAttempt {
            user, start, limit, ..
        } = attempt;
        match admission {
            Admission::Admitted(admitted) => {
                let is_start = admitted.entry == AdmissionKind::Started;
                let Session {
                    expires_at, flags, ..
                } = admitted.session;
                let confirmed = Confirmed {
                    key: &start.key,
                    facts: &start.facts,
                    started_at: is_start.then_some(admitted.decided_at),
                    lease: start.lease.min(expires_at.since(admitted.decided_at)),
                    limit: *limit,
                    derived: flags.derived,
                    played: flags.played,
                    provisional: flags.provisional,
                };
                let displaced = &admitted.displaced;
                self.cache.confirmed(user, version, &confirmed, displaced);
            }
            Admission::Refused(Refusal::Ended(cause, _)) => {
                self.cache.ended(user, &start.key, Some(cause.clone()));
            }
            Admission::Refused(Refusal::Full { .. } | Refusal::NotStoppable) => {}
        }
    }

    /// Whether the store has let a session in and counts fewer than it must still do: some have ended elsewhere, or it has forgotten. Those
    /// that must still count are fewer than were held when it was asked, if some have ended here meanwhile. Where others gave way, it
    /// has counted up to the limit itself.
    fn is_contradicted(
        &self,
        attempt: &StartAttempt<'_>,
        admitted: &Admitted,
        held_before: usize,
    ) -> bool {
        let held = self.cache.sure_beside(attempt.user, &attempt.start.key);
        admitted.entry == AdmissionKind::Started
            && admitted.displaced.is_empty()
            && admitted.active <= held.min(held_before)
    }
}
