//! Attacks on the rule. Each is a strategy that generates messages to the store and targets one
//! promise; [`judge`] checks every promise at every step of every attack.
//!
//! 1. `fresh_id_for_each_segment`: ten players take a new id for each segment and displace.
//! 2. `takeover_flood`: each start takes over the slot of the one before it.
//! 3. `junk_releases_before_renewals`: a flood of ends tries to push out the one that matters; then
//!    its session is renewed.
//! 4. `release_and_restart`: derived ids are released and started repeatedly, to keep playing on
//!    provisional leases.
//! 5. `failed_title_churn`: titles fail right after they displaced others, to end those for
//!    nothing.
//! 6. `replayed_releases`: old releases arrive late, after their sessions have started again.
//! 7. `operator_end_evasion`: a session that an operator ended tries every door and every kind of
//!    message.
//! 8. `two_instances`: an instance with short leases and another limit alternates with one with
//!    long leases.
//! 9. `clock_steps`: all of this while the store's clock steps back and forth.
//! 10. `unplayed_flood`: a flood of renewals arrives for unknown sessions that haven't played.
//! 11. `ping_pong`: two devices keep taking each other's slot back, with device names and without.
//! 12. `forged_outage`: sightings claim that the outage rule let them in, and renew each other.
//! 13. `undo_of_others`: calls undo starts with guessed tickets.
//! 14. `impatience`: a displaced id asks again around the end of its quiet time.
//! 15. `late_refunds`: starts that drew on the budget fail only after it has been refilled.
//! 16. `mimicry`: a stranger claims the device of the session that it wants to displace.

mod judge;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::histories::{Arrival, Message, play};
use super::*;
use crate::identity::{DeviceId, SameOrigin};

use judge::judge;

// === what the attackers send ===

/// A message, and how many milliseconds after the previous one it arrives.
type Move = (u64, Message);

fn playback(id: impl Display) -> SessionKey {
    key(&format!("playback:{id}"))
}

fn from(device: &str) -> Facts {
    Facts {
        device: DeviceId::parse(device).ok(),
        ..Facts::default()
    }
}

/// A start of that session, with a device if the name is not empty.
fn starts(key: SessionKey, derived: bool, device: &str, when_full: WhenFull) -> Message {
    let start = Start {
        key,
        facts: from(device),
        lease: seconds(30),
        ticket: Ticket::new(1),
        derived,
    };
    Message::Start(start, StartRules::new(0, when_full))
}

fn seen(key: SessionKey, derived: bool, provenance: Provenance) -> Message {
    Message::Seen(Sighting {
        key,
        facts: Facts::default(),
        lease: seconds(30),
        started_at: None,
        provenance,
        derived,
    })
}

fn ends(key: SessionKey, ending: Ending) -> Message {
    Message::End(key, ending, Duration::ZERO)
}

fn any_provenance() -> impl Strategy<Value = Provenance> {
    select(vec![
        Provenance::Counted,
        Provenance::ByRule,
        Provenance::Unplayed,
    ])
}

fn any_displacing() -> impl Strategy<Value = WhenFull> {
    select(vec![WhenFull::DisplaceOldest, WhenFull::DisplaceIdlest])
}

/// The moves in sequence, at one limit and under those terms in turn.
fn against(limit: u32, terms: &[Terms], moves: Vec<Move>) -> Vec<Arrival> {
    let mut at = 1_000_000;
    let terms = terms.iter().cycle();
    (moves.into_iter().zip(terms))
        .map(|((gap, message), terms)| {
            at += gap;
            Arrival {
                at: Timestamp::from_millis(at),
                limit,
                terms: *terms,
                message,
            }
        })
        .collect()
}

/// Moves against a limit of one to three.
fn usual(moves: impl Strategy<Value = Vec<Move>>) -> impl Strategy<Value = Vec<Arrival>> {
    (1..4_u32, moves).prop_map(|(limit, moves)| against(limit, &[terms()], moves))
}

// === the attacks ===

fn fresh_id_for_each_segment() -> impl Strategy<Value = Vec<Arrival>> {
    let segment = (0..2_000_u64, any_displacing(), any::<bool>());
    usual(vec(segment, 50..150).prop_map(|segments| {
        let numbered = segments.into_iter().enumerate();
        let moves = numbered.flat_map(|(count, (gap, when_full, plays))| {
            let start = (gap, starts(playback(count), false, "", when_full));
            let played = (0, Message::Played(playback(count)));
            [Some(start), plays.then_some(played)]
        });
        moves.flatten().collect()
    }))
}

