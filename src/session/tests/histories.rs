//! Random histories of one user at the store, for the property tests of the rule. Streams start,
//! are seen, play, fail and end; each message may be lost, duplicated or late; gateways with
//! different limits, leases and habits use one store, and only the store's clock counts.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::identity::{DeviceId, JoinedOrigin};

/// What gateways send to the store. A start is decided by the limit in force when it arrives.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Start(Start, StartRules),
    Seen(Sighting),
    Played(SessionKey),
    /// An end, and how long before its arrival it was reported.
    End(SessionKey, Ending, Duration),
}

/// A message as it reaches the store, with its gateway's limit and terms.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Timestamp,
    pub(super) limit: u32,
    pub(super) terms: Terms,
    pub(super) message: Message,
}

/// What the store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Admission(Admission),
    Renewal(Renewal),
    Played(Option<Playing>),
    Released(Released),
}

/// One message at the store, with the roster before and after it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Timestamp,
    pub(super) limit: u32,
    pub(super) terms: Terms,
    pub(super) message: Message,
    pub(super) before: Roster,
    pub(super) answer: Answer,
    pub(super) after: Roster,
}

// === what happens ===

/// Sessions with few names, so that streams collide with each other and with their own past.
fn any_key() -> impl Strategy<Value = SessionKey> {
    (select(&Kind::ALL), 0..4).prop_map(|(kind, id)| key(&format!("{kind}:{id}")))
}

fn any_when_full() -> impl Strategy<Value = WhenFull> {
    prop_oneof![
        Just(WhenFull::Refuse),
        Just(WhenFull::DisplaceOldest),
        Just(WhenFull::DisplaceIdlest),
        any_key().prop_map(WhenFull::TakeOver),
    ]
}

/// Rules of a start. Most have the default budget, some a small one, some need none; some ask for
/// the oldest session's slot themselves.
fn any_rules() -> impl Strategy<Value = StartRules> {
    let displacements = prop_oneof![3 => Just(5), 1 => 0..2_u32];
    let rarely = || prop_oneof![4 => Just(false), 1 => Just(true)];
    (any_when_full(), displacements, rarely(), rarely()).prop_map(
        |(when_full, displacements, free, takeover)| {
            let rules = StartRules::new(0, when_full);
            StartRules {
                displacements,
                free,
                takeover: rules.takeover || takeover,
                ..rules
            }
        },
    )
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Stream),
        1 => Just(Ending::Vouched),
        1 => Just(Ending::Operator),
        2 => Just(Ending::Failed),
        3 => any_ticket().prop_map(Ending::Undone),
    ]
}

/// The ticket of one of three gateways.
pub(super) fn any_ticket() -> impl Strategy<Value = Ticket> {
    (1..4_u32).prop_filter_map("not zero", Ticket::new)
}

/// Leases, one of which is longer than an instance grants.
fn any_lease() -> impl Strategy<Value = Duration> {
    select(vec![5, 15, 30, 45]).prop_map(seconds)
}

/// Most instances grant 30 s, some 5 s.
fn any_terms() -> impl Strategy<Value = Terms> {
    let short = Terms::new(seconds(5), Duration::from_millis(50));
    prop_oneof![5 => Just(terms()), 1 => Just(short)]
}

/// Two devices, some of which have names or are named in a joined id.
fn any_facts() -> impl Strategy<Value = Facts> {
    let device = select(vec!["", "tv", "pc"]);
    let joined = proptest::option::weighted(0.2, (1..3_u64).prop_map(JoinedOrigin));
    (any::<Option<u32>>(), device, joined).prop_map(|(position_seconds, device, joined)| Facts {
        device: DeviceId::parse(device).ok(),
        position_seconds,
        joined,
        ..Facts::default()
    })
}

