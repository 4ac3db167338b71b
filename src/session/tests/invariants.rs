//! Properties of a roster that hold however messages are lost, repeated or delayed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::histories::{
    Answer, Arrival, Message, Step, any_history, any_history_or_crowd, any_sighting, any_start,
    any_ticket, buried, keeps_to_the_limit, live, play, settled,
};
use super::remembered::{Memory, remembered};
use super::*;

/// The part of a roster that doesn't depend on time or tickets.
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

/// Whether an end that might matter is forgotten: if so, an unknown playback isn't put back above
/// the limit.
fn is_forgetful(roster: &Roster, now: Timestamp) -> bool {
    let mut roster = roster.clone();
    let limit = u32::try_from(roster.live(now).count()).unwrap();
    let renewal = roster.renew(&sighting("playback:unheard-of"), limit, &terms(), now);
    renewal == Renewal::Crowded
}

#[test]
fn the_histories_below_come_to_every_answer_there_is() {
    let mut runner = TestRunner::deterministic();
    let mut answers = BTreeSet::new();
    for _ in 0..200 {
        let history = any_history_or_crowd().new_tree(&mut runner).unwrap();
        answers.extend(play(history.current()).map(|step| step.told()));
    }
    assert_eq!(answers.len(), 19, "{answers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4, // 64, or more in a soak that sets PROPTEST_CASES
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn only_sightings_exceed_the_limit_by_at_most_32(
        history in any_history_or_crowd(),
    ) {
        play(history).for_each(|step| keeps_to_the_limit(&step));
    }

    #[test]
    fn concurrent_starts_are_admitted_exactly_up_to_the_limit(
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
    fn a_slot_is_never_held_beyond_its_last_lease(history in any_history()) {
        let mut ends: HashMap<SessionKey, Timestamp> = HashMap::new();
        for step in play(history) {
            if let Some(lease) = step.message.lease() {
                let granted = step.now.after(lease.min(step.terms.longest_lease));
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
        // A spent budget expires last: limit and burst are at most 4 and 5.
        let longest = (terms().refill * (4 + 5)).max(terms().memory);
        for step in play(history) {
            let forgettable = step.after.forgettable_at(&terms());
            let idle = step.now.after(longest);
            prop_assert!(forgettable.is_none_or(|at| at <= idle), "{step:?}");
            let over = forgettable.unwrap_or(step.now);
            prop_assert_eq!(settled(&step.after, &terms(), over), Roster::default());
        }
    }

    #[test]
    fn a_key_is_never_live_twice_nor_buried_twice_nor_both(history in any_history_or_crowd()) {
        for step in play(history) {
            let (live, buried) = (live(&step.after, step.now), buried(&step.after, step.now));
            let keys: BTreeSet<_> = live.iter().chain(&buried).collect();
            prop_assert_eq!(keys.len(), live.len() + buried.len(), "{:?}", step);
            for list in [EndList::Operator, EndList::Live, EndList::Stranger] {
                let of_list = step.after.tombstones(step.now).filter(|end| end.list() == list);
                prop_assert!(of_list.count() <= list.room(), "{step:?}");
            }
        }
    }

    #[test]
    fn no_late_message_brings_back_a_remembered_end(history in any_history()) {
        let mut ended = HashMap::new();
        for step in play(history) {
            ended.retain(|_, end: &mut Memory| end.until > step.now);
            if let Some(end) = ended.get(step.message.key()) {
                let begins = matches!(&step.message, Message::Start(start, rules) if end.lets_begin(start, rules, &step));
                let expected: &[_] = match &step.message {
                    Message::Start(..) if begins => &["started", "started instead of another", "full", "takeover of a request"],
                    Message::Start(..) => &["start of an ended one"],
                    Message::Seen(_) => &["sighting of an ended one"],
                    Message::Played(_) => &["unknown plays"],
                    Message::End(..) => &["already ended"],
                };
                prop_assert!(expected.contains(&step.told()), "{end:?} {step:?}");
            }
            ended = remembered(ended, &step);
            let mut expected: Vec<_> = ended.keys().cloned().collect();
            let mut buried = buried(&step.after, step.now);
            expected.sort();
            buried.sort();
            prop_assert_eq!(buried, expected, "{:?}", step);
            for end in step.after.tombstones(step.now) {
                prop_assert_eq!(end.until, ended[&end.key].until, "{:?}", step);
            }
            let live = live(&step.after, step.now);
            prop_assert!(ended.keys().all(|key| !live.contains(key)), "{step:?}");
        }
    }

    #[test]
    fn a_stream_is_over_after_its_end_in_any_message_order(
        messages in select(vec!["request:a", "playback:a"]).prop_flat_map(|session| {
            let key = key(session);
            let signs = vec(prop_oneof![any_start(key.clone()), any_sighting(key.clone())], 1..8);
            let played = vec(Just(Message::Played(key.clone())), 0..2);
            let ends = vec(Just(Message::End(key, Ending::Stream, Duration::ZERO)), 1..3);
            let messages = (signs, played, ends).prop_map(|(signs, played, ends)| {
                let messages = [signs, played, ends].concat().into_iter();
                messages.map(Message::fresh_and_prompt).collect::<Vec<_>>()
            });
            messages.prop_shuffle()
        }),
        gaps in vec(0..3_000_u64, 12),
    ) {
        let mut at = 1_000_000;
        let history = messages.into_iter().zip(gaps).map(|(message, gap)| {
            at += gap;
            Arrival { at: Timestamp::from_millis(at), limit: 3, terms: terms(), message }
        });
        let (mut is_begun, mut is_over) = (false, false);
        for step in play(history.collect()) {
            is_over |= matches!(step.message, Message::End(..));
            is_begun |= matches!(step.message, Message::Start(..) | Message::Seen(_));
            prop_assert_eq!(live(&step.after, step.now).is_empty(), is_over || !is_begun, "{:?}", step);
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
                terms: step.terms,
                message: step.message.clone().later(Duration::from_millis(later)),
            };
            let expected = lasting(&step.after, again.at);
            let forgetful = |at| is_forgetful(&step.after, at);
            if expected != lasting(&step.after, step.now) || forgetful(again.at) != forgetful(step.now) {
                continue; // Something expired in between and made room.
            }
            let mut roster = step.after.clone();
            let answer = again.play(&mut roster);
            let told_again = Step {
                now: again.at,
                limit: again.limit,
                terms: again.terms,
                message: again.message,
                before: step.after.clone(),
                answer,
                after: roster.clone(),
            }
            .told();
            prop_assert_eq!(lasting(&roster, again.at), expected, "{:?}", step);
            let told = match step.told() {
                "started" | "started instead of another" => "renewed by a start",
                "put back" => "renewed by a sighting",
                "put back, yet unproven" | "seen, yet unproven" if told_again == "renewed by a sighting" => told_again,
                "put back, yet unproven" => "seen, yet unproven",
                "freed" | "not live" if buried(&roster, again.at).contains(step.message.key()) => "already ended",
                "freed" => "not live",
                same => same,
            };
            prop_assert_eq!(told_again, told, "{:?}", step);
        }
    }

    #[test]
    fn a_message_affects_only_its_own_and_displaced_sessions(history in any_history()) {
        for step in play(history) {
            let mut touched: Vec<_> = step.answer.displaced().iter().map(|gone| &gone.key).collect();
            touched.push(step.message.key());
            // Taking a start back removes the ends that it made.
            let lifted = EndCause::Displaced { by: step.message.key().clone() };
            let is_lifting = matches!(step.message, Message::End(_, Ending::Failed | Ending::Undone(_), _)) && step.told() == "freed";
            let started = step.was_live().map(|live| live.started_at);
            let lifts = |end: &Tombstone| is_lifting && end.cause == lifted && Some(end.asked_at) >= started;
            let others = |roster: &Roster| {
                let sessions = roster.live(step.now).filter(|live| !touched.contains(&&live.key)).cloned();
                let ends = roster.tombstones(step.now).filter(|end| !touched.contains(&&end.key) && !lifts(end)).cloned();
                (sessions.collect::<Vec<_>>(), ends.collect::<Vec<_>>())
            };
            prop_assert_eq!(others(&step.after), others(&step.before), "{:?}", step);
        }
    }

    #[test]
    fn an_answer_without_effect_changes_nothing(history in any_history_or_crowd()) {
        for step in play(history) {
            let of_its_own = Answer::Admission(Admission::Refused(Refusal::Ended(EndCause::Released, None, None)));
            let unchanged = [
                "full", "takeover of a request", "sighting of an ended one", "crowded",
                "already ended", "end of a request by an operator", "kept", "unknown plays",
            ];
            let is_change = step.answer != of_its_own && !unchanged.contains(&step.told());
            prop_assert!(is_change || step.after == step.before, "{step:?}");
        }
    }

    #[test]
    fn a_displaced_player_can_be_stopped_and_learns_by_whom(history in any_history()) {
        for step in play(history) {
            let displaced = step.answer.displaced();
            let origin = match &step.message {
                Message::Start(start, _) => start.facts.origin(),
                Message::Seen(_) | Message::Played(_) | Message::End(..) => Facts::default(),
            };
            let excess = (step.before.live(step.now).count() + 1).saturating_sub(step.limit as usize);
            prop_assert!(displaced.is_empty() || displaced.len() == excess, "{step:?}");
            for gone in displaced {
                let by = step.message.key().clone();
                let expected = Tombstone {
                    key: gone.key.clone(),
                    cause: EndCause::Displaced { by },
                    until: step.now.after(step.term()),
                    asked_at: step.now,
                    was_live: true,
                    derived: gone.flags.derived,
                    rival: origin.clone(),
                    message: None,
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
            match (&step.message, step.told()) {
                (Message::Start(start, _), "started" | "started instead of another") => {
                    untouched.insert(key.clone(), start.ticket);
                }
                (_, "renewed by a start" | "renewed by a sighting" | "seen, yet unproven" | "put back" | "put back, yet unproven") => {
                    untouched.insert(key.clone(), None);
                }
                (Message::Played(_), "plays") if key.kind != Kind::Request => {
                    untouched.insert(key.clone(), None);
                }
                (Message::End(_, Ending::Undone(ticket), _), "freed") => {
                    prop_assert_eq!(untouched[key], Some(*ticket), "{:?}", step);
                    prop_assert!(!buried(&step.after, step.now).contains(key), "{step:?}");
                }
                (Message::End(_, Ending::Undone(ticket), _), "kept") => {
                    prop_assert_ne!(untouched[key], Some(*ticket), "{:?}", step);
                }
                _ => (),
            }
        }
    }

    #[test]
    fn a_failure_takes_back_what_has_not_played_and_nothing_else(history in any_history()) {
        let mut played: BTreeSet<SessionKey> = BTreeSet::new();
        for step in play(history) {
            let key = step.message.key();
            let was_young = step.was_live().is_some_and(|live| step.now.since(live.started_at) < PROVEN_AFTER);
            match (&step.message, step.told()) {
                (Message::Start(start, _), "started" | "started instead of another") => {
                    played.remove(key);
                    played.extend((start.key.kind == Kind::Request).then(|| key.clone()));
                }
                (Message::Seen(_), "put back, yet unproven" | "put back") => {
                    played.remove(key);
                    let is_unplayed = matches!(&step.message, Message::Seen(seen) if seen.provenance == Provenance::Unplayed);
                    played.extend((key.kind == Kind::Request || !is_unplayed).then(|| key.clone()));
                }
                (Message::Start(..), "renewed by a start") if !was_young => {
                    played.insert(key.clone());
                }
                (Message::Seen(seen), "renewed by a sighting" | "seen, yet unproven")
                    if !was_young || seen.provenance != Provenance::Unplayed =>
                {
                    played.insert(key.clone());
                }
                (Message::Played(_), "plays") => {
                    played.insert(key.clone());
                }
                (Message::End(_, Ending::Failed, _), "freed") => {
                    prop_assert!(!played.contains(key), "{step:?}");
                    prop_assert!(!buried(&step.after, step.now).contains(key), "{step:?}");
                }
                (Message::End(_, Ending::Failed, age), "kept") => {
                    let is_later_start = step.was_live().is_some_and(|live| step.is_younger(live, *age));
                    prop_assert!(played.contains(key) || is_later_start, "{step:?}");
                }
                _ => (),
            }
            for live in step.after.live(step.now) {
                prop_assert_eq!(live.flags.played, played.contains(&live.key), "{:?}", step);
            }
        }
    }

    #[test]
    fn a_provisional_lease_does_not_grow(history in any_history()) {
        for step in play(history) {
            if let Some(before) = step.was_live().filter(|live| live.flags.provisional) {
                let after = step.after.live(step.now).find(|live| live.key == before.key);
                let grows = after.is_some_and(|live| live.flags.provisional && live.expires_at != before.expires_at);
                prop_assert!(!grows, "{step:?}");
                let is_made_whole = after.is_some_and(|live| !live.flags.provisional);
                let may_be = step.now.since(before.started_at) >= PROVEN_AFTER
                    && step.before.live(step.now).count() <= step.limit as usize;
                prop_assert!(!is_made_whole || may_be, "{step:?}");
            }
        }
    }

    #[test]
    fn an_end_ends_nothing_that_started_after_it_was_said(history in any_history()) {
        for step in play(history) {
            if let (Message::End(_, ending, age), Some(live)) = (&step.message, step.was_live())
                && step.is_younger(live, *age)
                && !matches!(ending, Ending::Undone(_))
            {
                prop_assert_eq!(step.told(), "kept", "{:?}", step);
            }
        }
    }

    #[test]
    fn clock_steps_break_neither_terms_nor_limits(
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
    fn after_a_data_loss_all_running_streams_count_again(
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
