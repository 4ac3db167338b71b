//! The viewers: each has devices that start, watch and stop, or vanish, and note what they are
//! answered. What they note decides what was wrong.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use streamgate::clock::Timestamp;
use streamgate::identity::{Claim, Facts, Kind};
use streamgate::ledger::{Basis, CacheLookup, CallerDeadline, Decision, Outage};
use streamgate::outbox::Notice;
use streamgate::session::{Admission, AdmissionKind, Ending, Provenance, Sighting};
use tokio_util::sync::CancellationToken;

use super::gateway::Place;
use super::town::Town;
use super::truth::{INTERVAL, Over, Stream};
use crate::rule::instance::{Consequence, Instance};
use testkit::streams::key;

/// How many devices each user has: more than any limit.
pub(super) const DEVICES: usize = 5;

/// How often a player tries to start one playback that meets an error.
const TRIES: usize = 3;

/// How a device asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// By requests that Envoy checks.
    Check,
    /// By heartbeats of the HTTP API.
    Heartbeat,
}

/// What a device was answered.
#[expect(clippy::large_enum_variant, reason = "each lives for a moment")]
pub(super) enum Heard {
    /// From memory.
    FromMemory,
    /// A decision or an outage, and what the door made of it.
    Answer(Result<Decision, Outage>, Consequence),
    /// Nothing: the instance was killed.
    Nothing,
}

/// What a device knows of an instance that it asks.
pub(super) struct Asked {
    instance: Arc<Instance>,
    killed: CancellationToken,
    pub(super) place: Place,
    lease: Duration,
}

/// A device that watches one stream.
pub(super) struct Device<'a> {
    pub(super) town: &'a Town,
    pub(super) user: usize,
    pub(super) claim: Claim,
    door: Door,
    gateway: usize,
}