pub(super) fn any_start(key: SessionKey) -> impl Strategy<Value = Message> {
    let ticket = proptest::option::of(any_ticket());
    let asked = (any_facts(), any_lease(), ticket, any::<bool>());
    (asked, any_rules()).prop_map(move |((facts, lease, ticket, derived), rules)| {
        let start = Start {
            key: key.clone(),
            facts,
            lease,
            ticket,
            derived,
        };
        Message::Start(start, rules)
    })
}

pub(super) fn any_sighting(key: SessionKey) -> impl Strategy<Value = Message> {
    let started_at = proptest::option::of((0..1_400_000_u64).prop_map(Timestamp::from_millis));
    let provenance = prop_oneof![
        4 => Just(Provenance::Counted),
        1 => Just(Provenance::ByRule),
        2 => Just(Provenance::Unplayed),
    ];
    let seen = (any_facts(), any_lease(), started_at, any::<bool>());
    (seen, provenance).prop_map(move |((facts, lease, started_at, derived), provenance)| {
        Message::Seen(Sighting {
            key: key.clone(),
            facts,
            lease,
            started_at,
            derived,
            provenance,
        })
    })
}

fn any_end(key: SessionKey) -> impl Strategy<Value = Message> {
    let age = prop_oneof![6 => Just(0), 1 => 0..2_000_u64, 1 => 0..40_000_u64];
    (any_ending(), age).prop_map(move |(ending, age)| {
        Message::End(key.clone(), ending, Duration::from_millis(age))
    })
}

/// The delay of each copy of a message, in milliseconds. Most arrive once and immediately; some
/// never, some twice, some a minute late.
fn any_fate() -> impl Strategy<Value = Vec<u64>> {
    let delay = || prop_oneof![8 => 0..300_u64, 1 => 0..60_000_u64];
    prop_oneof![1 => Just(Vec::new()), 6 => vec(delay(), 1), 2 => vec(delay(), 2..4)]
}

/// A message sent the given number of milliseconds after the stream's previous one, and delivered
/// as its fate says.
fn sent(
    message: impl Strategy<Value = Message>,
    gap: std::ops::Range<u64>,
) -> impl Strategy<Value = (u64, Message, Vec<u64>)> {
    (gap, message, any_fate())
}

/// The messages of one stream as they arrive, unordered.
fn any_stream() -> impl Strategy<Value = Vec<(u64, Message)>> {
    any_key()
        .prop_flat_map(|key| {
            let sign = prop_oneof![
                3 => any_start(key.clone()),
                3 => any_sighting(key.clone()),
                1 => Just(Message::Played(key.clone())),
            ];
            (
                sent(any_start(key.clone()), 0..90_000),
                vec(sent(sign, 1..20_000), 0..5),
                sent(any_end(key), 1..20_000),
            )
        })
        .prop_map(|(start, signs, end)| {
            let mut sent_at = 1_000_000;
            let mut arrivals = Vec::new();
            for (gap, message, fate) in std::iter::once(start).chain(signs).chain([end]) {
                sent_at += gap;
                let late = fate.iter().map(|delay| (sent_at + delay, message.clone()));
                arrivals.extend(late);
            }
            arrivals
        })
}

/// Everything that reaches the store about one user, in order of arrival.
pub(super) fn any_history() -> impl Strategy<Value = Vec<Arrival>> {
    let streams = vec(any_stream(), 1..10).prop_map(|streams| streams.concat());
    in_order(streams)
}

/// So many streams at once that the roster reaches its bounds.
fn any_crowd() -> impl Strategy<Value = Vec<Arrival>> {
    let key = (select(&Kind::ALL), 0..60).prop_map(|(kind, id)| key(&format!("{kind}:{id}")));
    let message = key.prop_flat_map(|key| {
        prop_oneof![
            1 => any_start(key.clone()),
            6 => any_sighting(key.clone()),
            5 => any_end(key),
        ]
    });
    in_order(vec((1_000_000..1_020_000_u64, message), 100..250))
}

pub(super) fn any_history_or_crowd() -> impl Strategy<Value = Vec<Arrival>> {
    prop_oneof![6 => any_history(), 1 => any_crowd()]
}

