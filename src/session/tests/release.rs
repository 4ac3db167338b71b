//! What an end leaves behind, depending on who reports it; and what a call may take back.

use super::*;

#[test]
fn each_end_leaves_the_right_tombstone() {
    use Ending::{Operator, Stream, Vouched};
    let (released, operator) = (Some(EndCause::Released), Some(EndCause::Operator));
    for (session, ending, cause) in [
        ("request:a", Stream, released.clone()),
        ("request:a", Vouched, None),
        ("playback:a", Stream, released.clone()),
        ("playback:a", Vouched, released),
        ("playback:a", Operator, operator.clone()),
        ("video:a", Stream, None),
        ("video:a", Vouched, None),
        ("video:a", Operator, operator),
    ] {
        for is_live in [true, false] {
            let mut viewer = Viewer::watching("playback:other", 2);
            if is_live {
                viewer.admit(session);
            }
            viewer.wait(seconds(1));
            let expected = if is_live {
                Released::Freed
            } else {
                Released::NotLive
            };
            let story = format!("{session} {ending:?} {is_live}");
            let tombstone = cause.clone().map(|cause| Tombstone {
                key: key(session),
                cause,
                until: viewer.memory(),
                asked_at: viewer.now,
                was_live: is_live,
                derived: false,
                rival: Facts::default(),
                message: None,
            });
            assert_eq!(viewer.release(session, ending), expected, "{story}");
            assert_eq!(viewer.live(), keys("playback:other"), "{story}");
            assert_eq!(viewer.tombstone(session), tombstone, "{story}");
        }
    }
}

#[test]
fn a_repeated_end_reports_the_cause_without_changes() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    viewer.wait(seconds(10));
    let before = viewer.roster.clone();
    for session in [
        "playback:released",
        "playback:displaced",
        "playback:operator",
    ] {
        for ending in [
            Ending::Stream,
            Ending::Vouched,
            Ending::Operator,
            Ending::Undone(ticket(1)),
        ] {
            let cause = viewer.tombstone(session).unwrap().cause;
            let known = Released::AlreadyEnded(cause);
            assert_eq!(viewer.release(session, ending), known, "{ending:?}");
            assert_eq!(viewer.roster, before, "{ending:?}");
        }
    }
}

#[test]
fn a_request_that_runs_is_not_stopped_by_an_operator() {
    let mut viewer = Viewer::watching("request:a", 1);
    let before = viewer.roster.clone();
    let released = viewer.release("request:a", Ending::Operator);
    assert_eq!(released, Released::NotStoppable);
    assert_eq!(viewer.roster, before);
}

#[test]
fn an_operators_end_of_an_unknown_request_leaves_no_tombstone() {
    let mut viewer = Viewer::watching("playback:a", 1);
    let before = viewer.roster.clone();
    let released = viewer.release("request:a", Ending::Operator);
    assert_eq!(released, Released::NotLive);
    assert_eq!(viewer.roster, before);
}

#[test]
fn a_stream_running_after_a_vouched_end_counts_again() {
    let mut viewer = Viewer::watching("request:a", 1);
    viewer.release("request:a", Ending::Vouched);
    assert_eq!(viewer.live(), []);
    viewer.renew("request:a");
    assert_eq!(viewer.live(), keys("request:a"));
}

#[test]
fn an_end_may_overtake_its_own_start() {
    for (session, late_start) in [
        ("request:a", "released"),
        ("playback:a", "released"),
        ("video:a", "started"),
    ] {
        let mut viewer = Viewer::limited_to(1);
        assert_eq!(viewer.release(session, Ending::Stream), Released::NotLive);
        assert_eq!(answer(&viewer.admit(session)), late_start, "{session}");
    }
}

/// Only a session that is known to be younger than the report goes on; after the step nobody knows.
#[test]
fn after_a_clock_step_back_a_report_of_a_moment_ago_ends_the_session() {
    let mut viewer = Viewer::watching("request:a playback:b", 3);
    viewer.wait(seconds(1));
    viewer.step_back(seconds(60));
    let moment = Duration::from_millis(3);
    for session in ["request:a", "playback:b"] {
        let mut viewer = viewer.clone();
        let released = viewer.release_said(moment, session, Ending::Stream);
        assert_eq!(released, Released::Freed, "{session}");
    }
    viewer.admit("playback:c");
    let released = viewer.release_said(moment, "playback:c", Ending::Stream);
    assert_eq!(released, Released::Kept);
}

/// A viewer with one request, started by the call with ticket 1.
fn started_by_one() -> Viewer {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&Start {
        ticket: Some(ticket(1)),
        ..start("request:a")
    });
    viewer
}

