//! Which ends are remembered, and that no kind of end pushes out another.

use super::*;

/// Ends one live session by displacement, one by release and one by an operator; and one request.
fn with_ends_that_matter() -> Viewer {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    viewer.limit = 9;
    viewer.admit("playback:live");
    viewer.release("playback:live", Ending::Stream);
    viewer
}

const THAT_MATTER: [&str; 4] = [
    "playback:displaced",
    "playback:taker",
    "playback:operator",
    "playback:live",
];

#[test]
fn a_flood_of_ends_of_strangers_pushes_out_none_that_matters() {
    let mut viewer = with_ends_that_matter();
    let before: Vec<_> = THAT_MATTER.map(|session| viewer.tombstone(session)).into();
    for count in 0..100_000 {
        let kind = ["playback", "request"][count % 2];
        viewer.release(&format!("{kind}:junk-{count}"), Ending::Stream);
    }
    let after: Vec<_> = THAT_MATTER.map(|session| viewer.tombstone(session)).into();
    assert_eq!(after, before);
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 4 + 32);
    for session in THAT_MATTER {
        assert!(
            matches!(viewer.renew(session), Renewal::Ended(_)),
            "{session}"
        );
    }
}

#[test]
fn no_flood_of_ends_pushes_out_an_operators_end() {
    let mut viewer = with_ends_that_matter();
    (viewer.limit, viewer.when_full) = (1, WhenFull::DisplaceOldest);
    viewer.free = true;
    for count in 0..300 {
        viewer.admit(&format!("playback:{count}"));
    }
    viewer.limit = 2;
    for count in 0..300 {
        viewer.admit(&format!("request:{count}"));
        viewer.release(&format!("request:{count}"), Ending::Stream);
    }
    assert!(viewer.tombstone("playback:operator").is_some());
    assert_eq!(viewer.tombstone("playback:live"), None);
    // Requests don't make it forget a playback.
    assert!(viewer.tombstone("playback:298").is_some());
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 1 + 64 + 32);
}

#[test]
fn operators_ends_push_out_nothing_else() {
    let mut viewer = with_ends_that_matter();
    for count in 0..300 {
        viewer.release(&format!("playback:{count}"), Ending::Operator);
    }
    for session in ["playback:displaced", "playback:taker", "playback:live"] {
        assert!(viewer.tombstone(session).is_some(), "{session}");
    }
    assert!(viewer.tombstone("playback:released").is_some());
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 4 + 32);
}

#[test]
fn a_full_list_forgets_the_end_that_it_would_forget_first() {
    for (list, room) in [
        (EndList::Operator, 32),
        (EndList::Live, 64),
        (EndList::Stranger, 32),
    ] {
        assert_eq!(list.room(), room);
        let mut viewer = Viewer::limited_to(if list == EndList::Live { 99 } else { 0 });
        for count in 0..99 {
            viewer.admit(&format!("playback:{count}"));
        }
        viewer.wait(seconds(10));
        let ending = match list {
            EndList::Operator => Ending::Operator,
            EndList::Live | EndList::Stranger => Ending::Stream,
        };
        for count in 0..=room {
            // The second to be recorded is the first to be forgotten.
            let age = seconds(if count == 1 { 5 } else { 0 });
            let session = format!("playback:{count}");
            viewer.release_said(age, &session, ending);
            assert_eq!(viewer.tombstone(&session).unwrap().list(), list);
            let first = viewer.tombstone("playback:1");
            assert_eq!(first.is_some(), (1..room).contains(&count), "{list:?}");
        }
        assert_eq!(viewer.roster.tombstones(viewer.now).count(), room);
    }
}

#[test]
fn the_list_of_an_end_is_its_cause_and_whether_it_was_live() {
    let by = key("playback:by");
    let displaced = EndCause::Displaced { by };
    for (session, cause, was_live, list) in [
        ("playback:a", EndCause::Operator, true, EndList::Operator),
        ("playback:a", EndCause::Operator, false, EndList::Operator),
        ("video:a", EndCause::Operator, true, EndList::Operator),
        ("playback:a", EndCause::Released, true, EndList::Live),
        ("playback:a", EndCause::Released, false, EndList::Stranger),
        ("video:a", displaced.clone(), true, EndList::Live),
        ("playback:a", displaced, true, EndList::Live),
        ("request:a", EndCause::Released, true, EndList::Stranger),
        ("request:a", EndCause::Released, false, EndList::Stranger),
    ] {
        let tombstone = Tombstone {
            key: key(session),
            cause,
            asked_at: Timestamp::default(),
            until: Timestamp::default(),
            was_live,
            derived: false,
            rival: Facts::default(),
            message: None,
        };
        assert_eq!(tombstone.list(), list, "{tombstone:?}");
    }
}