/// Sorts messages by arrival. Nearly all gateways have the same limit.
fn in_order(
    messages: impl Strategy<Value = Vec<(u64, Message)>>,
) -> impl Strategy<Value = Vec<Arrival>> {
    let limit = prop_oneof![9 => Just(None), 1 => (0..5_u32).prop_map(Some)];
    let gateways = vec((limit, any_terms()), 1..20);
    (messages, 0..4_u32, gateways).prop_map(|(mut messages, limit, gateways)| {
        messages.sort_by_key(|(at, _)| *at);
        let gateways = gateways.iter().cycle();
        (messages.into_iter().zip(gateways))
            .map(|((at, message), (differing, terms))| Arrival {
                at: Timestamp::from_millis(at),
                limit: differing.unwrap_or(limit),
                terms: *terms,
                message,
            })
            .collect()
    })
}

// === playing it ===

impl Arrival {
    pub(super) fn play(&self, roster: &mut Roster) -> Answer {
        let (limit, terms, now) = (self.limit, &self.terms, self.at);
        match &self.message {
            Message::Start(start, rules) => {
                let rules = StartRules {
                    limit,
                    ..rules.clone()
                };
                Answer::Admission(roster.admit(start, &rules, terms, now))
            }
            Message::Seen(sighting) => Answer::Renewal(roster.renew(sighting, limit, terms, now)),
            Message::Played(key) => Answer::Played(roster.played(key, terms, now)),
            Message::End(key, ending, age) => {
                Answer::Released(roster.release(key, *ending, *age, terms, now))
            }
        }
    }
}

impl Message {
    pub(super) fn key(&self) -> &SessionKey {
        match self {
            Self::Start(start, _) => &start.key,
            Self::Seen(sighting) => &sighting.key,
            Self::Played(key) | Self::End(key, ..) => key,
        }
    }

    /// The lease that this sign of life asks for, if it is one.
    pub(super) fn lease(&self) -> Option<Duration> {
        match self {
            Self::Start(start, _) => Some(start.lease),
            Self::Seen(sighting) => Some(sighting.lease),
            Self::Played(_) | Self::End(..) => None,
        }
    }

    /// The same message with an id made for this playback, reported without delay.
    pub(super) fn fresh_and_prompt(self) -> Self {
        match self {
            Self::Start(start, rules) => {
                let derived = false;
                Self::Start(Start { derived, ..start }, rules)
            }
            Self::Seen(sighting) => Self::Seen(Sighting {
                derived: false,
                ..sighting
            }),
            Self::Played(key) => Self::Played(key),
            Self::End(key, ending, _) => Self::End(key, ending, Duration::ZERO),
        }
    }

    /// The same message, arriving that much later.
    pub(super) fn later(self, delay: Duration) -> Self {
        match self {
            Self::End(key, ending, age) => Self::End(key, ending, age + delay),
            same => same,
        }
    }
}

impl Answer {
    pub(super) fn displaced(&self) -> &[Session] {
        match self {
            Self::Admission(Admission::Admitted(admitted)) => &admitted.displaced,
            Self::Admission(Admission::Refused(_))
            | Self::Renewal(_)
            | Self::Played(_)
            | Self::Released(_) => &[],
        }
    }
}

impl Step {
    /// Whether that session is known to have started after an end that was reported `age` ago. One
    /// that started before the clock stepped back isn't.
    pub(super) fn is_younger(&self, live: &Session, age: Duration) -> bool {
        live.started_at > self.now.before(age) && live.started_at <= self.now
    }

