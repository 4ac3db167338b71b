//! When an id that has ended may be used again.

use super::*;

const FRESH: bool = false;
const DERIVED: bool = true;

/// `playback:a` on a device has ended, and asks again after a while.
struct Again {
    story: &'static str,
    cause: &'static str,
    derived: bool,
    /// The devices of the session and of the one that took its slot.
    devices: [&'static str; 2],
    waited_millis: u64,
    limit: u32,
    when_full: WhenFull,
    answer: &'static str,
}

#[test]
fn when_an_ended_id_may_begin_again() {
    use WhenFull::{DisplaceIdlest as Idlest, DisplaceOldest as Oldest, Refuse};
    let take = || WhenFull::TakeOver(key("playback:b"));
    let (same, other, unknown) = (["tv", "tv"], ["tv", "pc"], ["", ""]);
    #[rustfmt::skip]
    let table = [
        ("a fresh id never after its release",         "released",  FRESH,   same,    25_000, 2, Oldest, "released"),
        ("a fresh id never after a displacement",      "displaced", FRESH,   same,    25_000, 2, Oldest, "displaced"),
        ("a fresh id never by a takeover",             "displaced", FRESH,   same,    25_000, 1, take(), "displaced"),
        ("a fresh id never after an operator's end",   "operator",  FRESH,   same,    25_000, 2, Oldest, "operator"),
        ("after its release at once",                  "released",  DERIVED, other,   0,      2, Refuse, "started"),
        ("after its release within the limit",         "released",  DERIVED, other,   0,      1, Refuse, "full"),
        ("after its release: not from another device", "released",  DERIVED, other,   0,      1, Oldest, "full"),
        ("after its release: from its own device",     "released",  DERIVED, same,    0,      1, Oldest, "started"),
        ("after its release: from an unknown one",     "released",  DERIVED, unknown, 0,      1, Oldest, "started"),
        ("after its release: by a takeover",           "released",  DERIVED, other,   0,      1, take(), "started"),
        ("displaced: where a slot is free",            "displaced", DERIVED, other,   0,      2, Refuse, "started"),
        ("displaced: not at the limit",                "displaced", DERIVED, other,   0,      1, Refuse, "displaced"),
        ("displaced: not by displacing a stranger",    "displaced", DERIVED, other,   0,      1, Oldest, "displaced"),
        ("displaced: not by displacing the idlest",    "displaced", DERIVED, other,   0,      1, Idlest, "displaced"),
        ("displaced: by displacing its own device",    "displaced", DERIVED, same,    0,      1, Oldest, "started"),
        ("displaced by its own device, but refusing",  "displaced", DERIVED, same,    0,      1, Refuse, "full"),
        ("displaced: by a takeover",                   "displaced", DERIVED, other,   0,      1, take(), "started"),
        ("origins unknown: by displacing the oldest",  "displaced", DERIVED, unknown, 0,      1, Oldest, "started"),
        ("origins unknown: by displacing the idlest",  "displaced", DERIVED, unknown, 0,      1, Idlest, "started"),
        ("origins unknown, but refusing",              "displaced", DERIVED, unknown, 0,      1, Refuse, "displaced"),
        ("one origin unknown: by displacing",          "displaced", DERIVED, ["tv", ""], 0,   1, Oldest, "started"),
        ("displaced: not yet quiet",                   "displaced", DERIVED, other,   19_999, 1, Oldest, "displaced"),
        ("displaced: quiet",                           "displaced", DERIVED, other,   20_000, 1, Oldest, "started"),
        ("displaced: quiet, but refusing",             "displaced", DERIVED, other,   20_000, 1, Refuse, "full"),
        ("operator: not though a slot is free",        "operator",  DERIVED, same,    0,      3, Refuse, "operator"),
        ("operator: not by displacing its own device", "operator",  DERIVED, same,    0,      1, Oldest, "operator"),
        ("operator: not by a takeover",                "operator",  DERIVED, same,    0,      1, take(), "operator"),
        ("operator: not yet quiet",                    "operator",  DERIVED, same,    19_999, 2, Refuse, "operator"),
        ("operator: quiet",                            "operator",  DERIVED, same,    20_000, 2, Refuse, "started"),
    ]
    .map(|(story, cause, derived, devices, waited_millis, limit, when_full, answer)| Again {
        story, cause, derived, devices, waited_millis, limit, when_full, answer,
    });
    table.iter().for_each(begins_again);
}

/// Plays one row of the table.
fn begins_again(row: &Again) {
    let mut viewer = ended(row);
    viewer.wait(Duration::from_millis(row.waited_millis));
    (viewer.limit, viewer.when_full) = (row.limit, row.when_full.clone());
    let again = Start {
        derived: row.derived,
        ..derived("playback:a", row.devices[0])
    };
    let admission = viewer.ask(&again);
    assert_eq!(answer(&admission), row.answer, "{}", row.story);
    if answer(&admission) == "started" {
        let session = viewer.session("playback:a");
        assert_eq!(viewer.tombstone("playback:a"), None, "{}", row.story);
        assert!(session.flags.derived, "{}", row.story);
        let is_provisional = row.cause == "released";
        assert_eq!(session.flags.provisional, is_provisional, "{}", row.story);
    }
}

/// A viewer whose `playback:a` has ended with that cause, and whose `playback:b` is live.
fn ended(row: &Again) -> Viewer {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&Start {
        derived: row.derived,
        ..derived("playback:a", row.devices[0])
    });
    match row.cause {
        "released" => viewer.release("playback:a", Ending::Stream),
        "operator" => viewer.release("playback:a", Ending::Operator),
        _ => Released::Kept,
    };
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.ask(&derived("playback:b", row.devices[1]));
    assert_eq!(
        viewer.tombstone("playback:a").unwrap().cause.as_str(),
        row.cause
    );
    viewer
}

