//! What holds of a roster whatever happens to the messages on their way: streams start, are seen and end; each message is lost, doubled
//! or late by its own luck; gateways with differing limits and manners ask one store, whose clock alone counts.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::roster_tests::{key, seconds, sighting, start, terms};
use super::*;

/// What gateways tell the store.
#[derive(Debug, Clone)]
enum Message {
    Start(Start, WhenFull),
    Seen(Sighting),
    End(SessionKey, Ending),
}

/// A message as it reaches the store, with the limit that its gateway believes in.
#[derive(Debug, Clone)]
struct Arrival {
    at: Timestamp,
    limit: u32,
    message: Message,
}

/// What the store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Admission(Admission),
    Renewal(Renewal),
    Released(Released),
}

/// One message at the store, with what the roster held of its time before and after.
#[derive(Debug)]
struct Step {
    now: Timestamp,
    limit: u32,
    message: Message,
    before: Roster,
    answer: Answer,
    after: Roster,
}

// === what happens ===

/// Sessions of few names, so that streams meet their own past and each other.
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

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Stream),
        1 => Just(Ending::Vouched),
        1 => Just(Ending::Operator),
        3 => any_ticket().prop_map(Ending::Undone),
    ]
}

/// The ticket of one of three gateways.
fn any_ticket() -> impl Strategy<Value = Ticket> {
    (1..4_u32).prop_filter_map("not zero", Ticket::new)
}

/// Leases, one of which is longer than is granted.
fn any_lease() -> impl Strategy<Value = Duration> {
    select(vec![5, 15, 30, 45]).prop_map(seconds)
}

fn any_facts() -> impl Strategy<Value = Facts> {
    any::<Option<u32>>().prop_map(|position_seconds| Facts {
        position_seconds,
        ..Facts::default()
    })
}

fn any_start(key: SessionKey) -> impl Strategy<Value = Message> {
    let ticket = proptest::option::of(any_ticket());
    (any_facts(), any_lease(), ticket, any_when_full()).prop_map(
        move |(facts, lease, ticket, when_full)| {
            let start = Start {
                key: key.clone(),
                facts,
                lease,
                ticket,
                derived: false,
            };
            Message::Start(start, when_full)
        },
    )
}

fn any_sighting(key: SessionKey) -> impl Strategy<Value = Message> {
    let started_at = proptest::option::of((0..1_400_000_u64).prop_map(Timestamp::from_millis));
    (any_facts(), any_lease(), started_at).prop_map(move |(facts, lease, started_at)| {
        Message::Seen(Sighting {
            key: key.clone(),
            facts,
            lease,
            started_at,
            derived: false,
            provenance: Provenance::Counted,
        })
    })
}

fn any_end(key: SessionKey) -> impl Strategy<Value = Message> {
    any_ending().prop_map(move |ending| Message::End(key.clone(), ending))
}

/// How late each copy of a message is, in milliseconds. Most arrive once and at once; some never, some again, some a minute late.
fn any_fate() -> impl Strategy<Value = Vec<u64>> {
    let delay = || prop_oneof![8 => 0..300_u64, 1 => 0..60_000_u64];
    prop_oneof![1 => Just(Vec::new()), 6 => vec(delay(), 1), 2 => vec(delay(), 2..4)]
}

/// A message that is sent so many milliseconds after the stream's last one, and arrives as its fate will have it.
fn sent(
    message: impl Strategy<Value = Message>,
    gap: std::ops::Range<u64>,
) -> impl Strategy<Value = (u64, Message, Vec<u64>)> {
    (gap, message, any_fate())
}

/// The messages of one stream as they arrive, in no order.
fn any_stream() -> impl Strategy<Value = Vec<(u64, Message)>> {
    any_key()
        .prop_flat_map(|key| {
            let sign = prop_oneof![any_start(key.clone()), any_sighting(key.clone())];
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
                arrivals.extend(fate.iter().map(|delay| (sent_at + delay, message.clone())));
            }
            arrivals
        })
}

/// Everything that reaches the store about one user, in the order in which it does.
fn any_history() -> impl Strategy<Value = Vec<Arrival>> {
    let streams = vec(any_stream(), 1..10).prop_map(|streams| streams.concat());
    in_order(streams)
}

/// So many streams at once that the roster comes to its bounds.
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

fn any_history_or_crowd() -> impl Strategy<Value = Vec<Arrival>> {
    prop_oneof![6 => any_history(), 1 => any_crowd()]
}

