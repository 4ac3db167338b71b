//! How often a user may displace, what costs nothing, and what is refunded.

use super::*;
use crate::identity::{FactName, JoinedOrigin};

/// A viewer at the limit who may displace on request.
fn full(limit: u32) -> Viewer {
    let mut viewer = Viewer::limited_to(limit);
    for count in 0..limit {
        viewer.admit(&format!("playback:first-{count}"));
    }
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer
}

/// How many starts with new ids may displace until one is refused as full.
fn burst(viewer: &Viewer) -> u32 {
    let mut viewer = viewer.clone();
    for count in 0..100 {
        match answer(&viewer.admit(&format!("playback:burst-{count}"))) {
            "started" => assert_eq!(viewer.live().len(), viewer.limit as usize),
            "full" => return count,
            other => panic!("{other}"),
        }
    }
    panic!("there is no end to it");
}

#[test]
fn a_burst_displaces_five_times_more_than_the_limit() {
    for (limit, expected) in [(1, 6), (2, 7), (3, 8), (20, 25)] {
        for when_full in [WhenFull::DisplaceOldest, WhenFull::DisplaceIdlest] {
            let mut viewer = full(limit);
            viewer.when_full = when_full;
            assert_eq!(burst(&viewer), expected, "at {limit}");
        }
    }
}

#[test]
fn takeovers_draw_on_the_same_budget() {
    let mut viewer = full(1);
    let mut last = "playback:first-0".to_owned();
    let mut answers = Vec::new();
    for count in 0..7 {
        let next = format!("playback:{count}");
        viewer.when_full = WhenFull::TakeOver(key(&last));
        answers.push(answer(&viewer.admit(&next)));
        last = next;
    }
    let expected = [&["started"; 6][..], &["full"]].concat();
    assert_eq!(answers, expected);
}

#[test]
fn a_configured_burst_is_added_to_the_limit() {
    for (displacements, expected) in [(0, 2), (1, 3), (u32::MAX, 9)] {
        let mut viewer = full(2);
        let rules = StartRules {
            displacements,
            ..StartRules::new(2, WhenFull::DisplaceOldest)
        };
        let mut let_in = 0;
        for count in 0..9 {
            let start = start(&format!("playback:{count}"));
            let admission = viewer.roster.admit(&start, &rules, &terms(), viewer.now);
            let_in += u32::from(answer(&admission) == "started");
        }
        assert_eq!(let_in, expected, "with {displacements}");
    }
}

#[test]
fn one_displacement_comes_back_with_every_lease_of_a_playback() {
    let mut viewer = full(1);
    viewer.terms = terms().refilling_every(seconds(20));
    let began = viewer.now;
    let spent = burst(&viewer);
    for count in 0..spent {
        viewer.admit(&format!("playback:spent-{count}"));
    }
    for (millis, expected) in [
        (0, 0),
        (19_999, 0),
        (20_000, 1),
        (39_999, 1),
        (40_000, 2),
        (119_999, 5),
        (120_000, 6),
        (1_000_000, 6),
    ] {
        let mut later = viewer.clone();
        let holder = later.live().remove(0).to_string();
        while later.now < began.after(Duration::from_millis(millis)) {
            later.renew(&holder); // The holder keeps playing.
            let left = began.after(Duration::from_millis(millis)).since(later.now);
            later.wait(left.min(seconds(25)));
        }
        assert_eq!(burst(&later), expected, "after {millis} ms");
    }
}

#[test]
fn the_time_to_the_next_refill_is_not_lost_by_displacing() {
    let mut viewer = full(1);
    viewer.admit("playback:a");
    viewer.wait(seconds(29));
    for session in ["playback:b", "playback:c", "playback:d", "playback:e"] {
        viewer.admit(session);
    }
    assert_eq!(burst(&viewer), 1);
    viewer.wait(seconds(1));
    assert_eq!(burst(&viewer), 2);
}

#[test]
fn a_start_draws_one_displacement_however_many_give_way() {
    let mut viewer = full(3);
    viewer.limit = 1;
    assert_eq!(answer(&viewer.admit("playback:new")), "started");
    assert_eq!(viewer.live(), keys("playback:new"));
    assert_eq!(burst(&viewer), 5);
}

