//! Tells the store how streams develop: renewed, played, ended.

use std::time::Duration;

use tracing::debug;

use super::Ledger;
use super::decision::Outage;
use super::lease_cache::{Confirmed, ForgetSignal, ReadVersion};
use super::recent_ends::RecentEnd;
use crate::clock::Timestamp;
use crate::events::{Event, EventType};
use crate::identity::{EndMessage, Kind, PlanName, SessionId, SessionKey, UserId};
use crate::session::{EndCause, Ending, Provenance, Released, Renewal, Sighting};
use crate::store::Seen;
use crate::telemetry::metrics::{Lapse, Operation, RenewalOutcome};

impl Ledger {
    /// Reports that this stream was seen running. `plan` is its user's plan according to the
    /// request, and `response` identifies the one response that was seen, if the gateway told. A
    /// response that continues after its playback's end is counted as a `request`, because nothing
    /// here can stop it.
    ///
    /// # Errors
    /// The store could not answer. The ledger remembers that the stream is running.
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

    /// Records Envoy's report that a request of this session reached its viewer.
    ///
    /// # Errors
    /// The store could not answer.
    pub async fn played(&self, user: &UserId, key: &SessionKey) -> Result<(), Outage> {
        let version = self.cache.version(user);
        let told = self
            .timed(Operation::Played, user, || self.store.played(user, key))
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

    /// Ends this session, as somebody reported `age` ago.
    ///
    /// # Errors
    /// The store could not answer. The ledger remembers the end and reports it before the user's
    /// sessions, but callers that need certainty pass it to the outbox.
    pub async fn release(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
    ) -> Result<Released, Outage> {
        self.release_telling(user, key, (ending, None), age).await
    }

    /// The same, with the message of an operator's end for the viewer. An end that is only reported
    /// after an outage comes without it.
    ///
    /// # Errors
    /// See [`Self::release`].
    pub async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        (ending, message): (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<Released, Outage> {
        if matches!(ending, Ending::Undone(_)) {
            self.wiring.exclude(user, key);
        }
        let said_at = self.now().before(age);
        let told = self.tell_ended(user, key, (ending, message), age).await;
        match &told {
            Ok(Released::Freed) => {
                self.metrics.release(ending);
                self.statistics.released();
                self.grace.slot_freed(user);
            }
            // It was let in, and nobody has reported its end before.
            Ok(Released::NotLive) if ending == Ending::Stream => {
                self.metrics.lapse(Lapse::End);
            }
            Ok(_) => {}
            Err(_) => {
                self.cache.ended_untold(user, key, ending, said_at);
                if !matches!(ending, Ending::Undone(_) | Ending::Failed) {
                    self.statistics.ended(user, key);
                }
                self.grace.slot_freed(user);
            }
        }
        debug!(user.id = user.as_str(), session.key = %key, ?ending, ?told, "a session is over");
        told
    }

    /// Reports a running stream to the store, and caches its answer.
    pub(super) async fn tell_running(&self, seen: &Seen) -> Result<Renewal, Outage> {
        let (user, sighting) = (&seen.user, &seen.sighting);
        let version = self.cache.version(user);
        let renewal = self
            .timed(Operation::Renew, user, || {
                self.store.renew(user, sighting, seen.limit)
            })
            .await?;
        self.note_renewal(seen, version, &renewal);
        Ok(renewal)
    }

    /// Records that this instance is about to renew that session, without a report of Envoy's
    /// access log.
    pub(super) fn renews_itself(&self, seen: &Seen) {
        if seen.sighting.key.kind == Kind::Request {
            self.wiring.exclude(&seen.user, &seen.sighting.key);
        }
    }

    /// Caches the store's answer to a renewal.
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
        let is_provisional = matches!(renewal, Renewal::Provisional { .. });
        let confirmed = Confirmed {
            key: &sighting.key,
            facts: &sighting.facts,
            started_at: sighting.started_at,
            // A provisional session's lease may not have grown, and its end is in the store's time.
            lease: match is_provisional {
                true => Duration::ZERO,
                false => sighting.lease,
            },
            limit: *limit,
            derived: sighting.derived,
            played: sighting.provenance != Provenance::Unplayed,
            provisional: is_provisional,
            ticket: None,
        };
        self.count_renewal(seen, renewal);
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

    /// Counts a renewal in the installation's numbers.
    fn count_renewal(&self, seen: &Seen, renewal: &Renewal) {
        let Seen {
            user,
            sighting: Sighting {
                key, facts, lease, ..
            },
            limit,
        } = seen;
        let statistics = &self.statistics;
        match renewal {
            Renewal::Renewed { .. } | Renewal::PutBack { .. } => {
                statistics.running(user, key, facts, *limit, Some(*lease));
            }
            Renewal::Provisional { .. } => statistics.running(user, key, facts, *limit, None),
            Renewal::Ended(_) => statistics.ended(user, key),
            Renewal::Crowded => {}
        }
    }

    /// Reports an end to the store. Meanwhile no request is answered from memory, nor by an answer
    /// to an earlier question.
    pub(super) async fn tell_ended(
        &self,
        user: &UserId,
        key: &SessionKey,
        (ending, message): (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<Released, Outage> {
        // A session that hasn't played is never answered from memory, and a failure doesn't concern
        // one that has.
        if ending != Ending::Failed {
            self.cache.ending(user, key);
        }
        let (released, at) = self
            .timed(Operation::Release, user, || {
                self.store
                    .release_telling(user, key, (ending, message), age)
            })
            .await?;
        if released == Released::Freed {
            self.freed(user, key, ending, (age, at));
        }
        match &released {
            Released::Kept | Released::NotStoppable => {}
            // An undo doesn't concern a session that others have renewed.
            Released::NotLive | Released::AlreadyEnded(_)
                if matches!(ending, Ending::Undone(_)) => {}
            Released::Freed | Released::NotLive | Released::AlreadyEnded(_) => {
                self.statistics.ended(user, key);
            }
        }
        match (&released, ending) {
            (_, Ending::Undone(ticket)) => {
                let was_there = released == Released::Freed;
                self.cache.undone(user, key, ticket, was_there);
            }
            (Released::Kept | Released::NotStoppable, _) | (Released::NotLive, Ending::Failed) => {}
            (Released::Freed, Ending::Failed) => self.cache.ended(user, key, None),
            (Released::AlreadyEnded(cause), _) => self.cache.ended(user, key, Some(cause.clone())),
            (Released::Freed | Released::NotLive, Ending::Operator) => {
                self.cache.ended(user, key, Some(EndCause::Operator));
            }
            (Released::Freed | Released::NotLive, _) => {
                self.cache.ended(user, key, Some(EndCause::Released));
            }
        }
        Ok(released)
    }

    /// Keeps an end that has freed a slot, in case a promoted replica lacks it, and tells operators
    /// of it. `age` is how long ago it was reported, `at` the store's time of the operation.
    fn freed(
        &self,
        user: &UserId,
        key: &SessionKey,
        ending: Ending,
        (age, at): (Duration, Option<Timestamp>),
    ) {
        // A start that is taken back may be made again at once, under the same ticket.
        if !matches!(ending, Ending::Undone(_)) {
            let now = self.now();
            let end = RecentEnd {
                user: user.clone(),
                key: key.clone(),
                ending,
                said_at: now.before(age),
            };
            self.recent_ends.keep(end, now);
        }
        self.events.tell(at, || {
            let cause = match ending {
                Ending::Stream | Ending::Abandoned | Ending::Outlived | Ending::Vouched => {
                    "released"
                }
                Ending::GaveWay => "displaced",
                Ending::Operator => "operator",
                Ending::Failed => "failed",
                Ending::Undone(_) => "undone",
            };
            let ended = Event::about(EventType::Ended, user, key);
            [Event {
                cause: Some(cause.to_owned()),
                ..ended
            }]
        });
    }
}