/// Puts messages in the order of their arrival. Nearly all gateways believe in the same limit.
fn in_order(
    messages: impl Strategy<Value = Vec<(u64, Message)>>,
) -> impl Strategy<Value = Vec<Arrival>> {
    let differing = vec(
        prop_oneof![9 => Just(None), 1 => (0..5_u32).prop_map(Some)],
        1..20,
    );
    (messages, 0..4_u32, differing).prop_map(|(mut messages, limit, differing)| {
        messages.sort_by_key(|(at, _)| *at);
        let limits = differing.iter().cycle();
        (messages.into_iter().zip(limits))
            .map(|((at, message), differing)| Arrival {
                at: Timestamp::from_millis(at),
                limit: differing.unwrap_or(limit),
                message,
            })
            .collect()
    })
}

// === playing it ===

impl Arrival {
    fn play(&self, roster: &mut Roster) -> Answer {
        let (limit, terms, now) = (self.limit, &terms(), self.at);
        match &self.message {
            Message::Start(start, when_full) => Answer::Admission(roster.admit(
                start,
                &StartRules::new(limit, when_full.clone()),
                terms,
                now,
            )),
            Message::Seen(sighting) => Answer::Renewal(roster.renew(sighting, limit, terms, now)),
            Message::End(key, ending) => {
                Answer::Released(roster.release(key, *ending, Duration::ZERO, terms, now))
            }
        }
    }
}

impl Message {
    fn key(&self) -> &SessionKey {
        match self {
            Self::Start(start, _) => &start.key,
            Self::Seen(sighting) => &sighting.key,
            Self::End(key, _) => key,
        }
    }

    /// The lease that this sign of life asks for, if it is one.
    fn lease(&self) -> Option<Duration> {
        match self {
            Self::Start(start, _) => Some(start.lease),
            Self::Seen(sighting) => Some(sighting.lease),
            Self::End(..) => None,
        }
    }
}

impl Answer {
    fn displaced(&self) -> &[Session] {
        match self {
            Self::Admission(Admission::Admitted(admitted)) => &admitted.displaced,
            Self::Admission(Admission::Refused(_)) | Self::Renewal(_) | Self::Released(_) => &[],
        }
    }

    /// The answer in a few words.
    fn name(&self) -> &'static str {
        match self {
            Self::Admission(Admission::Admitted(Admitted {
                entry, displaced, ..
            })) => match entry {
                Entry::Started if displaced.is_empty() => "started",
                Entry::Started => "started instead of another",
                Entry::Renewed => "renewed by a start",
            },
            Self::Admission(Admission::Refused(refusal)) => match refusal {
                Refusal::Full { .. } => "full",
                Refusal::Ended(..) => "start of an ended one",
                Refusal::NotStoppable => "takeover of a request",
            },
            Self::Renewal(renewal) => match renewal {
                Renewal::Renewed { .. } => "renewed by a sighting",
                Renewal::PutBack { .. } => "put back",
                Renewal::Provisional { .. } => "provisional",
                Renewal::Ended(_) => "sighting of an ended one",
                Renewal::Crowded => "crowded",
            },
            Self::Released(released) => match released {
                Released::Freed(_) => "freed",
                Released::NotLive => "not live",
                Released::AlreadyEnded(_) => "already ended",
                Released::NotStoppable => "end of a request by an operator",
                Released::Kept => "kept",
            },
        }
    }
}

/// Every step of a history, from an empty roster on.
fn play(history: Vec<Arrival>) -> impl Iterator<Item = Step> {
    let mut roster = Roster::default();
    history.into_iter().map(move |arrival| {
        let before = settled(&roster, arrival.at);
        let answer = arrival.play(&mut roster);
        Step {
            now: arrival.at,
            limit: arrival.limit,
            message: arrival.message,
            before,
            answer,
            after: roster.clone(),
        }
    })
}

/// The roster after an operation that found nothing to do.
fn settled(roster: &Roster, now: Timestamp) -> Roster {
    let mut roster = roster.clone();
    let released = roster.release(
        &key("video:nobody's"),
        Ending::Stream,
        Duration::ZERO,
        &terms(),
        now,
    );
    assert_eq!(released, Released::NotLive);
    roster
}

fn live(roster: &Roster, now: Timestamp) -> Vec<SessionKey> {
    let live = roster.live(now);
    live.map(|session| session.key.clone()).collect()
}

fn buried(roster: &Roster, now: Timestamp) -> Vec<SessionKey> {
    let tombstones = roster.tombstones(now);
    tombstones.map(|end| end.key.clone()).collect()
}