fn takeover_flood() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..4_000_u64, 1..4_usize, any::<bool>());
    usual(vec(step, 30..100).prop_map(|steps| {
        let numbered = steps.into_iter().enumerate();
        let moves = numbered.map(|(count, (gap, back, derived))| {
            let named = playback(count.saturating_sub(back));
            let takes = WhenFull::TakeOver(named);
            (gap, starts(playback(count), derived, "", takes))
        });
        moves.collect()
    }))
}

fn junk_releases_before_renewals() -> impl Strategy<Value = Vec<Arrival>> {
    let kinds = select(vec!["playback", "request", "live", "video"]);
    let ending = select(vec![Ending::Stream, Ending::Vouched]);
    usual((kinds, ending, 20..140, any_provenance()).prop_map(
        |(kind, ending, junk, provenance)| {
            let mut moves = Vec::new();
            for id in ["released", "other"] {
                moves.push((
                    10,
                    starts(playback(id), false, "", WhenFull::DisplaceOldest),
                ));
            }
            moves.push((10, ends(playback("released"), Ending::Stream)));
            for count in 0..junk {
                let id = if kind == "live" {
                    let id = playback(format!("junk-{count}"));
                    moves.push((5, starts(id.clone(), false, "", WhenFull::DisplaceOldest)));
                    id
                } else {
                    key(&format!("{kind}:junk-{count}"))
                };
                moves.push((5, ends(id, ending)));
            }
            for id in ["released", "other", "released"] {
                moves.push((100, seen(playback(id), false, provenance)));
            }
            moves
        },
    ))
}

fn release_and_restart() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..3_000_u64, 0..4, select(vec!["start", "seen", "release"]));
    usual(vec(step, 40..150).prop_map(|steps| {
        let moves = steps.into_iter().map(|(gap, id, what)| {
            let message = match what {
                "start" => starts(playback(id), true, "", WhenFull::Refuse),
                "seen" => seen(playback(id), true, Provenance::Unplayed),
                _ => ends(playback(id), Ending::Stream),
            };
            (gap, message)
        });
        moves.collect()
    }))
}

fn failed_title_churn() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..1_500_u64, any_displacing(), 0..5);
    usual(vec(step, 20..80).prop_map(|steps| {
        let mut moves = vec![(0, starts(playback("victim"), false, "tv", WhenFull::Refuse))];
        for (count, (gap, when_full, what)) in steps.into_iter().enumerate() {
            let id = playback(format!("missing-{}", count % 3));
            moves.push((gap, starts(id.clone(), count % 2 == 0, "", when_full)));
            match what {
                0 => moves.push((gap, Message::Played(id.clone()))),
                1 => moves.push((2_000, seen(id.clone(), false, Provenance::Unplayed))),
                _ => (),
            }
            moves.push((gap, ends(id, Ending::Failed)));
            moves.push((0, seen(playback("victim"), false, Provenance::Counted)));
            moves.push((0, ends(playback("victim"), Ending::Failed)));
        }
        moves
    }))
}

fn replayed_releases() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..6_000_u64, 0..3, any::<bool>(), 0..60_000_u64);
    usual(vec(step, 30..100).prop_map(|steps| {
        let moves = steps.into_iter().map(|(gap, id, is_start, age)| {
            let message = if is_start {
                starts(playback(id), true, "", WhenFull::DisplaceOldest)
            } else {
                let age = Duration::from_millis(age);
                Message::End(playback(id), Ending::Stream, age)
            };
            (gap, message)
        });
        moves.collect()
    }))
}

fn operator_end_evasion() -> impl Strategy<Value = Vec<Arrival>> {
    let pretext = (0..15_000_u64, 0..7, any_provenance(), any::<bool>());
    usual(vec(pretext, 20..80).prop_map(|pretexts| {
        let ended = || playback("ended");
        let mut moves = vec![
            (0, starts(ended(), false, "tv", WhenFull::Refuse)),
            (9, ends(ended(), Ending::Operator)),
        ];
        for (count, (gap, what, provenance, derived)) in pretexts.into_iter().enumerate() {
            let takes = WhenFull::TakeOver(playback("other"));
            moves.push(match what {
                0 => (gap, starts(ended(), derived, "tv", takes)),
                1 => (
                    gap,
                    starts(ended(), derived, "tv", WhenFull::DisplaceOldest),
                ),
                2 => (gap, seen(ended(), derived, provenance)),
                3 => (gap, ends(ended(), Ending::Stream)),
                4 => (gap, ends(ended(), Ending::Failed)),
                5 => (gap, Message::Played(ended())),
                _ => (
                    gap,
                    starts(playback("other"), true, "tv", WhenFull::DisplaceOldest),
                ),
            });
            let junk = format!("junk-{count}");
            moves.extend(
                (0..9).map(|more| (0, ends(playback(format!("{junk}-{more}")), Ending::Stream))),
            );
        }
        moves
    }))
}