#[test]
fn a_call_takes_back_its_own_start_and_it_may_be_tried_again() {
    let mut viewer = started_by_one();
    for expected in [Released::Freed, Released::NotLive] {
        let undone = viewer.release("request:a", Ending::Undone(ticket(1)));
        assert_eq!(undone, expected);
        assert_eq!(viewer.roster, Roster::default());
    }
    assert_eq!(answer(&viewer.admit("request:a")), "started");
}

#[test]
fn a_call_takes_back_only_its_own_unrenewed_start() {
    let another = Start {
        ticket: Some(ticket(2)),
        ..start("request:a")
    };
    let mut restarted = started_by_one();
    restarted.release("request:a", Ending::Undone(ticket(1)));
    restarted.ask(&another);
    let mut retried = started_by_one();
    retried.ask(&another);
    let mut seen = started_by_one();
    seen.renew("request:a");
    let mut put_back = Viewer::limited_to(1);
    put_back.renew("request:a");
    for (story, viewer, undone) in [
        ("started by another call", started_by_one(), 2),
        ("undone, and started by another call", restarted, 1),
        (
            "renewed by another call's start, its own undo",
            retried.clone(),
            1,
        ),
        (
            "renewed by another call's start, that call's undo",
            retried,
            2,
        ),
        ("seen running", seen, 1),
        ("put back", put_back, 1),
        (
            "started without a ticket",
            Viewer::watching("request:a", 1),
            1,
        ),
    ] {
        let mut after = viewer.clone();
        let released = after.release("request:a", Ending::Undone(ticket(undone)));
        assert_eq!(released, Released::Kept, "{story}");
        assert_eq!(after.roster, viewer.roster, "{story}");
    }
}

#[test]
fn an_undo_touches_no_session_but_its_own() {
    let mut viewer = started_by_one();
    viewer.limit = 2;
    viewer.ask(&Start {
        ticket: Some(ticket(1)),
        ..start("request:b")
    });
    viewer.release("request:b", Ending::Undone(ticket(1)));
    assert_eq!(viewer.live(), keys("request:a"));
}

#[test]
fn an_end_that_was_said_before_the_start_ends_nothing() {
    for ending in [Ending::Stream, Ending::Vouched, Ending::Operator] {
        for (age, is_kept) in [(0, false), (999, false), (1_000, false), (1_001, true)] {
            let mut viewer = Viewer::watching("playback:a", 1);
            let before = viewer.clone();
            let age = Duration::from_millis(age);
            let released = viewer.release_said(age, "playback:a", ending);
            assert_eq!(released == Released::Kept, is_kept, "{ending:?} {age:?}");
            if is_kept {
                assert_eq!(viewer.roster, before.roster, "{ending:?}");
            } else {
                let end = viewer.tombstone("playback:a").unwrap();
                let until = viewer.now.after(terms().memory - age);
                assert_eq!((end.until, end.asked_at), (until, viewer.now));
            }
        }
    }
}

#[test]
fn an_end_older_than_its_memory_buries_nothing() {
    for ending in [Ending::Stream, Ending::Operator] {
        for (left, buried) in [(-1, false), (0, false), (1, true)] {
            let mut viewer = Viewer::limited_to(1);
            let memory = as_millis(terms().memory);
            let age = Duration::from_millis(memory.saturating_add_signed(-left));
            viewer.release_said(age, "playback:a", ending);
            let end = viewer.tombstone("playback:a");
            assert_eq!(end.is_some(), buried, "{ending:?} {left}");
        }
    }
}

#[test]
fn an_old_end_is_remembered_as_long_as_its_lease() {
    let mut viewer = Viewer::limited_to(1);
    viewer.admit("playback:a");
    viewer.wait(seconds(20));
    viewer.renew("playback:a");
    viewer.wait(seconds(15));
    let released = viewer.release_said(seconds(32), "playback:a", Ending::Stream);
    assert!(matches!(released, Released::Freed), "{released:?}");
    let until = viewer.now.after(Duration::from_millis(15_000 + 1_050));
    assert_eq!(viewer.tombstone("playback:a").unwrap().until, until);
}

#[test]
fn an_old_end_with_short_leases_outlasts_a_long_lease() {
    let mut viewer = Viewer::limited_to(1);
    viewer.terms = Terms::new(seconds(60), Duration::from_millis(50));
    viewer.ask(&Start {
        lease: seconds(60),
        ..start("playback:a")
    });
    viewer.wait(seconds(32));
    viewer.terms = Terms::new(seconds(3), Duration::from_millis(50));
    viewer.release_said(seconds(32), "playback:a", Ending::Operator);
    viewer.wait(seconds(28));
    // The instance that granted a minute answers from its lease until now.
    let renewal = viewer.renew("playback:a");
    assert_eq!(renewal, Renewal::Ended(EndCause::Operator));
}