#[test]
fn a_start_without_displacement_costs_nothing() {
    let mut viewer = full(2);
    viewer.limit = 9;
    viewer.admit("playback:with-room");
    viewer.admit("playback:with-room");
    viewer.limit = 3;
    viewer.when_full = WhenFull::Refuse;
    assert_eq!(answer(&viewer.admit("playback:refused")), "full");
    viewer.when_full = WhenFull::TakeOver(key("playback:nobody"));
    assert_eq!(answer(&viewer.admit("playback:refused")), "full");
    viewer.when_full = WhenFull::DisplaceOldest;
    assert_eq!(burst(&viewer), 8);
}

#[test]
fn only_the_starts_own_origin_gives_way_for_nothing() {
    let joined = |number| Facts {
        joined: Some(JoinedOrigin(number)),
        ..Facts::default()
    };
    let shortened = || Facts {
        device: DeviceId::keep(Some(&"x".repeat(257)), &|_, _| {}),
        ..Facts::default()
    };
    let nothing = Facts::default();
    for (story, holders, newcomer, left) in [
        ("the same device", [from("tv"), from("tv")], from("tv"), 6),
        ("the same joined id", [joined(1), joined(1)], joined(1), 6),
        (
            "the same beginning of a device",
            [shortened(), shortened()],
            shortened(),
            5,
        ),
        ("another device", [from("tv"), from("tv")], from("pc"), 5),
        ("another joined id", [joined(1), joined(1)], joined(2), 5),
        (
            "one of two is another",
            [from("tv"), from("pc")],
            from("tv"),
            5,
        ),
        (
            "nothing known of either",
            [nothing.clone(), nothing.clone()],
            nothing.clone(),
            5,
        ),
        (
            "known of one side only",
            [from("tv"), from("tv")],
            nothing,
            5,
        ),
    ] {
        let mut viewer = Viewer::limited_to(2);
        for (session, facts) in ["playback:a", "playback:b"].iter().zip(holders) {
            viewer.ask(&Start {
                facts,
                ..start(session)
            });
        }
        (viewer.limit, viewer.when_full) = (1, WhenFull::DisplaceOldest);
        viewer.ask(&Start {
            facts: newcomer,
            ..start("playback:new")
        });
        assert_eq!(viewer.live(), keys("playback:new"), "{story}");
        let was_paid = viewer.session("playback:new").flags.paid;
        assert_eq!(was_paid, left == 5, "{story}");
        assert_eq!(burst(&viewer), left, "{story}");
    }
}

#[test]
fn an_own_origin_gives_way_though_the_budget_is_spent() {
    let mut viewer = full(1);
    for count in 0..6 {
        viewer.ask(&Start {
            facts: from("tv"),
            ..start(&format!("playback:spent-{count}"))
        });
        viewer.admit(&format!("playback:elsewhere-{count}"));
    }
    assert_eq!(burst(&viewer), 0);
    let tv = viewer.ask(&Start {
        facts: from("tv"),
        ..start("playback:elsewhere")
    });
    assert_eq!(answer(&tv), "full");
    viewer.release("playback:elsewhere-2", Ending::Stream);
    for count in 0..50 {
        let zapped = viewer.ask(&Start {
            facts: from("tv"),
            ..start(&format!("playback:zap-{count}"))
        });
        assert_eq!(answer(&zapped), "started", "zap {count}");
    }
}

#[test]
fn a_free_start_draws_nothing_and_needs_nothing() {
    let mut viewer = full(1);
    viewer.free = true;
    for count in 0..50 {
        let admission = viewer.admit(&format!("playback:free-{count}"));
        assert_eq!(answer(&admission), "started", "{count}");
    }
    viewer.free = false;
    assert_eq!(burst(&viewer), 6);
    for count in 0..6 {
        viewer.admit(&format!("playback:paid-{count}"));
    }
    viewer.free = true;
    assert_eq!(answer(&viewer.admit("playback:free")), "started");
}