    /// The answer in a few words.
    pub(super) fn told(&self) -> &'static str {
        let was_live = self.was_live().is_some();
        match &self.answer {
            Answer::Admission(Admission::Admitted(Admitted {
                entry, displaced, ..
            })) => match entry {
                AdmissionKind::Started if displaced.is_empty() => "started",
                AdmissionKind::Started => "started instead of another",
                AdmissionKind::Renewed => "renewed by a start",
            },
            Answer::Admission(Admission::Refused(refusal)) => match refusal {
                Refusal::Full { .. } => "full",
                Refusal::Ended(..) => "start of an ended one",
                Refusal::NotStoppable => "takeover of a request",
            },
            Answer::Renewal(renewal) => match renewal {
                Renewal::Renewed { .. } => "renewed by a sighting",
                Renewal::PutBack { .. } => "put back",
                Renewal::Provisional { .. } if was_live => "seen, yet unproven",
                Renewal::Provisional { .. } => "put back, yet unproven",
                Renewal::Ended(_) => "sighting of an ended one",
                Renewal::Crowded => "crowded",
            },
            Answer::Played(playing) => match playing {
                Some(_) => "plays",
                None => "unknown plays",
            },
            Answer::Released(released) => match released {
                Released::Freed => "freed",
                Released::NotLive => "not live",
                Released::AlreadyEnded(_) => "already ended",
                Released::NotStoppable => "end of a request by an operator",
                Released::Kept => "kept",
            },
        }
    }

    /// The session of this message, if it was live before.
    pub(super) fn was_live(&self) -> Option<&Session> {
        let mut live = self.before.live(self.now);
        live.find(|session| session.key == *self.message.key())
    }

    /// How long an end recorded in this step is remembered: as long as the instance grants, and as
    /// long as any instance was granted.
    pub(super) fn term(&self) -> Duration {
        let leases = self.before.live(self.now).map(|live| live.expires_at);
        let longest = leases
            .max()
            .map_or(Duration::ZERO, |ends| ends.since(self.now));
        self.terms.memory.max(longest + self.terms.margin())
    }
}

/// Every step of a history, starting from an empty roster.
pub(super) fn play(history: Vec<Arrival>) -> impl Iterator<Item = Step> {
    let mut roster = Roster::default();
    history.into_iter().map(move |arrival| {
        let before = settled(&roster, &arrival.terms, arrival.at);
        let answer = arrival.play(&mut roster);
        Step {
            now: arrival.at,
            limit: arrival.limit,
            terms: arrival.terms,
            message: arrival.message,
            before,
            answer,
            after: roster.clone(),
        }
    })
}

/// The roster after an operation that found nothing to do.
pub(super) fn settled(roster: &Roster, terms: &Terms, now: Timestamp) -> Roster {
    let mut roster = roster.clone();
    let nobody = key("video:nobody's");
    assert_eq!(roster.played(&nobody, terms, now), None);
    roster
}

pub(super) fn live(roster: &Roster, now: Timestamp) -> Vec<SessionKey> {
    let live = roster.live(now);
    live.map(|session| session.key.clone()).collect()
}

pub(super) fn buried(roster: &Roster, now: Timestamp) -> Vec<SessionKey> {
    let tombstones = roster.tombstones(now);
    tombstones.map(|end| end.key.clone()).collect()
}

/// Checks at each step that an admission fills free slots and makes no new ones, and that only
/// streams seen running exceed the limit.
pub(super) fn keeps_to_the_limit(step: &Step) {
    let before = step.before.live(step.now).count();
    let after = step.after.live(step.now).count();
    let limit = step.limit as usize;
    let is_kept = match step.told() {
        "started" => after == before + 1 && after <= limit,
        "started instead of another" => before >= limit && after == limit,
        "full" | "takeover of a request" | "crowded" => after == before && before >= limit,
        "put back" => after == before + 1 && after <= limit + MAX_PUT_BACK,
        "put back, yet unproven" => {
            let is_guest = matches!(
                &step.message,
                Message::Seen(seen) if seen.provenance == Provenance::ByRule
            );
            let most = if is_guest {
                limit + MAX_PUT_BACK
            } else {
                limit
            };
            after == before + 1 && after <= most
        }
        "freed" => after + 1 == before,
        _ => after == before,
    };
    assert!(is_kept, "{step:?}");
}