/// What can be seen of a roster and is no matter of time or of tickets.
fn lasting(roster: &Roster, now: Timestamp) -> Vec<(SessionKey, String)> {
    let sessions = roster.live(now).map(|live| {
        let facts = format!("{:?} {:?}", live.facts, live.started_at);
        (live.key.clone(), facts)
    });
    let ends = roster
        .tombstones(now)
        .map(|end| (end.key.clone(), format!("{:?}", end.cause)));
    sessions.chain(ends).collect()
}

/// The sessions whose end is to be remembered from this step on, for as long as an end is.
fn remembered_anew(step: &Step) -> Vec<SessionKey> {
    let own = step.message.key();
    let is_own = match (&step.message, &step.answer) {
        (Message::End(key, ending), Answer::Released(Released::Freed(_) | Released::NotLive)) => {
            is_remembered(key.kind, *ending)
        }
        (_, Answer::Admission(Admission::Refused(Refusal::Ended(cause, _)))) => {
            *cause != EndCause::Released
        }
        _ => false,
    };
    let displaced = step.answer.displaced().iter().map(|gone| &gone.key);
    displaced.chain(is_own.then_some(own)).cloned().collect()
}

/// Whether the rule wants such an end to be remembered.
fn is_remembered(kind: Kind, ending: Ending) -> bool {
    match (ending, kind) {
        (Ending::Stream, Kind::Request | Kind::Playback)
        | (Ending::Vouched, Kind::Playback)
        | (Ending::Operator, Kind::Playback | Kind::Video) => true,
        (Ending::Stream, Kind::Video)
        | (Ending::Vouched, Kind::Request | Kind::Video)
        | (Ending::Operator, Kind::Request)
        | (Ending::Failed | Ending::Undone(_), _) => false,
    }
}

/// Holds of every step that an admission fills free slots and makes no new ones, and that only what was seen running goes beyond them.
fn keeps_to_the_limit(step: &Step) {
    let before = step.before.live(step.now).count();
    let after = step.after.live(step.now).count();
    let limit = step.limit as usize;
    let is_kept = match step.answer.name() {
        "started" => after == before + 1 && after <= limit,
        "started instead of another" => before >= limit && after == limit,
        "full" | "takeover of a request" => after == before && before >= limit,
        "put back" => after == before + 1 && after <= limit + MAX_PUT_BACK,
        "crowded" => after == before && before >= limit + MAX_PUT_BACK,
        "freed" => after + 1 == before,
        _ => after == before,
    };
    assert!(is_kept, "{step:?}");
}

// === what holds ===