#[test]
fn a_spent_budget_is_refused_as_full_without_changes() {
    let mut viewer = full(1);
    for count in 0..6 {
        viewer.admit(&format!("playback:{count}"));
    }
    let before = viewer.roster.clone();
    let expected = Refusal::Full {
        limit: 1,
        holders: vec![viewer.session("playback:5")],
        decided_at: viewer.now,
    };
    assert_eq!(expected.retry_after(), Some(seconds(10)));
    assert_eq!(
        viewer.admit("playback:one-more"),
        Admission::Refused(expected)
    );
    assert_eq!(viewer.roster, before);
}

#[test]
fn a_start_that_is_taken_back_gives_its_displacement_back() {
    for ending in [Ending::Failed, Ending::Undone(ticket(7))] {
        let mut viewer = full(1);
        for count in 0..20 {
            let asked = Start {
                ticket: Some(ticket(7)),
                ..start(&format!("playback:{count}"))
            };
            assert_eq!(answer(&viewer.ask(&asked)), "started", "{ending:?}");
            let released = viewer.release(asked.key.to_string().as_str(), ending);
            assert!(matches!(released, Released::Freed), "{released:?}");
            viewer.renew("playback:first-0"); // It keeps playing.
        }
        assert_eq!(viewer.live(), keys("playback:first-0"), "{ending:?}");
        assert_eq!(burst(&viewer), 6, "{ending:?}");
    }
}

#[test]
fn a_refund_leaves_earlier_displacements_spent() {
    let mut viewer = full(1);
    viewer.admit("playback:kept");
    let asked = Start {
        ticket: Some(ticket(7)),
        ..start("playback:undone")
    };
    assert_eq!(answer(&viewer.ask(&asked)), "started");
    viewer.release("playback:undone", Ending::Undone(ticket(7)));
    viewer.admit("playback:next");
    assert_eq!(burst(&viewer), 5);
}

#[test]
fn a_free_start_refunds_nothing() {
    let mut viewer = full(1);
    for count in 0..6 {
        viewer.admit(&format!("playback:{count}"));
    }
    for free in ["free", "with room"] {
        let mut after = viewer.clone();
        (after.free, after.limit) = (free == "free", if free == "free" { 1 } else { 2 });
        assert_eq!(answer(&after.admit("playback:new")), "started");
        after.release("playback:new", Ending::Failed);
        (after.free, after.limit) = (false, 1);
        after.renew("playback:5");
        assert_eq!(burst(&after), 0, "{free}");
    }
}

#[test]
fn a_released_start_gives_nothing_back() {
    for ending in [Ending::Stream, Ending::Vouched, Ending::Operator] {
        let mut viewer = full(1);
        viewer.admit("playback:a");
        viewer.release("playback:a", ending);
        viewer.renew("playback:somebody");
        assert_eq!(burst(&viewer), 5, "{ending:?}");
    }
}

#[test]
fn a_clock_that_steps_back_gives_nothing_and_refills_from_now() {
    let mut viewer = full(1);
    for count in 0..6 {
        viewer.admit(&format!("playback:{count}"));
    }
    viewer.step_back(seconds(600));
    assert_eq!(burst(&viewer), 0);
    viewer.renew("playback:5");
    viewer.wait(seconds(29));
    viewer.renew("playback:5");
    assert_eq!(burst(&viewer), 0);
    viewer.wait(seconds(1));
    assert_eq!(burst(&viewer), 1);
}

#[test]
fn the_roster_is_kept_until_the_last_displacement_is_back() {
    let mut viewer = full(1);
    let began = viewer.now;
    for (count, kept) in [(1, 31_050), (2, 60_000), (3, 90_000)] {
        viewer.admit(&format!("playback:{count}"));
        let forgettable = viewer.roster.forgettable_at(&terms());
        let kept = began.after(Duration::from_millis(kept));
        assert_eq!(forgettable, Some(kept), "{count}");
    }
}

#[test]
fn a_refill_of_no_time_at_all_leaves_nothing_spent() {
    let mut viewer = full(1);
    viewer.terms = terms().refilling_every(Duration::ZERO);
    assert_eq!(burst(&viewer), 6);
    for count in 0..6 {
        viewer.admit(&format!("playback:{count}"));
    }
    viewer.wait(seconds(1));
    assert_eq!(burst(&viewer), 6);
}