/// A viewer at the limit of one, whose roster had to forget the end of a playback.
fn forgetful() -> Viewer {
    let mut viewer = Viewer::limited_to(1);
    viewer.admit("request:running");
    for count in 0..=32 {
        viewer.release(&format!("playback:{count}"), Ending::Stream);
    }
    assert_eq!(viewer.tombstone("playback:0"), None);
    viewer
}

#[test]
fn after_a_forgotten_end_unknown_playbacks_count_as_starts() {
    for (limit, expected) in [(1, "crowded"), (2, "provisional")] {
        for provenance in [Provenance::Counted, Provenance::ByRule] {
            let mut viewer = forgetful();
            viewer.limit = limit;
            let before = viewer.roster.clone();
            let renewal = viewer.see(&Sighting {
                provenance,
                ..sighting("playback:0")
            });
            let told = match renewal {
                Renewal::Crowded => "crowded",
                Renewal::Provisional { .. } => "provisional",
                other => panic!("{other:?}"),
            };
            assert_eq!(told, expected, "{provenance:?}");
            assert_eq!(viewer.roster == before, told == "crowded");
        }
    }
}

#[test]
fn after_a_forgotten_end_known_sessions_continue() {
    let mut viewer = forgetful();
    for session in ["request:running", "request:unknown"] {
        let renewal = viewer.renew(session);
        assert!(!matches!(renewal, Renewal::Crowded), "{session}");
    }
    viewer.limit = 9;
    viewer.renew("playback:known");
    viewer.limit = 1;
    let renewal = viewer.renew("playback:known");
    assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
}

#[test]
fn a_forgotten_end_matters_until_its_term_would_have_ended() {
    let mut viewer = forgetful();
    viewer.wait(terms().memory - Duration::from_millis(1));
    viewer.admit("request:running-on");
    assert_eq!(viewer.renew("playback:0"), Renewal::Crowded);
    viewer.wait(Duration::from_millis(1));
    let renewal = viewer.renew("playback:0");
    assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
}

#[test]
fn the_later_of_two_forgotten_ends_counts() {
    let mut viewer = forgetful();
    viewer.wait(seconds(10));
    viewer.admit("request:running");
    // Every one of the first ends makes room for a younger one, and so does one of the younger.
    for count in 100..133 {
        viewer.release(&format!("playback:{count}"), Ending::Stream);
    }
    viewer.wait(seconds(25));
    viewer.renew("request:running");
    assert_eq!(viewer.renew("playback:100"), Renewal::Crowded);
    viewer.wait(terms().memory - seconds(25));
    viewer.renew("request:running");
    let renewal = viewer.renew("playback:100");
    assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
}

#[test]
fn forgetting_ends_of_requests_makes_no_playback_suspect() {
    let mut viewer = Viewer::limited_to(1);
    viewer.admit("request:running");
    for count in 0..100 {
        viewer.release(&format!("request:{count}"), Ending::Stream);
    }
    let renewal = viewer.renew("playback:a");
    assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
}

#[test]
fn a_forgotten_end_moves_back_with_the_clock() {
    let mut viewer = forgetful();
    viewer.step_back(seconds(600));
    viewer.renew("request:running");
    viewer.wait(terms().memory - Duration::from_millis(1));
    viewer.admit("request:running-on");
    assert_eq!(viewer.renew("playback:0"), Renewal::Crowded);
    viewer.wait(Duration::from_millis(1));
    let renewal = viewer.renew("playback:0");
    assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
}

#[test]
fn the_roster_is_kept_while_a_forgotten_end_might_matter() {
    let mut viewer = Viewer::limited_to(70);
    for count in 0..70 {
        viewer.admit(&format!("playback:{count}"));
    }
    (viewer.limit, viewer.when_full) = (1, WhenFull::DisplaceOldest);
    viewer.admit("playback:missing");
    viewer.release("playback:missing", Ending::Failed);
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 0);
    assert_eq!(
        viewer.roster.forgettable_at(&terms()),
        Some(viewer.memory())
    );
    viewer.limit = 0;
    assert_eq!(viewer.renew("playback:0"), Renewal::Crowded);
}

#[test]
fn an_end_is_forgotten_by_name_only_once() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    let operator = key("playback:operator");
    let forgotten = viewer.roster.forget_end(&operator).unwrap();
    assert_eq!(forgotten.cause, EndCause::Operator);
    assert_eq!(viewer.roster.forget_end(&operator), None);
    assert!(viewer.tombstone("playback:released").is_some());
}