#[test]
fn each_refusal_reports_and_restarts_the_quiet_time() {
    for cause in ["displaced", "operator"] {
        let mut viewer = ended(&Again {
            story: "",
            cause,
            derived: DERIVED,
            devices: ["tv", "pc"],
            waited_millis: 0,
            limit: 1,
            when_full: WhenFull::Refuse,
            answer: "",
        });
        for _ in 0..5 {
            viewer.wait(seconds(19));
            viewer.renew("playback:b");
            let Admission::Refused(refusal) = viewer.ask(&derived("playback:a", "tv")) else {
                panic!("{cause}");
            };
            assert_eq!(refusal.retry_after(), Some(seconds(20)), "{cause}");
            let end = viewer.tombstone("playback:a").unwrap();
            assert_eq!((end.asked_at, end.until), (viewer.now, viewer.memory()));
        }
        viewer.wait(seconds(20));
        viewer.when_full = WhenFull::DisplaceOldest;
        let admission = viewer.ask(&derived("playback:a", "tv"));
        assert_eq!(answer(&admission), "started", "{cause}");
    }
}

#[test]
fn a_configured_quiet_is_what_is_waited_for() {
    let mut viewer = Viewer::limited_to(1);
    let asked = derived("playback:a", "");
    viewer.ask(&asked);
    viewer.release("playback:a", Ending::Operator);
    let rules = StartRules {
        quiet: seconds(3),
        ..StartRules::new(1, WhenFull::Refuse)
    };
    let refused = viewer.roster.admit(&asked, &rules, &terms(), viewer.now);
    let expected = Refusal::Ended(EndCause::Operator, Some(seconds(3)), None);
    assert_eq!(refused, Admission::Refused(expected));
    viewer.wait(seconds(3));
    let admission = viewer.roster.admit(&asked, &rules, &terms(), viewer.now);
    assert_eq!(answer(&admission), "started");
}

#[test]
fn the_quiet_time_never_exceeds_the_end_s_term() {
    let mut viewer = Viewer::limited_to(1);
    let asked = derived("playback:a", "");
    viewer.ask(&asked);
    viewer.release("playback:a", Ending::Operator);
    let rules = StartRules {
        quiet: seconds(3600),
        ..StartRules::new(1, WhenFull::Refuse)
    };
    let refused = viewer.roster.admit(&asked, &rules, &terms(), viewer.now);
    let expected = Refusal::Ended(EndCause::Operator, Some(terms().memory), None);
    assert_eq!(refused, Admission::Refused(expected));
    viewer.wait(terms().memory);
    let admission = viewer.roster.admit(&asked, &rules, &terms(), viewer.now);
    assert_eq!(answer(&admission), "started");
}