#[test]
fn the_histories_below_come_to_every_answer_there_is() {
    let mut runner = TestRunner::deterministic();
    let mut answers = BTreeSet::new();
    for _ in 0..200 {
        let history = any_history_or_crowd().new_tree(&mut runner).unwrap();
        answers.extend(play(history.current()).map(|step| step.answer.name()));
    }
    assert_eq!(answers.len(), 15, "{answers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4, // 64, or as many as a soak asks for with PROPTEST_CASES
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn admissions_never_put_a_user_above_the_limit_and_sightings_by_32_at_most(
        history in any_history_or_crowd(),
    ) {
        play(history).for_each(|step| keeps_to_the_limit(&step));
    }

    #[test]
    fn of_many_starts_at_once_exactly_as_many_as_the_limit_are_let_in(
        limit in 0..5_u32,
        starts in vec((0..8, any_ticket()), 0..40),
    ) {
        let mut roster = Roster::default();
        let now = Timestamp::from_millis(1_000_000);
        let mut admitted = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for (id, ticket) in starts {
            let start = Start { ticket: Some(ticket), ..start(&format!("request:{id}")) };
            asked.insert(id);
            if let Admission::Admitted(_) = roster.admit(&start, &StartRules::new(limit, WhenFull::Refuse), &terms(), now) {
                admitted.insert(id);
            }
        }
        prop_assert_eq!(admitted.len(), asked.len().min(limit as usize));
        prop_assert_eq!(roster.live(now).count(), admitted.len());
    }

    #[test]
    fn a_slot_is_never_held_longer_than_its_lease_after_the_last_sign_of_life(history in any_history()) {
        let mut ends: HashMap<SessionKey, Timestamp> = HashMap::new();
        for step in play(history) {
            if let Some(lease) = step.message.lease() {
                let granted = step.now.after(lease.min(terms().longest_lease));
                let ends = ends.entry(step.message.key().clone()).or_default();
                *ends = granted.max(*ends);
            }
            for session in step.after.live(step.now) {
                prop_assert!(session.expires_at <= ends[&session.key], "{step:?}");
                prop_assert!(session.started_at <= session.renewed_at, "{step:?}");
                prop_assert!(session.renewed_at <= step.now, "{step:?}");
            }
        }
    }

    #[test]
    fn nothing_is_permanent(history in any_history_or_crowd()) {
        let longest = terms().longest_lease.max(terms().memory);
        for step in play(history) {
            let forgettable = step.after.forgettable_at(&terms());
            let idle = step.now.after(longest);
            prop_assert!(forgettable.is_none_or(|at| at <= idle), "{step:?}");
            prop_assert_eq!(settled(&step.after, idle), Roster::default());
        }
    }

    #[test]
    fn a_key_is_never_live_twice_nor_buried_twice_nor_both(history in any_history_or_crowd()) {
        for step in play(history) {
            let (live, buried) = (live(&step.after, step.now), buried(&step.after, step.now));
            let keys: BTreeSet<_> = live.iter().chain(&buried).collect();
            prop_assert_eq!(keys.len(), live.len() + buried.len(), "{:?}", step);
            prop_assert!(buried.len() <= 128, "{step:?}");
        }
    }

    #[test]
    fn while_an_end_is_remembered_nothing_late_brings_the_session_back(history in any_history()) {
        let mut ended: HashMap<SessionKey, Timestamp> = HashMap::new();
        for step in play(history) {
            ended.retain(|_, until| *until > step.now);
            let told = step.answer.name();
            let late = ["start of an ended one", "sighting of an ended one", "already ended"];
            // A video starts anew where there is a slot for it, and takes none from anybody else for that.
            if step.message.key().kind == Kind::Video && told == "started" {
                ended.remove(step.message.key());
            }
            prop_assert!(!ended.contains_key(step.message.key()) || late.contains(&told), "{step:?}");
            for key in remembered_anew(&step) {
                ended.insert(key, step.now.after(terms().memory));
            }
            let live = live(&step.after, step.now);
            prop_assert!(ended.keys().all(|key| !live.contains(key)), "{step:?}");
        }
    }

    #[test]
    fn in_whatever_order_a_streams_messages_arrive_it_is_over_once_its_end_has_come(
        messages in select(vec!["request:a", "playback:a"]).prop_flat_map(|session| {
            let key = key(session);
            let signs = vec(prop_oneof![any_start(key.clone()), any_sighting(key.clone())], 1..8);
            let ends = vec(Just(Message::End(key, Ending::Stream)), 1..3);
            (signs, ends).prop_map(|(signs, ends)| [signs, ends].concat()).prop_shuffle()
        }),
        gaps in vec(0..3_000_u64, 10),
    ) {
        let mut at = 1_000_000;
        let history = messages.into_iter().zip(gaps).map(|(message, gap)| {
            at += gap;
            Arrival { at: Timestamp::from_millis(at), limit: 3, message }
        });
        let mut is_over = false;
        for step in play(history.collect()) {
            is_over |= matches!(step.message, Message::End(..));
            prop_assert_eq!(live(&step.after, step.now).is_empty(), is_over, "{:?}", step);
        }
    }

    #[test]
    fn a_message_that_comes_twice_changes_nothing_the_second_time(
        history in any_history_or_crowd(),
        later in 0..1_000_u64,
    ) {
        for step in play(history) {
            let again = Arrival {
                at: step.now.after(Duration::from_millis(later)),
                limit: step.limit,
                message: step.message.clone(),
            };
            let expected = lasting(&step.after, again.at);
            if expected != lasting(&step.after, step.now) {
                continue; // Something has run out in between, and makes room.
            }
            let mut roster = step.after.clone();
            let answer = again.play(&mut roster);
            prop_assert_eq!(lasting(&roster, again.at), expected, "{:?}", step);
            let told = match step.answer.name() {
                "started" | "started instead of another" => "renewed by a start",
                "put back" => "renewed by a sighting",
                "freed" | "not live" if buried(&roster, again.at).contains(step.message.key()) => "already ended",
                "freed" => "not live",
                same => same,
            };
            prop_assert_eq!(answer.name(), told, "{:?}", step);
        }
    }

    #[test]
    fn a_message_touches_no_session_but_its_own_and_those_that_give_way(history in any_history()) {
        for step in play(history) {
            let mut touched: Vec<_> = step.answer.displaced().iter().map(|gone| &gone.key).collect();
            touched.push(step.message.key());
            let others = |roster: &Roster| {
                let sessions = roster.live(step.now).filter(|live| !touched.contains(&&live.key)).cloned();
                let ends = roster.tombstones(step.now).filter(|end| !touched.contains(&&end.key)).cloned();
                (sessions.collect::<Vec<_>>(), ends.collect::<Vec<_>>())
            };
            prop_assert_eq!(others(&step.after), others(&step.before), "{:?}", step);
        }
    }

    #[test]
    fn an_answer_that_nothing_was_done_means_that_nothing_has_changed(history in any_history_or_crowd()) {
        for step in play(history) {
            let of_its_own = Answer::Admission(Admission::Refused(Refusal::Ended(EndCause::Released, None)));
            let unchanged = [
                "full", "takeover of a request", "sighting of an ended one", "crowded",
                "already ended", "end of a request by an operator", "kept",
            ];
            let is_change = step.answer != of_its_own && !unchanged.contains(&step.answer.name());
            prop_assert!(is_change || step.after == step.before, "{step:?}");
        }
    }

    #[test]
    fn who_is_displaced_can_be_stopped_and_is_told_by_whom(history in any_history()) {
        for step in play(history) {
            let displaced = step.answer.displaced();
            let excess = (step.before.live(step.now).count() + 1).saturating_sub(step.limit as usize);
            prop_assert!(displaced.is_empty() || displaced.len() == excess, "{step:?}");
            for gone in displaced {
                let by = step.message.key().clone();
                let expected = Tombstone {
                    key: gone.key.clone(),
                    cause: EndCause::Displaced { by },
                    until: step.now.after(terms().memory), asked_at: step.now, was_live: true, derived: false, rival: Facts::default(),
                };
                prop_assert!(gone.key.kind.is_stoppable(), "{step:?}");
                prop_assert!(step.before.live(step.now).any(|live| live == gone), "{step:?}");
                prop_assert!(step.after.tombstones(step.now).any(|end| *end == expected), "{step:?}");
            }
        }
    }

    #[test]
    fn an_undo_takes_back_its_own_untouched_start_and_nothing_else(history in any_history()) {
        let mut untouched: HashMap<SessionKey, Option<Ticket>> = HashMap::new();
        for step in play(history) {
            let key = step.message.key();
            match (&step.message, step.answer.name()) {
                (Message::Start(start, _), "started" | "started instead of another") => {
                    untouched.insert(key.clone(), start.ticket);
                }
                (_, "renewed by a start" | "renewed by a sighting" | "put back") => {
                    untouched.insert(key.clone(), None);
                }
                (Message::End(_, Ending::Undone(ticket)), "freed") => {
                    prop_assert_eq!(untouched[key], Some(*ticket), "{:?}", step);
                    prop_assert!(!buried(&step.after, step.now).contains(key), "{step:?}");
                }
                (Message::End(_, Ending::Undone(ticket)), "kept") => {
                    prop_assert_ne!(untouched[key], Some(*ticket), "{:?}", step);
                }
                _ => (),
            }
        }
    }

    #[test]
    fn a_clock_that_steps_makes_nothing_outlive_what_is_allowed_and_nobody_exceed_the_limit(
        mut history in any_history_or_crowd(),
        steps in vec(prop_oneof![5 => Just(0), 1 => -120_000..120_000_i64], 1..30),
    ) {
        let mut stepped = 0;
        for (arrival, step) in history.iter_mut().zip(steps.iter().cycle()) {
            stepped += step;
            arrival.at = Timestamp::from_millis(arrival.at.as_millis().saturating_add_signed(stepped));
        }
        let terms = terms();
        for step in play(history) {
            keeps_to_the_limit(&step);
            for session in step.after.live(step.now) {
                prop_assert!(session.expires_at <= step.now.after(terms.longest_lease), "{step:?}");
                prop_assert!(session.started_at <= session.renewed_at, "{step:?}");
                prop_assert!(session.renewed_at <= step.now, "{step:?}");
            }
            for end in step.after.tombstones(step.now) {
                prop_assert!(end.until <= step.now.after(terms.memory), "{step:?}");
            }
        }
    }

    #[test]
    fn after_the_store_has_lost_everything_all_that_runs_is_counted_again(
        limit in 0..4_u32,
        seen in vec(0..32, 0..80),
    ) {
        let mut roster = Roster::default();
        let now = Timestamp::from_millis(1_000_000);
        for id in &seen {
            roster.renew(&sighting(&format!("request:{id}")), limit, &terms(), now);
        }
        let running: BTreeSet<_> = seen.iter().map(|id| key(&format!("request:{id}"))).collect();
        prop_assert_eq!(live(&roster, now).len(), running.len());
        prop_assert!(running.iter().all(|key| live(&roster, now).contains(key)));
        let newcomer = roster.admit(&start("request:new"), &StartRules::new(limit, WhenFull::Refuse), &terms(), now);
        prop_assert_eq!(matches!(newcomer, Admission::Admitted(_)), running.len() < limit as usize);
    }
}
