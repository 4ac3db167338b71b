//! Which session a newcomer displaces when all slots are taken.

use super::*;

/// One user at or above the limit, and the effect of a start of `playback:new`.
struct Displacement {
    story: &'static str,
    holders: &'static str,
    renewed: &'static str,
    limit: u32,
    when_full: WhenFull,
    answer: &'static str,
    displaced: &'static str,
}

#[test]
fn a_newcomer_displaces_the_right_session() {
    use WhenFull::{DisplaceIdlest as Idlest, DisplaceOldest as Oldest, Refuse, TakeOver};
    let take = |session| TakeOver(key(session));
    let three = "playback:a playback:b playback:c";
    let mixed = "request:r video:v playback:a";
    #[rustfmt::skip]
    let table = [
        ("nobody, if told to refuse",                      three, "",    3, Refuse,             "full",          ""),
        ("the oldest",                                     three, "",    3, Oldest,             "started",       "playback:a"),
        ("the oldest, though just renewed",                three, "playback:a", 3, Oldest,      "started",       "playback:a"),
        ("the idlest, which is the first if none renewed", three, "",    3, Idlest,             "started",       "playback:a"),
        ("the idlest, which is not the oldest",            three, "playback:a", 3, Idlest,      "started",       "playback:b"),
        ("the idlest, renewals in another order",          three, "playback:b playback:a playback:c", 3, Idlest, "started", "playback:b"),
        ("the one that is named",                          three, "",    3, take("playback:b"), "started",       "playback:b"),
        ("a video that is named",                          mixed, "",    3, take("video:v"),    "started",       "video:v"),
        ("nobody, if the named one is not live",           three, "",    3, take("playback:z"), "full",          ""),
        ("nobody, if the newcomer names itself",           three, "",    3, take("playback:new"), "full",        ""),
        ("nobody, if the name is one of another kind",     three, "",    3, take("video:a"),    "full",          ""),
        ("never a request, the oldest",                    mixed, "",    3, Oldest,             "started",       "video:v"),
        ("never a request, the idlest",                    mixed, "video:v playback:a", 3, Idlest, "started",    "video:v"),
        ("never a request that is named",                  mixed, "",    3, take("request:r"),  "not stoppable", ""),
        ("nobody for a request that is not live",          mixed, "",    3, take("request:z"),  "full",          ""),
        ("nobody where all are requests",                  "request:a request:b", "", 2, Oldest, "full",         ""),
        ("nobody while there is room",                     three, "",    4, Oldest,             "started",       ""),
        ("nobody while there is room, though named",       three, "",    4, take("playback:a"), "started",       ""),
        ("nobody while there is room, be it a request",    mixed, "",    4, take("request:r"),  "started",       ""),
        ("so many that one slot is free, oldest first",    three, "",    2, Oldest,             "started",       "playback:a playback:b"),
        ("so many that one slot is free, idlest first",    three, "playback:a", 2, Idlest,      "started",       "playback:b playback:c"),
        ("all, if it takes all",                           three, "",    1, Oldest,             "started",       "playback:a playback:b playback:c"),
        ("as many, past the requests",                     mixed, "",    2, Oldest,             "started",       "video:v playback:a"),
        ("nobody, if they would not be enough",            mixed, "",    1, Oldest,             "full",          ""),
        ("nobody, if the idlest would not be enough",      mixed, "",    1, Idlest,             "full",          ""),
        ("nobody, if the named one would not be enough",   three, "",    2, take("playback:b"), "full",          ""),
        ("nobody for whom none is allowed, oldest",        three, "",    0, Oldest,             "full",          ""),
        ("nobody for whom none is allowed, idlest",        three, "",    0, Idlest,             "full",          ""),
        ("nobody for whom none is allowed, named",         "playback:a", "", 0, take("playback:a"), "full",      ""),
        ("nobody where nobody is",                         "",    "",    0, Oldest,             "full",          ""),
    ]
    .map(|(story, holders, renewed, limit, when_full, answer, displaced)| Displacement {
        story, holders, renewed, limit, when_full, answer, displaced,
    });
    table.iter().for_each(displaces);
}

