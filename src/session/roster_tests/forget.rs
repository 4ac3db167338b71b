//! How long anything is remembered, how much of it, and what becomes of it when the clock steps back.

use super::*;

#[test]
fn of_65_ends_the_earliest_to_be_forgotten_is_forgotten() {
    let mut viewer = Viewer::limited_to(1);
    viewer.release("playback:0", Ending::Operator);
    viewer.wait(seconds(1));
    for count in 1..64 {
        viewer.release(&format!("playback:{count}"), Ending::Stream);
    }
    assert_eq!(viewer.roster.tombstones(viewer.now).count(), 64);
    viewer.wait(seconds(1));
    assert_eq!(answer(&viewer.admit("playback:0")), "operator");
    for (another, forgotten) in [("playback:64", "playback:1"), ("playback:65", "playback:2")] {
        assert!(viewer.tombstone(forgotten).is_some(), "{forgotten}");
        viewer.release(another, Ending::Stream);
        assert_eq!(viewer.roster.tombstones(viewer.now).count(), 64);
        assert_eq!(viewer.tombstone(forgotten), None, "{forgotten}");
        assert!(viewer.tombstone(another).is_some(), "{another}");
        assert!(viewer.tombstone("playback:0").is_some());
    }
}

#[test]
fn what_is_over_is_listed_no_more_though_nothing_has_swept_it_out() {
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
fn after_the_clock_has_stepped_back_nothing_ends_further_ahead_than_is_allowed() {
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
fn a_short_step_back_leaves_what_is_not_too_far_ahead() {
    let mut viewer = Viewer::limited_to(3);
    viewer.ask(&Start {
        lease: seconds(15),
        ..start("request:a")
    });
    let before = viewer.session("request:a").expires_at;
    viewer.step_back(seconds(5));
    viewer.admit("playback:b");
    assert_eq!(viewer.session("request:a").expires_at, before);
}

#[test]
fn after_the_clock_has_stepped_back_who_came_before_is_still_older_and_idler() {
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
fn what_has_expired_is_as_if_it_had_never_been_to_a_sighting_and_to_an_end() {
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
