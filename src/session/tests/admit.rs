//! Which starts are admitted or refused, and what a start does to a session that is live or has
//! ended.

use super::*;

#[test]
fn starts_beyond_the_limit_are_refused_naming_the_holders() {
    let mut viewer = Viewer::limited_to(2);
    for (session, active) in [("playback:tv", 1), ("request:phone", 2)] {
        let expected = Admitted {
            entry: AdmissionKind::Started,
            session: Session::starting(&start(session), viewer.now.after(seconds(30)), viewer.now),
            active,
            displaced: Vec::new(),
            decided_at: viewer.now,
            limit_override: None,
        };
        assert_eq!(viewer.admit(session), Admission::Admitted(expected));
        viewer.wait(seconds(1));
    }
    let before = viewer.clone();
    let expected = Refusal::Full {
        limit: 2,
        holders: vec![
            viewer.session("playback:tv"),
            viewer.session("request:phone"),
        ],
        decided_at: viewer.now,
    };
    assert_eq!(viewer.admit("video:film"), Admission::Refused(expected));
    assert_eq!(viewer.roster, before.roster);
}

#[test]
fn a_session_is_written_down_as_it_was_asked_for() {
    let mut viewer = Viewer::limited_to(1);
    let asked = Start {
        facts: facts("tv", "news", Door::Http, 7),
        lease: seconds(15),
        ticket: Some(ticket(9)),
        ..start("playback:a")
    };
    viewer.ask(&asked);
    let expected = Session {
        key: key("playback:a"),
        facts: facts("tv", "news", Door::Http, 7),
        started_at: viewer.now,
        renewed_at: viewer.now,
        expires_at: viewer.now.after(seconds(15)),
        ticket: Some(ticket(9)),
        flags: Flags::default(),
    };
    assert_eq!(viewer.session("playback:a"), expected);
}

#[test]
fn a_slot_is_free_at_the_moment_its_lease_ends_and_not_before() {
    let mut viewer = Viewer::limited_to(1);
    viewer.admit("request:a");
    viewer.wait(seconds(30) - Duration::from_millis(1));
    assert_eq!(answer(&viewer.admit("request:b")), "full");
    assert_eq!(viewer.live(), keys("request:a"));
    viewer.wait(Duration::from_millis(1));
    assert_eq!(viewer.live(), []);
    assert_eq!(answer(&viewer.admit("request:b")), "started");
    assert_eq!(viewer.live(), keys("request:b"));
}

#[test]
fn a_repeated_start_is_a_renewal_at_any_limit() {
    for limit in [0, 1, 2, 3] {
        let mut viewer = Viewer::watching("playback:a playback:b", limit);
        let expected = Admitted {
            entry: AdmissionKind::Renewed,
            session: Session {
                renewed_at: viewer.now,
                expires_at: viewer.now.after(seconds(30)),
                ticket: None,
                flags: Flags {
                    played: true, // two seconds after its start
                    ..Flags::default()
                },
                ..viewer.session("playback:a")
            },
            active: 2,
            displaced: Vec::new(),
            decided_at: viewer.now,
            limit_override: None,
        };
        for when_full in [WhenFull::Refuse, WhenFull::DisplaceOldest] {
            viewer.when_full = when_full;
            let answer = viewer.admit("playback:a");
            assert_eq!(answer, Admission::Admitted(expected.clone()));
        }
        assert_eq!(viewer.live(), keys("playback:a playback:b"));
    }
}

#[test]
fn a_lease_grows_and_never_shrinks() {
    for renews in ["start", "sighting"] {
        let mut viewer = Viewer::limited_to(1);
        viewer.ask(&Start {
            ticket: Some(ticket(1)),
            ..start("playback:a")
        });
        let began = viewer.now;
        for (after, lease, ends) in [(1, 10, 30), (24, 5, 30), (25, 6, 31), (30, 30, 60)] {
            viewer.now = began.after(seconds(after));
            let lease = seconds(lease);
            let told = if renews == "start" {
                match viewer.ask(&Start {
                    lease,
                    ..start("playback:a")
                }) {
                    Admission::Admitted(admitted) => admitted.session.expires_at,
                    Admission::Refused(refusal) => panic!("{refusal:?}"),
                }
            } else {
                match viewer.see(&Sighting {
                    lease,
                    ..sighting("playback:a")
                }) {
                    Renewal::Renewed { expires_at } => expires_at,
                    other => panic!("{other:?}"),
                }
            };
            let session = viewer.session("playback:a");
            assert_eq!(told, began.after(seconds(ends)), "{renews} at {after}");
            assert_eq!(session.expires_at, told);
            assert_eq!(
                (session.started_at, session.renewed_at),
                (began, viewer.now)
            );
            assert_eq!(session.ticket, None);
        }
    }
}

