//! How long the roster remembers things, how many, and what a clock step backwards does to them.

use super::*;

#[test]
fn ended_sessions_are_not_listed_even_before_a_sweep() {
    let mut viewer = Viewer::watching("playback:a", 1);
    viewer.release("playback:b", Ending::Stream);
    viewer.wait(seconds(40));
    assert_eq!(viewer.roster.live(viewer.now).count(), 0);
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 0);
    assert_ne!(viewer.roster, Roster::default());
}

#[test]
fn a_roster_may_be_forgotten_when_the_last_thing_in_it_ends() {
    let mut viewer = Viewer::limited_to(2);
    assert_eq!(viewer.roster.forgettable_at(&terms()), None);
    viewer.admit("playback:a");
    let lease = viewer.now.after(seconds(30));
    assert_eq!(viewer.roster.forgettable_at(&terms()), Some(lease));
    viewer.release("playback:b", Ending::Stream);
    assert_eq!(
        viewer.roster.forgettable_at(&terms()),
        Some(viewer.memory())
    );
    viewer.wait(seconds(20));
    viewer.admit("playback:a");
    let lease = viewer.now.after(seconds(30));
    assert_eq!(viewer.roster.forgettable_at(&terms()), Some(lease));
}

#[test]
fn after_a_clock_step_back_nothing_lasts_too_long() {
    let mut viewer = Viewer::limited_to(3);
    viewer.admit("playback:a");
    viewer.release("playback:b", Ending::Stream);
    viewer.step_back(seconds(600));
    viewer.admit("playback:c");
    let lease = viewer.now.after(seconds(30));
    assert_eq!(viewer.session("playback:a").expires_at, lease);
    let tombstone = viewer.tombstone("playback:b").unwrap();
    assert_eq!(tombstone.until, viewer.memory());
    assert_eq!(
        viewer.roster.forgettable_at(&terms()),
        Some(viewer.memory())
    );
}

#[test]
fn a_clock_that_steps_back_moves_only_later_times() {
    let mut viewer = Viewer::limited_to(3);
    for session in ["request:before", "request:ahead"] {
        viewer.ask(&Start {
            lease: seconds(15),
            ..start(session)
        });
        viewer.release(&session.replace("request", "playback"), Ending::Stream);
        viewer.wait(seconds(5));
    }
    let before = viewer.clone();
    viewer.step_back(seconds(7));
    viewer.admit("playback:new");
    for (session, lease_ends, memory_ends) in [
        (
            "before",
            before.session("request:before").expires_at,
            before.tombstone("playback:before").unwrap().until,
        ),
        ("ahead", viewer.now.after(seconds(15)), viewer.memory()),
    ] {
        let live = viewer.session(&format!("request:{session}"));
        let end = viewer.tombstone(&format!("playback:{session}")).unwrap();
        assert_eq!(live.expires_at, lease_ends, "{session}");
        assert_eq!(end.until, memory_ends, "{session}");
        assert!(live.renewed_at <= viewer.now && end.asked_at <= viewer.now);
    }
}

#[test]
fn after_a_clock_step_back_age_and_idleness_keep_their_order() {
    for when_full in [WhenFull::DisplaceOldest, WhenFull::DisplaceIdlest] {
        let mut viewer = Viewer::limited_to(2);
        viewer.admit("playback:before");
        viewer.step_back(seconds(2));
        viewer.admit("playback:after");
        let before = viewer.session("playback:before");
        assert_eq!(before.started_at, viewer.now);
        assert_eq!(before.renewed_at, viewer.now);
        viewer.wait(seconds(1));
        viewer.when_full = when_full;
        viewer.admit("playback:new");
        assert_eq!(viewer.live(), keys("playback:after playback:new"));
    }
}

#[test]
fn expired_sessions_do_not_exist_for_sightings_and_ends() {
    let mut expired = Viewer::watching("playback:live", 1);
    expired.release("playback:ended", Ending::Stream);
    expired.wait(seconds(40));
    for session in ["playback:live", "playback:ended"] {
        let mut seen = expired.clone();
        let renewal = seen.renew(session);
        assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
        assert_eq!(seen.session(session).started_at, seen.now);
        let mut ended = expired.clone();
        assert_eq!(ended.release(session, Ending::Stream), Released::NotLive);
        assert_eq!(ended.tombstone(session).unwrap().until, ended.memory());
    }
}

#[test]
fn sessions_are_taken_out_and_put_in_and_the_rest_stays() {
    let mut viewer = Viewer::watching("playback:a video:b", 2);
    viewer.release("playback:ended", Ending::Stream);
    let mut roster = viewer.roster.clone();
    let taken = roster.take_sessions();
    assert_eq!(taken.len(), 2);
    assert_eq!(roster.live(viewer.now).count(), 0);
    assert_eq!(roster.tombstones(viewer.now).count(), 1);
    assert_eq!(roster.with_sessions(taken), viewer.roster);
}