/// Plays one row of the table, and checks everything that must and must not have changed.
fn displaces(row: &Displacement) {
    let mut viewer = Viewer::watching(row.holders, row.limit);
    for session in row.renewed.split_whitespace() {
        viewer.renew(session);
        viewer.wait(seconds(1));
    }
    viewer.when_full = row.when_full.clone();
    let before = viewer.clone();
    let admission = viewer.admit("playback:new");
    assert_eq!(answer(&admission), row.answer, "{}", row.story);
    let Admission::Admitted(admitted) = admission else {
        assert_eq!(viewer.roster, before.roster, "{}", row.story);
        return;
    };
    let gone = keys(row.displaced);
    let mut live = before.live();
    live.retain(|key| !gone.contains(key));
    live.push(key("playback:new"));
    let told: Vec<_> = (admitted.displaced.iter().map(|s| s.key.clone())).collect();
    let buried: Vec<_> = viewer.roster.tombstones(viewer.now).cloned().collect();
    let expected: Vec<_> = (gone.iter().cloned())
        .map(|displaced| Tombstone {
            key: displaced,
            cause: EndCause::Displaced {
                by: key("playback:new"),
            },
            until: viewer.memory(),
            asked_at: viewer.now,
            was_live: true,
            derived: false,
            rival: Facts::default(),
            message: None,
        })
        .collect();
    assert_eq!(told, gone, "{}", row.story);
    assert_eq!(admitted.active, live.len(), "{}", row.story);
    assert_eq!(viewer.live(), live, "{}", row.story);
    assert_eq!(buried, expected, "{}", row.story);
}

#[test]
fn displaced_sessions_are_reported_unchanged() {
    let mut viewer = Viewer::watching("playback:a", 1);
    viewer.when_full = WhenFull::DisplaceOldest;
    let before = viewer.session("playback:a");
    match viewer.admit("playback:b") {
        Admission::Admitted(admitted) => assert_eq!(admitted.displaced, [before]),
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn among_equals_the_first_to_come_gives_way() {
    for when_full in [WhenFull::DisplaceOldest, WhenFull::DisplaceIdlest] {
        let mut viewer = Viewer::limited_to(3);
        for session in ["playback:c", "playback:a", "playback:b"] {
            viewer.admit(session);
        }
        viewer.when_full = when_full;
        viewer.admit("playback:d");
        assert_eq!(viewer.live(), keys("playback:a playback:b playback:d"));
    }
}

#[test]
fn the_oldest_session_is_the_one_that_started_first() {
    let mut viewer = Viewer::watching("playback:a", 2);
    viewer.see(&Sighting {
        started_at: Some(Timestamp::from_millis(7)),
        ..sighting("playback:b")
    });
    viewer.when_full = WhenFull::DisplaceOldest;
    viewer.admit("playback:c");
    assert_eq!(viewer.live(), keys("playback:a playback:c"));
}

#[test]
fn a_repeated_takeover_displaces_no_other_session() {
    let mut viewer = Viewer::watching("playback:a playback:b", 2);
    viewer.when_full = WhenFull::TakeOver(key("playback:a"));
    assert_eq!(answer(&viewer.admit("playback:c")), "started");
    assert_eq!(answer(&viewer.admit("playback:c")), "renewed");
    assert_eq!(viewer.live(), keys("playback:b playback:c"));
    assert_eq!(answer(&viewer.admit("playback:a")), "displaced");
}

#[test]
fn a_displaced_video_restarts_in_a_free_slot_only() {
    let mut viewer = Viewer::watching("video:film", 1);
    viewer.when_full = WhenFull::DisplaceOldest;
    assert_eq!(answer(&viewer.admit("playback:a")), "started");
    assert_eq!(answer(&viewer.admit("video:film")), "displaced");
    viewer.limit = 2;
    assert_eq!(answer(&viewer.admit("video:film")), "started");
    assert_eq!(viewer.live(), keys("playback:a video:film"));
    // A playback has other ids to start with.
    viewer.limit = 1;
    assert_eq!(answer(&viewer.admit("playback:b")), "started");
    viewer.limit = 9;
    assert_eq!(answer(&viewer.admit("playback:a")), "displaced");
}