#[test]
fn no_lease_exceeds_the_longest() {
    let mut viewer = Viewer::limited_to(1);
    let lease = seconds(31);
    let longest = viewer.now.after(seconds(30));
    let asked = Start {
        lease,
        ..start("playback:a")
    };
    for _ in ["started", "renewed"] {
        match viewer.ask(&asked) {
            Admission::Admitted(admitted) => assert_eq!(admitted.session.expires_at, longest),
            Admission::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    let mut seen = |session: &str| {
        viewer.see(&Sighting {
            lease,
            ..sighting(session)
        })
    };
    let expires_at = longest;
    assert_eq!(seen("playback:a"), Renewal::Renewed { expires_at });
    assert_eq!(seen("playback:b"), Renewal::PutBack { expires_at });
    for session in ["playback:a", "playback:b"] {
        assert_eq!(viewer.session(session).expires_at, longest);
    }
}

#[test]
fn a_repeated_start_brings_newer_facts_and_a_sighting_does_not() {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&Start {
        facts: facts("tv", "news", Door::ExtAuthz, 7),
        ..start("playback:a")
    });
    viewer.see(&Sighting {
        facts: facts("phone", "film", Door::AccessLog, 8),
        ..sighting("playback:a")
    });
    let session = viewer.session("playback:a");
    assert_eq!(session.facts, facts("tv", "news", Door::ExtAuthz, 7));
    viewer.ask(&Start {
        facts: facts("phone", "film", Door::Http, 8),
        ..start("playback:a")
    });
    let session = viewer.session("playback:a");
    assert_eq!(session.facts, facts("phone", "film", Door::ExtAuthz, 8));
}

#[test]
fn an_ended_session_is_refused_with_its_cause_despite_room() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    let displaced = EndCause::Displaced {
        by: key("playback:taker"),
    };
    for (session, cause) in [
        ("playback:released", EndCause::Released),
        ("playback:displaced", displaced),
        ("playback:operator", EndCause::Operator),
    ] {
        let refused = Admission::Refused(Refusal::Ended(cause, None, None));
        assert_eq!(viewer.admit(session), refused);
    }
    assert_eq!(viewer.live(), []);
}

#[test]
fn a_refusal_extends_an_end_against_the_viewers_will() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    let written = viewer.memory();
    viewer.wait(seconds(10));
    for (session, until) in [
        ("playback:released", written),
        ("playback:displaced", viewer.memory()),
        ("playback:operator", viewer.memory()),
    ] {
        viewer.admit(session);
        assert_eq!(viewer.tombstone(session).unwrap().until, until, "{session}");
    }
}

#[test]
fn an_end_is_forgotten_exactly_when_its_term_ends() {
    let mut viewer = Viewer::limited_to(1);
    viewer.release("playback:a", Ending::Stream);
    viewer.wait(terms().memory - Duration::from_millis(1));
    assert_eq!(answer(&viewer.admit("playback:a")), "released");
    viewer.wait(Duration::from_millis(1));
    assert_eq!(viewer.tombstone("playback:a"), None);
    assert_eq!(answer(&viewer.admit("playback:a")), "started");
}

#[test]
fn a_name_in_one_kind_is_never_a_name_in_another() {
    let mut viewer = Viewer::limited_to(3);
    viewer.release("request:a", Ending::Stream);
    for session in ["playback:a", "video:a"] {
        assert_eq!(answer(&viewer.admit(session)), "started");
    }
    assert_eq!(answer(&viewer.admit("request:a")), "released");
    viewer.release("playback:a", Ending::Stream);
    assert_eq!(viewer.live(), keys("video:a"));
}
