//! Sessions that have played, that haven't, and that an outage let in.

use super::*;

/// A sighting of a session that the outage rule let in.
fn by_rule(session: &str) -> Sighting {
    Sighting {
        provenance: Provenance::ByRule,
        ..sighting(session)
    }
}

#[test]
fn a_reported_success_proves_a_session_and_leaves_its_lease() {
    let mut viewer = Viewer::limited_to(1);
    viewer.admit("playback:a");
    viewer.wait(seconds(1));
    let before = viewer.session("playback:a");
    assert!(!before.is_proven());
    let told = Playing {
        left: seconds(29),
        proven: true,
    };
    assert_eq!(viewer.played("playback:a"), Some(told));
    let mut expected = before;
    expected.flags.played = true;
    assert_eq!(viewer.session("playback:a"), expected);
}

#[test]
fn a_success_report_about_an_ended_session_changes_nothing() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    let before = viewer.roster.clone();
    for session in [
        "playback:released",
        "playback:displaced",
        "playback:operator",
        "playback:unknown",
    ] {
        assert_eq!(viewer.played(session), None, "{session}");
    }
    assert_eq!(viewer.roster, before);
    viewer.admit("playback:a");
    viewer.wait(seconds(30));
    assert_eq!(viewer.played("playback:a"), None);
}

#[test]
fn a_sign_of_life_proves_a_session_two_seconds_after_its_start() {
    for renews in ["start", "sighting"] {
        for (millis, proven) in [(0, false), (1_999, false), (2_000, true), (9_000, true)] {
            let mut viewer = Viewer::limited_to(1);
            viewer.admit("playback:a");
            viewer.wait(Duration::from_millis(millis));
            let expires_at = viewer.now.after(seconds(30));
            if renews == "start" {
                viewer.admit("playback:a");
            } else {
                let expected = if proven {
                    Renewal::Renewed { expires_at }
                } else {
                    Renewal::Provisional { expires_at }
                };
                assert_eq!(viewer.renew_unplayed("playback:a"), expected);
            }
            let session = viewer.session("playback:a");
            assert_eq!(session.is_proven(), proven, "{renews} after {millis} ms");
            assert_eq!(session.expires_at, expires_at);
        }
    }
}

#[test]
fn a_seen_playback_is_proven_immediately() {
    for provenance in [Provenance::Counted, Provenance::ByRule] {
        let mut viewer = Viewer::limited_to(1);
        viewer.admit("playback:a");
        let renewal = viewer.see(&Sighting {
            provenance,
            ..sighting("playback:a")
        });
        assert!(matches!(renewal, Renewal::Renewed { .. }), "{provenance:?}");
        assert!(viewer.session("playback:a").is_proven(), "{provenance:?}");
    }
}

#[test]
fn a_request_plays_by_definition() {
    let mut viewer = Viewer::limited_to(9);
    for session in ["request:a", "playback:a", "video:a"] {
        viewer.admit(session);
        let proven = session == "request:a";
        assert_eq!(viewer.session(session).is_proven(), proven, "{session}");
    }
}

#[test]
fn a_failure_removes_what_has_not_played_and_buries_nothing() {
    for session in ["playback:a", "video:a"] {
        let mut viewer = Viewer::limited_to(1);
        viewer.admit(session);
        viewer.wait(seconds(1));
        viewer.renew_unplayed(session);
        viewer.wait(seconds(9));
        let freed = viewer.release(session, Ending::Failed);
        assert_eq!(freed, Released::Freed, "{session}");
        assert_eq!(viewer.roster, Roster::default(), "{session}");
        let again = viewer.release(session, Ending::Failed);
        assert_eq!(again, Released::NotLive, "{session}");
        assert_eq!(viewer.roster, Roster::default(), "{session}");
        assert_eq!(answer(&viewer.admit(session)), "started", "{session}");
    }
}

#[test]
fn a_failure_removes_nothing_that_has_played() {
    let mut reported = Viewer::watching("playback:a", 1);
    reported.played("playback:a");
    let mut lively = Viewer::watching("playback:a", 1);
    lively.wait(seconds(1));
    lively.renew_unplayed("playback:a");
    let mut seen = Viewer::watching("playback:a", 1);
    seen.renew("playback:a");
    let mut put_back = Viewer::limited_to(1);
    put_back.renew("playback:a");
    for (story, viewer, session) in [
        ("a success was reported", reported, "playback:a"),
        ("a late sign of life", lively, "playback:a"),
        ("an entry while it runs", seen, "playback:a"),
        ("counted before", put_back, "playback:a"),
        ("a request", Viewer::watching("request:a", 1), "request:a"),
    ] {
        let mut after = viewer.clone();
        let released = after.release(session, Ending::Failed);
        assert_eq!(released, Released::Kept, "{story}");
        assert_eq!(after.roster, viewer.roster, "{story}");
    }
}

#[test]
fn a_failure_before_this_start_is_another_starts() {
    for (age, kept) in [(0, false), (1_000, false), (1_001, true)] {
        let mut viewer = Viewer::watching("playback:a", 1);
        let age = Duration::from_millis(age);
        let released = viewer.release_said(age, "playback:a", Ending::Failed);
        assert_eq!(released == Released::Kept, kept, "{age:?}");
    }
}