#[test]
fn a_fresh_id_gets_no_retry_time() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    for session in [
        "playback:released",
        "playback:displaced",
        "playback:operator",
    ] {
        match viewer.admit(session) {
            Admission::Refused(refusal) => assert_eq!(refusal.retry_after(), None, "{session}"),
            Admission::Admitted(admitted) => panic!("{admitted:?}"),
        }
    }
}

#[test]
fn a_straggler_of_a_released_playback_costs_four_seconds() {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&derived("playback:a", ""));
    viewer.release("playback:a", Ending::Stream);
    viewer.ask(&derived("playback:a", ""));
    let expires_at = viewer.now.after(seconds(4));
    for millis in [0, 1_000, 1_999] {
        let mut straggling = viewer.clone();
        straggling.wait(Duration::from_millis(millis));
        let renewal = straggling.renew_unplayed("playback:a");
        assert_eq!(renewal, Renewal::Provisional { expires_at }, "{millis}");
        let renewal = straggling.renew("playback:a");
        assert_eq!(renewal, Renewal::Provisional { expires_at }, "{millis}");
        assert_eq!(straggling.session("playback:a").expires_at, expires_at);
    }
    viewer.wait(Duration::from_millis(3_999));
    assert_eq!(answer(&viewer.admit("playback:b")), "full");
    viewer.wait(Duration::from_millis(1));
    assert_eq!(answer(&viewer.admit("playback:b")), "started");
}

#[test]
fn a_reload_is_made_whole_by_a_request_two_seconds_later() {
    for renews in ["start", "sighting"] {
        let mut viewer = Viewer::limited_to(1);
        viewer.ask(&derived("playback:a", ""));
        viewer.release("playback:a", Ending::Stream);
        viewer.ask(&derived("playback:a", ""));
        viewer.wait(seconds(2));
        if renews == "start" {
            viewer.ask(&derived("playback:a", ""));
        } else {
            viewer.renew_unplayed("playback:a");
        }
        let session = viewer.session("playback:a");
        assert!(session.is_proven(), "{renews}");
        assert_eq!(
            session.expires_at,
            viewer.now.after(seconds(30)),
            "{renews}"
        );
    }
}

#[test]
fn a_reload_is_not_made_whole_above_the_limit() {
    let mut viewer = Viewer::limited_to(2);
    viewer.ask(&derived("playback:a", ""));
    viewer.release("playback:a", Ending::Stream);
    viewer.ask(&derived("playback:a", ""));
    viewer.admit("request:r");
    viewer.wait(seconds(2));
    for (limit, proven) in [(1, false), (2, true)] {
        viewer.limit = limit;
        viewer.renew("playback:a");
        assert_eq!(viewer.session("playback:a").is_proven(), proven, "{limit}");
    }
}

#[test]
fn a_short_lease_is_not_made_longer_by_a_reload() {
    let asked = Start {
        lease: seconds(3),
        ..derived("playback:a", "")
    };
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&asked);
    viewer.release("playback:a", Ending::Stream);
    viewer.ask(&asked);
    let session = viewer.session("playback:a");
    assert_eq!(session.expires_at, viewer.now.after(seconds(3)));
}

#[test]
fn the_record_decides_first_whether_an_id_is_derived() {
    for (story, is_live, was, says, expected) in [
        ("live and fresh", true, FRESH, DERIVED, "operator"),
        ("live and derived", true, DERIVED, FRESH, "started"),
        ("never live, says fresh", false, DERIVED, FRESH, "operator"),
        ("never live, says derived", false, FRESH, DERIVED, "started"),
    ] {
        let mut viewer = Viewer::limited_to(1);
        if is_live {
            viewer.ask(&Start {
                derived: was,
                ..start("playback:a")
            });
        }
        viewer.release("playback:a", Ending::Operator);
        viewer.wait(seconds(20));
        let admission = viewer.ask(&Start {
            derived: says,
            ..start("playback:a")
        });
        assert_eq!(answer(&admission), expected, "{story}");
    }
}