fn two_instances() -> impl Strategy<Value = Vec<Arrival>> {
    let message = (0..5, 0..5, any_displacing(), any_provenance());
    let steps = vec((0..9_000_u64, message), 30..120);
    (steps, 1..3_u32, 1..3_u32).prop_map(|(steps, one, other)| {
        let moves = steps
            .into_iter()
            .map(|(gap, (id, what, when_full, provenance))| {
                let message = match what {
                    0 | 1 => starts(playback(id), id % 2 == 0, "", when_full),
                    2 | 3 => seen(playback(id), id % 2 == 0, provenance),
                    _ => ends(playback(id), Ending::Stream),
                };
                (gap, message)
            });
        let long = Terms::new(seconds(60), Duration::from_millis(50));
        let short = Terms::new(seconds(3), Duration::from_millis(50));
        let mut arrivals = against(one, &[long, short], moves.collect());
        for (count, arrival) in arrivals.iter_mut().enumerate() {
            arrival.limit = if count % 2 == 0 { one } else { other };
            if let Message::Start(start, _) = &mut arrival.message {
                start.lease = arrival.terms.longest_lease;
            }
        }
        arrivals
    })
}

fn clock_steps() -> impl Strategy<Value = Vec<Arrival>> {
    let attack = prop_oneof![
        fresh_id_for_each_segment().boxed(),
        failed_title_churn().boxed(),
        ping_pong().boxed(),
        forged_outage().boxed(),
    ];
    let step = prop_oneof![6 => Just(0), 1 => -120_000..120_000_i64];
    (attack, vec(step, 1..30)).prop_map(|(mut arrivals, steps)| {
        let mut stepped = 0;
        for (arrival, step) in arrivals.iter_mut().zip(steps.iter().cycle()) {
            stepped += step;
            let at = arrival.at.as_millis().saturating_add_signed(stepped);
            arrival.at = Timestamp::from_millis(at);
        }
        arrivals
    })
}

fn unplayed_flood() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..500_u64, 0..40, any::<bool>(), any::<bool>());
    usual(vec(step, 50..150).prop_map(|steps| {
        let moves = steps
            .into_iter()
            .flat_map(|(gap, id, derived, is_reported)| {
                let renewal = seen(playback(id), derived, Provenance::Unplayed);
                let played = is_reported.then(|| (0, Message::Played(playback(id))));
                [Some((gap, renewal)), played]
            });
        moves.flatten().collect()
    }))
}

fn ping_pong() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..4_000_u64, any::<bool>(), any::<bool>());
    let names = select(vec![["tv", "pc"], ["", ""], ["tv", ""], ["tv", "tv"]]);
    usual((vec(step, 30..120), names).prop_map(|(steps, names)| {
        let moves = steps.into_iter().map(|(gap, is_first, takes_over)| {
            let (own, rival) = if is_first { (0, 1) } else { (1, 0) };
            let when_full = if takes_over {
                WhenFull::TakeOver(playback(rival))
            } else {
                WhenFull::DisplaceOldest
            };
            (gap, starts(playback(own), true, names[own], when_full))
        });
        moves.collect()
    }))
}

fn forged_outage() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..300_u64, 0..120, 0..4);
    usual(vec(step, 50..150).prop_map(|steps| {
        let moves = steps.into_iter().map(|(gap, id, what)| {
            let message = match what {
                0 => Message::Played(playback(id)),
                1 => starts(playback(id), false, "", WhenFull::Refuse),
                _ => seen(playback(id), false, Provenance::ByRule),
            };
            (gap, message)
        });
        moves.collect()
    }))
}

fn undo_of_others() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..2_000_u64, 0..4, any::<bool>(), 1..4_u32);
    usual(vec(step, 30..120).prop_map(|steps| {
        let moves = steps.into_iter().filter_map(|(gap, id, is_start, number)| {
            let ticket = Ticket::new(number)?;
            let message = if is_start {
                match starts(playback(id), true, "", WhenFull::DisplaceOldest) {
                    Message::Start(start, rules) => {
                        let ticket = Some(ticket);
                        Message::Start(Start { ticket, ..start }, rules)
                    }
                    other => other,
                }
            } else {
                ends(playback(id), Ending::Undone(ticket))
            };
            Some((gap, message))
        });
        moves.collect()
    }))
}