impl Town {
    /// One device, which watches and rests until the evening.
    pub(super) async fn device(&self, user: usize, device: usize, mut rng: StdRng) {
        let mut turn = 0;
        loop {
            let rest = Duration::from_millis(rng.random_range(0..[2_000, 20_000][device % 2]));
            tokio::select! {
                biased;
                () = self.evening.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
            turn += 1;
            let (kind, door) = match rng.random_range(0..8) {
                0 | 1 => (Kind::Request, Door::Check),
                2 => (Kind::Playback, Door::Heartbeat),
                _ => (Kind::Playback, Door::Check),
            };
            let device = Device {
                town: self,
                user,
                claim: Claim {
                    message: None,
                    user: self.names[user].clone(),
                    plan: None,
                    key: key(kind, &format!("{device}-{turn}")),
                    facts: Facts::default(),
                    takeover: None,
                    derived: false,
                    free: false,
                },
                door,
                gateway: self.any_gateway(&mut rng),
            };
            device.watch(&mut rng).await;
        }
    }
}

impl Device<'_> {
    /// Watches one stream.
    async fn watch(mut self, rng: &mut StdRng) {
        let leaves = self.claim.key.kind == Kind::Request && rng.random_bool(0.1);
        let mut tries = 0;
        while !self.asks(leaves).await {
            tries += 1;
            if self.is_over() || tries >= TRIES {
                return self.gives_up();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if rng.random_bool(0.3) {
                self.gateway = self.town.any_gateway(rng);
            }
        }
        if leaves {
            return;
        }
        let longest = [3_000, 20_000, 90_000][rng.random_range(0..3)];
        let span = rng.random_range(1_000..longest);
        let until = self.town.now().after(Duration::from_millis(span));
        while self.town.now() < until && !self.town.evening.is_cancelled() {
            let pause = rng.random_range(500..INTERVAL.as_millis().try_into().unwrap());
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if rng.random_bool(0.04) {
                self.gateway = self.town.any_gateway(rng);
            }
            if self.claim.key.kind == Kind::Request {
                self.is_reported();
            } else if !self.asks(false).await && self.is_over() {
                return;
            }
            if rng.random_bool(0.005) {
                self.is_ended_by_operator().await;
            }
        }
        self.stops(rng).await;
    }

    /// The instance that it asks now.
    fn asked(&self) -> Asked {
        let state = self.town.state();
        let gateway = &state.gateways[self.gateway];
        Asked {
            instance: Arc::clone(&gateway.instance),
            killed: gateway.killed.clone(),
            place: gateway.place,
            lease: gateway.lease,
        }
    }

    /// Changes what is known of the stream.
    fn note(&self, change: impl FnOnce(&mut Stream)) {
        let now = self.town.now();
        let mut state = self.town.state();
        let streams = &mut state.users[self.user].streams;
        change(
            streams
                .entry(self.claim.key.clone())
                .or_insert_with(|| Stream::asking(self.claim.key.kind, now)),
        );
    }

    /// Whether its stream is over.
    fn is_over(&self) -> bool {
        let mut over = false;
        self.note(|stream| over = stream.over.is_some());
        over
    }

    /// It doesn't ask any more for a start that met nothing but errors.
    fn gives_up(&self) {
        let asked = self.asked();
        let now = self.town.now();
        self.note(|stream| {
            let over = if stream.has_doubt {
                Over::Untold
            } else {
                Over::TakenBack(asked.place, now)
            };
            stream.over.get_or_insert(over);
            stream.watches = false;
        });
    }

    /// Asks once; whether it may play.
    async fn asks(&self, leaves: bool) -> bool {
        let (asked, sent) = (self.asked(), self.town.now());
        self.note(|stream| (stream.under_way, stream.last_sign) = (stream.under_way + 1, sent));
        self.town.state().starts(self.user, sent);
        let heard = tokio::select! {
            biased;
            () = asked.killed.cancelled() => Heard::Nothing,
            heard = self.hears(&asked, leaves) => heard,
        };
        let now = self.town.now();
        self.town.state().starts(self.user, now);
        self.town.state().tally.requests += 1;
        self.judge(&asked, sent, &heard, now);
        self.note(|stream| {
            (stream.under_way, stream.last_sign) = (stream.under_way - 1, now);
        });
        self.learns(&asked, sent, &heard, leaves, now)
    }

    /// What it is answered.
    async fn hears(&self, asked: &Asked, leaves: bool) -> Heard {
        let Asked { instance, .. } = asked;
        let settings = instance.ledger.in_force();
        let caller = CallerDeadline::endless();
        let answer = match self.door {
            Door::Check => match instance.ledger.lookup(&self.claim) {
                CacheLookup::Good { .. } => return Heard::FromMemory,
                lookup => {
                    let ledger = &instance.ledger;
                    ledger.admit(&self.claim, lookup, &settings, &caller).await
                }
            },
            Door::Heartbeat => {
                let ledger = &instance.ledger;
                ledger.heartbeat(&self.claim, &settings, &caller).await
            }
        };
        let consequence = instance.conclude(&self.claim, &answer, leaves, true);
        Heard::Answer(answer, consequence)
    }

    /// Notes what it was answered; whether it may play.
    fn learns(
        &self,
        asked: &Asked,
        sent: Timestamp,
        heard: &Heard,
        leaves: bool,
        now: Timestamp,
    ) -> bool {
        let place = asked.place;
        match heard {
            Heard::Nothing => {
                self.note(|stream| stream.has_doubt = true);
                self.may_be_taken_back(now);
                false
            }
            Heard::FromMemory => {
                let unsure_since = self.town.state().users[self.user].unsure_since();
                self.note(|stream| {
                    stream.is_held(place, sent, asked.lease, unsure_since);
                    stream.by_rule = false;
                });
                self.town.state().tally.from_memory += 1;
                true
            }
            Heard::Answer(Err(_), _) => {
                self.note(|stream| stream.has_erred = true);
                self.may_be_taken_back(now);
                self.town.state().tally.outages += 1;
                false
            }
            Heard::Answer(Ok(decision), consequence) => {
                self.is_decided(asked, sent, decision, *consequence, now);
                let is_let_in = matches!(decision.admission, Admission::Admitted(_));
                if consequence.taken_back {
                    self.may_be_taken_back(now);
                }
                if is_let_in && leaves {
                    self.note(|stream| {
                        stream.watches = false;
                        // What an earlier call of it has started, this one can't take back.
                        let is_earlier = stream.has_erred && !consequence.taken_back;
                        stream.over = Some(if stream.has_doubt || is_earlier {
                            Over::Untold
                        } else {
                            Over::TakenBack(place, now)
                        });
                    });
                }
                is_let_in
            }
        }
    }

    /// A start of this user may be taken back.
    fn may_be_taken_back(&self, now: Timestamp) {
        self.town.state().users[self.user].taken_back = Some(now);
    }

    /// Notes a decision.
    fn is_decided(
        &self,
        asked: &Asked,
        sent: Timestamp,
        decision: &Decision,
        consequence: Consequence,
        now: Timestamp,
    ) {
        let is_rules = matches!(decision.basis, Basis::Rule(_));
        self.town.state().tally.by_rule += usize::from(is_rules);
        match &decision.admission {
            Admission::Admitted(admitted) => {
                let until = sent.after(asked.lease).min(admitted.session.expires_at);
                let unsure_since = self.town.state().users[self.user].unsure_since();
                self.note(|stream| {
                    (stream.watches, stream.by_rule) = (true, is_rules);
                    stream.was_by_rule |= is_rules;
                    if decision.basis == Basis::Store {
                        stream.is_confirmed(sent, until, unsure_since);
                    }
                    if decision.basis == Basis::HeldLease {
                        stream.untold.insert(asked.place, now);
                    }
                });
                let is_start = admitted.entry == AdmissionKind::Started;
                self.town.state().tally.started += usize::from(is_start);
                let mut state = self.town.state();
                let streams = &mut state.users[self.user].streams;
                for displaced in &admitted.displaced {
                    if let Some(stream) = streams.get_mut(&displaced.key) {
                        stream.watches = false;
                        stream.was_displaced_by_rule |= is_rules;
                    }
                }
            }
            Admission::Refused(_) => {
                let may_be_put_back = {
                    let state = self.town.state();
                    let user = &state.users[self.user];
                    user.may_be_put_back(&user.streams[&self.claim.key], &*state)
                };
                let is_sure =
                    decision.basis == Basis::Store && !consequence.taken_back && !may_be_put_back;
                self.note(|stream| {
                    stream.watches = false;
                    let is_sure = is_sure && !stream.has_erred;
                    stream.over = Some(match (is_sure, stream.has_doubt) {
                        (true, false) => Over::Refused,
                        (false, false) if !stream.was_let_in() => Over::TakenBack(asked.place, now),
                        _ => Over::Untold,
                    });
                });
                self.town.state().tally.full += 1;
            }
        }
    }

    /// Envoy reports that its stream runs.
    fn is_reported(&self) {
        let (asked, now) = (self.asked(), self.town.now());
        self.note(|stream| stream.last_sign = now);
        self.report(&asked);
    }

    /// Envoy's report that it runs arrives.
    fn report(&self, asked: &Asked) {
        let sighting = Sighting {
            lease: asked.lease,
            facts: Facts::default(),
            started_at: None,
            provenance: Provenance::Counted,
            derived: false,
            key: self.claim.key.clone(),
        };
        let notice = Notice::Renew(sighting, None, None);
        asked.instance.submit(&self.claim.user, notice);
    }

    /// An operator ends its stream, through any instance.
    async fn is_ended_by_operator(&self) {
        let asked = self.asked();
        self.note(|stream| stream.is_ended_by_operator = true);
        self.town
            .log(&format!("an operator ends {}", self.claim.key));
        let (user, key) = (&self.claim.user, &self.claim.key);
        let ledger = &asked.instance.ledger;
        drop(
            ledger
                .release(user, key, Ending::Operator, Duration::ZERO)
                .await,
        );
    }

    /// Its viewer stops. That is told at once, or twice, or with a late report, or not at all.
    async fn stops(&self, rng: &mut StdRng) {
        let (asked, now) = (self.asked(), self.town.now());
        let (user, key) = (&self.claim.user, self.claim.key.clone());
        let tells = rng.random_bool(0.75);
        self.town.log(&format!(
            "{} {key} stops at {:?}, tells: {tells}",
            self.user, asked.place
        ));
        let over = if tells {
            Over::Told(asked.place, now)
        } else {
            Over::Untold
        };
        self.note(|stream| {
            (stream.watches, stream.last_sign, stream.over) = (false, now, Some(over));
        });
        if !tells {
            return;
        }
        let ended = || Notice::Release(key.clone(), Ending::Stream);
        asked.instance.submit(user, ended());
        if rng.random_bool(0.3) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_000))).await;
            // What arrives late was true when it was sent, and is no sign of life.
            self.report(&self.asked());
            asked.instance.submit(user, ended());
        }
    }
}