#[test]
fn a_derived_session_that_was_put_back_is_still_derived() {
    let mut viewer = Viewer::limited_to(1);
    viewer.see(&Sighting {
        derived: true,
        ..sighting("playback:a")
    });
    viewer.release("playback:a", Ending::Stream);
    assert_eq!(answer(&viewer.admit("playback:a")), "started");
}

#[test]
fn a_video_is_never_derived() {
    let mut viewer = Viewer::limited_to(1);
    viewer.ask(&derived("video:film", "tv"));
    viewer.release("video:film", Ending::Operator);
    viewer.ask(&derived("video:other", "tv"));
    viewer.when_full = WhenFull::TakeOver(key("video:other"));
    viewer.wait(seconds(25));
    viewer.renew("video:other");
    let refused = Refusal::Ended(EndCause::Operator, None, None);
    assert_eq!(
        viewer.ask(&derived("video:film", "tv")),
        Admission::Refused(refused)
    );
    viewer.release("video:other", Ending::Stream);
    assert_eq!(answer(&viewer.ask(&derived("video:film", "tv"))), "started");
    assert!(!viewer.session("video:film").flags.provisional);
}

#[test]
fn a_late_sighting_never_begins_a_derived_id_again() {
    for cause in ["released", "displaced", "operator"] {
        let mut viewer = ended(&Again {
            story: "",
            cause,
            derived: DERIVED,
            devices: ["tv", "tv"],
            waited_millis: 0,
            limit: 9,
            when_full: WhenFull::DisplaceOldest,
            answer: "",
        });
        viewer.limit = 9;
        viewer.wait(seconds(25));
        let renewal = viewer.see(&Sighting {
            derived: true,
            ..sighting("playback:a")
        });
        assert!(matches!(renewal, Renewal::Ended(_)), "{cause}");
    }
}

/// Starts derived ids one second apart. `how` says whether each takes over the previous one, and
/// whether the previous one is released first.
fn zap(viewer: &mut Viewer, channels: &str, device: &str, how: &str) -> Vec<&'static str> {
    let mut last = None::<String>;
    let answers = channels.split_whitespace().map(|channel| {
        viewer.wait(seconds(1));
        let channel = format!("playback:{channel}");
        viewer.when_full = match (&last, how) {
            (Some(last), "takeover") => WhenFull::TakeOver(key(last)),
            (Some(_), "idlest") => WhenFull::DisplaceIdlest,
            (Some(_), "oldest") => WhenFull::DisplaceOldest,
            _ => WhenFull::Refuse,
        };
        if let (Some(last), "release") = (&last, how) {
            viewer.release(last, Ending::Stream);
        }
        let admission = viewer.ask(&derived(&channel, device));
        last = Some(channel);
        answer(&admission)
    });
    answers.collect()
}

#[test]
fn zapping_back_and_forth_at_limit_one_is_never_refused() {
    for how in ["oldest", "idlest", "takeover", "release"] {
        for device in ["", "tv"] {
            let mut viewer = Viewer::limited_to(1);
            let answers = zap(&mut viewer, "A B A B C A", device, how);
            assert_eq!(answers, ["started"; 6], "by {how} on {device:?}");
            assert_eq!(viewer.live(), keys("playback:A"), "by {how} on {device:?}");
        }
    }
}

#[test]
fn only_a_named_device_may_zap_without_limit() {
    let channels = "A B ".repeat(10);
    for how in ["oldest", "idlest", "takeover"] {
        // Without a device it starts once, and displaces six times.
        for (device, expected) in [("tv", 20), ("", 7)] {
            let mut viewer = Viewer::limited_to(1);
            let answers = zap(&mut viewer, &channels, device, how);
            let started = answers.iter().filter(|told| **told == "started");
            assert_eq!(started.count(), expected, "by {how} on {device:?}");
        }
    }
}

#[test]
fn two_devices_do_not_take_each_others_slot_back() {
    let mut viewer = Viewer::limited_to(1);
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.ask(&derived("playback:tv", "tv"));
    viewer.ask(&derived("playback:pc", "pc"));
    for _ in 0..100 {
        let tv = viewer.ask(&derived("playback:tv", "tv"));
        assert_eq!(answer(&tv), "displaced");
        viewer.wait(seconds(6));
        assert_eq!(
            answer(&viewer.ask(&derived("playback:pc", "pc"))),
            "renewed"
        );
    }
}
