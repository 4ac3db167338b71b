//! Tells the store how streams go on: renewed, played, ended.

use std::time::Duration;

use tracing::debug;

use super::Ledger;
use super::decision::Outage;
use super::lease_cache::{Confirmed, ForgetSignal, ReadVersion};
use crate::session::{
    EndCause, Ending, Kind, PlanName, Provenance, Released, Renewal, SessionId, SessionKey,
    Sighting, UserId,
};
use crate::store::Seen;
use crate::telemetry::metrics::{Lapse, Operation, ReleaseCause, RenewalOutcome};

impl Ledger {
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
                self.cache.sighted(user, sighting, seen.limit);
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
        let version = self.cache.version(user);
        let told = self
            .timed(Operation::Played, || self.store.played(user, key))
            .await;
        match told {
            Ok(Some(playing)) => {
                let limit = self.limit_of(user, None);
                self.cache.playing(user, version, key, playing, limit);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(outage) => {
                self.cache.played_untold(user, key);
                Err(outage)
            }
        }
    }

    /// This session is over, as somebody said `age` ago.
    ///
    /// # Errors
    /// The store could not answer. The end is remembered and told before the user's other sessions are, but whoever has to be sure that it is
    /// told hands it to the outbox.
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
                self.cache.ended_untold(user, key, ending, cause, age);
                self.grace.slot_freed(user);
            }
        }
        debug!(user.id = user.as_str(), session.key = %key, ?ending, ?told, "a session is over");
        told
    }

    /// Tells the store that a stream runs, and holds what it answers.
    pub(super) async fn tell_running(&self, seen: &Seen) -> Result<Renewal, Outage> {
        let (user, sighting) = (&seen.user, &seen.sighting);
        let version = self.cache.version(user);
        let renewal = self
            .timed(Operation::Renew, || {
                self.store.renew(user, sighting, seen.limit)
            })
            .await?;
        self.note_renewal(seen, version, &renewal);
        Ok(renewal)
    }

    /// This instance is about to renew that session, without a report of Envoy's access log.
    pub(super) fn renews_itself(&self, seen: &Seen) {
        if seen.sighting.key.kind == Kind::Request {
            self.wiring.exclude(&seen.user, &seen.sighting.key);
        }
    }

    /// Holds what the store has answered to a renewal.
    pub(super) fn note_renewal(&self, seen: &Seen, version: ReadVersion, renewal: &Renewal) {
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
        debug!(user.id = user.as_str(), session.key = %sighting.key, ?renewal, "a running stream was seen");
        let confirmed = Confirmed {
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
                self.cache.confirmed(user, version, &confirmed, &[]);
            }
            Renewal::PutBack { .. } => {
                if sighting.key.kind == Kind::Request {
                    self.metrics.lapse(Lapse::Periodic);
                }
                let signal = self.cache.signal(user, &sighting.key);
                self.cache.confirmed(user, version, &confirmed, &[]);
                match signal {
                    ForgetSignal::Proof | ForgetSignal::Doubt => {
                        self.suspect_loss(user, &sighting.key);
                    }
                    ForgetSignal::None => {}
                }
            }
            Renewal::Ended(cause) => self.cache.ended(user, &sighting.key, Some(cause.clone())),
            Renewal::Crowded => self.cache.crowded(user, sighting),
        }
    }

    /// Tells the store that a session is over. Nobody is answered from memory meanwhile, nor by what was asked before.
    pub(super) async fn tell_ended(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, Outage> {
        // What has not played is never answered from memory, and a failure means nothing to what has.
        if ending != Ending::Failed {
            self.cache.ending(user, key);
        }
        let released = self
            .timed(Operation::Release, || {
                self.store.release(user, key, ending, age)
            })
            .await?;
        match (&released, ending) {
            (_, Ending::Undone(ticket)) => {
                let was_there = matches!(released, Released::Freed(_));
                self.cache.undone(user, key, ticket, was_there);
            }
            (Released::Kept | Released::NotStoppable, _) | (Released::NotLive, Ending::Failed) => {}
            (Released::Freed(_), Ending::Failed) => self.cache.ended(user, key, None),
            (Released::AlreadyEnded(cause), _) => self.cache.ended(user, key, Some(cause.clone())),
            (Released::Freed(_) | Released::NotLive, Ending::Operator) => {
                self.cache.ended(user, key, Some(EndCause::Operator));
            }
            (Released::Freed(_) | Released::NotLive, _) => {
                self.cache.ended(user, key, Some(EndCause::Released));
            }
        }
        Ok(released)
    }
}
