//! What a sighting does: a live session continues, an ended one stays ended, and an unknown one is
//! put back.

use super::*;

#[test]
fn a_sighting_of_an_ended_session_changes_nothing() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    viewer.wait(seconds(10));
    let before = viewer.roster.clone();
    for session in [
        "playback:released",
        "playback:displaced",
        "playback:operator",
    ] {
        let cause = viewer.tombstone(session).unwrap().cause;
        assert_eq!(viewer.renew(session), Renewal::Ended(cause));
        assert_eq!(viewer.roster, before);
    }
}

#[test]
fn unknown_streams_are_put_back_up_to_32_above_the_limit() {
    for limit in [0, 1, 3] {
        let mut viewer = Viewer::limited_to(limit);
        for count in 0..limit + 32 {
            let put_back = Renewal::PutBack {
                expires_at: viewer.now.after(seconds(30)),
            };
            assert_eq!(viewer.renew(&format!("request:{count}")), put_back);
        }
        let before = viewer.roster.clone();
        assert_eq!(viewer.renew("request:one-more"), Renewal::Crowded);
        assert_eq!(answer(&viewer.admit("request:one-more")), "full");
        assert_eq!(viewer.roster, before);
        let known = viewer.renew("request:0");
        assert!(matches!(known, Renewal::Renewed { .. }), "{known:?}");
    }
}

#[test]
fn a_limit_without_end_puts_back_without_end() {
    let mut viewer = Viewer::limited_to(u32::MAX);
    let renewal = viewer.renew("request:a");
    assert!(matches!(renewal, Renewal::PutBack { .. }), "{renewal:?}");
}

#[test]
fn a_stream_that_was_put_back_counts_like_any_other() {
    let mut viewer = Viewer::limited_to(1);
    viewer.renew("playback:a");
    viewer.renew("playback:b");
    for (session, expected) in [
        ("playback:a", "renewed"),
        ("playback:b", "renewed"),
        ("playback:c", "full"),
    ] {
        assert_eq!(answer(&viewer.admit(session)), expected);
    }
    viewer.release("playback:a", Ending::Stream);
    assert_eq!(answer(&viewer.admit("playback:c")), "full");
    viewer.release("playback:b", Ending::Stream);
    assert_eq!(answer(&viewer.admit("playback:c")), "started");
}

#[test]
fn a_stream_is_put_back_with_its_facts_and_past_start() {
    let now = Viewer::limited_to(1).now;
    let (earlier, later) = (Timestamp::from_millis(7), now.after(seconds(1)));
    for (told, believed) in [
        (None, now),
        (Some(earlier), earlier),
        (Some(now), now),
        (Some(later), now),
    ] {
        let mut viewer = Viewer::limited_to(1);
        viewer.see(&Sighting {
            facts: facts("tv", "news", Door::AccessLog, 7),
            lease: seconds(15),
            started_at: told,
            ..sighting("request:a")
        });
        let expected = Session {
            key: key("request:a"),
            facts: facts("tv", "news", Door::AccessLog, 7),
            started_at: believed,
            renewed_at: now,
            expires_at: now.after(seconds(15)),
            ticket: None,
            flags: Flags {
                played: true,
                ..Flags::default()
            },
        };
        assert_eq!(viewer.session("request:a"), expected, "{told:?}");
    }
}
