//! One attempt to start a session: what the claim asks for, and the answer of the store or the
//! outage rule.

use std::time::Duration;

use super::Ledger;
use super::decision::{Decision, Outage};
use super::lease_cache::{Confirmed, ForgetSignal, ReadVersion};
use crate::identity::UserId;
use crate::session::{
    Admission, AdmissionKind, Admitted, Ending, Refusal, Renewal, Session, Start, StartRules,
    WhenFull,
};
use crate::store::Seen;
use crate::telemetry::metrics::Operation;

/// A start, with everything that decides it: one snapshot of the settings, taken when the claim
/// arrived.
#[derive(Debug, Clone)]
pub(super) struct StartAttempt<'a> {
    /// The stream's user.
    pub(super) user: &'a UserId,
    /// The session to start.
    pub(super) start: Start,
    /// The rules for the store.
    pub(super) rules: StartRules,
    /// How many streams the user may watch.
    pub(super) limit: u32,
    /// Whether it may take a slot. If it may not, the limit in `rules` is zero: live sessions are
    /// renewed but nothing is started.
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
    /// Renews a session that this instance holds but must ask the store about. `None` if it is no
    /// longer held, or can't continue.
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
            // The store decides whether it may start again.
            Ok(Renewal::Ended(_) | Renewal::Crowded) => return None,
            Err(outage) => return Some(self.by_rule(attempt, outage)),
        };
        Some(Ok(Decision::of_store(admission, attempt)))
    }

    /// Asks the store for a slot, or the outage rule if the store can't answer. A takeover names an
    /// id, which at first is taken to be a playback's; if no playback has it, but another session
    /// with a slot does, the takeover means that session.
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

    /// Asks for the same slot again, with another rule for when all slots are taken.
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

    /// The same for a session that may be held: if the store has lost it, and now finds no slot for
    /// it, the ledger reports it as running.
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

    /// Asks the store for a slot, after syncing this user's sessions and ends. If the sync fails,
    /// the store isn't asked, because that would cost the caller another deadline.
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
            // With the sessions that the store had lost there may be no room for this one, which no
            // caller knows about yet.
            let undoing = Ending::Undone(ticket);
            let undone = self.tell_ended(user, &start.key, (undoing, None), Duration::ZERO);
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
            .timed(Operation::Admit, user, || {
                self.store.admit(user, start, rules)
            })
            .await;
        asked.map_err(|outage| Outage {
            doubtful: start.ticket.filter(|_| outage.error.outcome_is_unknown()),
            ..outage
        })
    }

    /// Caches the store's answer to a start.
    fn hold(&self, attempt: &StartAttempt<'_>, version: ReadVersion, admission: &Admission) {
        let StartAttempt {
            user, start, limit, ..
        } = attempt;
        match admission {
            Admission::Admitted(admitted) => {
                let Session {
                    started_at,
                    expires_at,
                    flags,
                    ..
                } = admitted.session;
                let confirmed = Confirmed {
                    key: &start.key,
                    facts: &start.facts,
                    started_at: Some(started_at),
                    lease: start.lease.min(expires_at.since(admitted.decided_at)),
                    limit: *limit,
                    derived: flags.derived,
                    played: flags.played,
                    provisional: flags.provisional,
                    ticket: start
                        .ticket
                        .filter(|_| admitted.entry == AdmissionKind::Started),
                };
                let displaced = &admitted.displaced;
                self.cache.confirmed(user, version, &confirmed, displaced);
            }
            Admission::Refused(Refusal::Ended(cause, ..)) => {
                self.cache.ended(user, &start.key, Some(cause.clone()));
            }
            Admission::Refused(Refusal::Full { .. } | Refusal::NotStoppable) => {}
        }
    }

    /// Whether the store admitted a session but counts fewer than it must still count: some have
    /// ended elsewhere, or the store has lost them. If some have ended here meanwhile, the store
    /// must count fewer than were held when it was asked. If others were displaced, the store has
    /// counted up to the limit itself.
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