fn impatience() -> impl Strategy<Value = Vec<Arrival>> {
    let gap = prop_oneof![Just(1), 19_900..20_100_u64, 9_900..10_100_u64];
    let step = (gap, any::<bool>(), any_displacing());
    usual(vec(step, 20..60).prop_map(|steps| {
        let mut moves = vec![(0, starts(playback("out"), true, "tv", WhenFull::Refuse))];
        for (gap, is_rival, when_full) in steps {
            moves.push(if is_rival {
                (gap, starts(playback("rival"), true, "pc", when_full))
            } else {
                (gap, starts(playback("out"), true, "tv", when_full))
            });
        }
        moves
    }))
}

fn late_refunds() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..1_900_u64, 20_000..31_000_u64, 1..12_usize);
    usual(vec(step, 5..20).prop_map(|rounds| {
        let mut moves = Vec::new();
        for (round, (soon, late, count)) in rounds.into_iter().enumerate() {
            let id = |of| playback(format!("{round}-{of}"));
            let displacing = |of| starts(id(of), false, "", WhenFull::DisplaceOldest);
            moves.extend((0..count).map(|of| (0, displacing(of))));
            // One sign of life that proves nothing keeps it until after the first refill.
            moves.extend((0..count).map(|of| (0, seen(id(of), false, Provenance::Unplayed))));
            moves.push((soon, seen(id(count - 1), false, Provenance::Unplayed)));
            moves.push((late, displacing(count)));
            moves.extend((0..=count).map(|of| (0, ends(id(of), Ending::Failed))));
        }
        moves
    }))
}

fn mimicry() -> impl Strategy<Value = Vec<Arrival>> {
    let step = (0..3_000_u64, select(vec!["tv", "pc", ""]), any::<bool>());
    usual(vec(step, 40..120).prop_map(|steps| {
        let numbered = steps.into_iter().enumerate();
        let moves = numbered.map(|(count, (gap, device, derived))| {
            let id = if derived { count % 3 } else { 100 + count };
            let displaces = WhenFull::DisplaceOldest;
            (gap, starts(playback(id), derived, device, displaces))
        });
        moves.collect()
    }))
}

// === each is tried ===

/// Defines a property for each attack, and a test that the attack provokes the answers it targets.
macro_rules! attacks {
    ($($attack:ident: $answers:expr,)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: ProptestConfig::default().cases / 8, // 32, or more in a soak that sets PROPTEST_CASES
                failure_persistence: None,
                ..ProptestConfig::default()
            })]

            $(
                #[test]
                fn $attack(attack in super::$attack()) {
                    judge(attack);
                }
            )*
        }

        #[test]
        fn each_attack_provokes_its_target_answers() {
            $(aims(stringify!($attack), super::$attack(), &$answers);)*
        }
    };
}

/// Checks that the attack provokes all these answers.
fn aims(name: &str, attack: impl Strategy<Value = Vec<Arrival>>, expected: &[&str]) {
    let mut runner = TestRunner::deterministic();
    let mut told = BTreeSet::new();
    for _ in 0..20 {
        let attack = attack.new_tree(&mut runner).unwrap().current();
        told.extend(play(attack).map(|step| step.told()));
    }
    for answer in expected {
        assert!(
            told.contains(answer),
            "{name} never hears {answer:?}: {told:?}"
        );
    }
}

mod held {
    use super::*;

    const DISPLACES: &str = "started instead of another";
    const ENDED: &str = "sighting of an ended one";
    const REFUSED: &str = "start of an ended one";

    attacks! {
        fresh_id_for_each_segment: ["started", DISPLACES, "full", "plays"],
        takeover_flood: ["started", DISPLACES, "full"],
        junk_releases_before_renewals: [ENDED, "crowded", "freed", "not live"],
        release_and_restart: ["started", "full", "freed", "seen, yet unproven", "renewed by a sighting"],
        failed_title_churn: [DISPLACES, "freed", "kept", "put back"],
        replayed_releases: ["started", DISPLACES, "freed", "kept", "not live", "already ended"],
        operator_end_evasion: [REFUSED, ENDED, "already ended", "unknown plays", DISPLACES],
        two_instances: ["started", DISPLACES, REFUSED, "put back", ENDED, "freed"],
        clock_steps: ["started", DISPLACES, "full", "put back, yet unproven"],
        unplayed_flood: ["put back, yet unproven", "crowded", "plays", "renewed by a sighting"],
        ping_pong: ["started", DISPLACES, REFUSED, "full", "renewed by a start"],
        forged_outage: ["put back", "put back, yet unproven", "seen, yet unproven", "crowded", "full"],
        undo_of_others: ["started", DISPLACES, "freed", "kept", "not live"],
        impatience: [REFUSED, DISPLACES, "renewed by a start"],
        late_refunds: [DISPLACES, "freed", "full", "seen, yet unproven"],
        mimicry: [DISPLACES, REFUSED, "full"],
    }
}