#[test]
fn sessions_displaced_by_a_failed_start_may_continue() {
    for ending in [Ending::Failed, Ending::Undone(ticket(1))] {
        let mut viewer = Viewer::watching("playback:a playback:b playback:c", 3);
        viewer.when_full = WhenFull::TakeOver(key("playback:a"));
        viewer.admit("playback:other");
        (viewer.limit, viewer.when_full) = (2, WhenFull::DisplaceOldest);
        viewer.ask(&Start {
            ticket: Some(ticket(1)),
            ..start("playback:missing")
        });
        assert_eq!(viewer.live(), keys("playback:other playback:missing"));
        viewer.release("playback:missing", ending);
        assert!(viewer.tombstone("playback:a").is_some(), "{ending:?}");
        for session in ["playback:b", "playback:c"] {
            assert_eq!(viewer.tombstone(session), None, "{ending:?}");
            let renewal = viewer.renew(session);
            assert!(matches!(renewal, Renewal::PutBack { .. }), "{ending:?}");
        }
        assert_eq!(viewer.live(), keys("playback:other playback:b playback:c"));
    }
}

#[test]
fn a_failure_that_means_nothing_lifts_nothing() {
    let mut viewer = Viewer::watching("playback:a", 1);
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.admit("playback:b");
    viewer.played("playback:b");
    viewer.release("playback:b", Ending::Failed);
    assert!(viewer.tombstone("playback:a").is_some());
}

#[test]
fn the_failure_of_a_title_frees_its_slot_for_another() {
    let mut viewer = Viewer::limited_to(1);
    for count in 0..9 {
        let missing = format!("playback:missing-{count}");
        assert_eq!(answer(&viewer.admit(&missing)), "started");
        viewer.release(&missing, Ending::Failed);
    }
    assert_eq!(answer(&viewer.admit("playback:film")), "started");
}

#[test]
fn unplayed_sessions_are_put_back_only_if_they_may_start() {
    for (limit, others, counts) in [(0, "", false), (1, "", true), (1, "request:r", false)] {
        let mut viewer = Viewer::watching(others, limit);
        viewer.when_full = WhenFull::DisplaceOldest;
        let before = viewer.clone();
        let renewal = viewer.renew_unplayed("playback:a");
        let expires_at = viewer.now.after(seconds(30));
        if counts {
            assert_eq!(renewal, Renewal::Provisional { expires_at });
            let flags = viewer.session("playback:a").flags;
            assert_eq!(flags, Flags::default());
        } else {
            assert_eq!(renewal, Renewal::Crowded, "at {limit}");
            assert_eq!(viewer.roster, before.roster, "at {limit}");
        }
    }
}

#[test]
fn a_request_is_always_counted() {
    for provenance in [
        Provenance::Counted,
        Provenance::ByRule,
        Provenance::Unplayed,
    ] {
        let mut viewer = Viewer::watching("playback:a", 1);
        let renewal = viewer.see(&Sighting {
            provenance,
            ..sighting("request:r")
        });
        assert!(matches!(renewal, Renewal::PutBack { .. }), "{provenance:?}");
        assert!(viewer.session("request:r").is_proven(), "{provenance:?}");
    }
}

#[test]
fn outage_admissions_above_the_limit_count_for_one_lease() {
    let mut viewer = Viewer::watching("playback:a", 1);
    let expires_at = viewer.now.after(seconds(30));
    let guest = Renewal::Provisional { expires_at };
    for _ in ["put back", "at 10 s", "at 20 s"] {
        assert_eq!(viewer.see(&by_rule("playback:guest")), guest);
        assert_eq!(answer(&viewer.admit("playback:guest")), "renewed");
        assert!(!viewer.session("playback:guest").is_proven());
        viewer.wait(seconds(10));
        viewer.renew("playback:a");
    }
    assert_eq!(viewer.live(), keys("playback:a"));
    assert_eq!(answer(&viewer.admit("playback:guest")), "full");
}

#[test]
fn a_success_does_not_make_a_guest_whole() {
    let mut viewer = Viewer::watching("playback:a", 1);
    viewer.see(&by_rule("playback:guest"));
    let told = Playing {
        left: seconds(30),
        proven: false,
    };
    assert_eq!(viewer.played("playback:guest"), Some(told));
}

#[test]
fn a_guest_stays_once_its_user_is_within_the_limit() {
    let mut viewer = Viewer::watching("playback:a", 1);
    viewer.see(&by_rule("playback:guest"));
    viewer.wait(seconds(1));
    viewer.release("playback:a", Ending::Stream);
    // Its start is unknown, so its age counts from its first sighting.
    let renewal = viewer.renew("playback:guest");
    assert!(matches!(renewal, Renewal::Provisional { .. }));
    viewer.wait(seconds(1));
    let whole = Renewal::Renewed {
        expires_at: viewer.now.after(seconds(30)),
    };
    assert_eq!(viewer.renew("playback:guest"), whole);
    assert!(viewer.session("playback:guest").is_proven());
}

#[test]
fn within_the_limit_an_outage_is_not_noticed() {
    let mut viewer = Viewer::watching("playback:a", 2);
    let whole = Renewal::PutBack {
        expires_at: viewer.now.after(seconds(30)),
    };
    assert_eq!(viewer.see(&by_rule("playback:b")), whole);
    assert!(viewer.session("playback:b").is_proven());
}

#[test]
fn a_failure_lifts_no_end_that_an_earlier_start_made() {
    let mut viewer = Viewer::watching("playback:x", 1);
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.admit("video:film");
    viewer.played("video:film");
    viewer.release("video:film", Ending::Stream);
    viewer.wait(seconds(1));
    viewer.admit("video:film");
    viewer.release("video:film", Ending::Failed);
    assert!(viewer.tombstone("playback:x").is_some());
}

#[test]
fn an_undo_that_comes_after_a_success_takes_nothing_back() {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&Start {
        ticket: Some(ticket(1)),
        ..start("playback:a")
    });
    viewer.played("playback:a");
    let undone = viewer.release("playback:a", Ending::Undone(ticket(1)));
    assert_eq!(undone, Released::Kept);
}
