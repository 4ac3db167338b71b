//! The rule, clause by clause. Sessions are written as on the wire, `playback:tv`, so that a table reads like the story it tells.

use std::time::Duration;

use super::*;

/// What every test here grants: leases of at most 30 s, ends remembered for 31.05 s.
pub(super) fn terms() -> Terms {
    Terms::new(seconds(30), Duration::from_millis(50))
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The key that is written so.
pub(super) fn key(text: &str) -> SessionKey {
    let (kind, id) = text.split_once(':').unwrap();
    SessionKey {
        kind: Kind::from_name(kind).unwrap(),
        id: SessionId::parse(id).unwrap(),
    }
}

/// The keys that are written so, with spaces between them.
fn keys(text: &str) -> Vec<SessionKey> {
    text.split_whitespace().map(key).collect()
}

/// A start of that session, for half a minute, by nobody in particular.
pub(super) fn start(session: &str) -> Start {
    Start {
        key: key(session),
        facts: Facts::default(),
        lease: seconds(30),
        ticket: None,
    }
}

/// The news that this session was seen running.
pub(super) fn sighting(session: &str) -> Sighting {
    Sighting {
        key: key(session),
        facts: Facts::default(),
        lease: seconds(30),
        started_at: None,
    }
}

fn ticket(number: u32) -> Ticket {
    Ticket::new(number).unwrap()
}

/// A user with a limit, and the clock of the store that keeps the roster.
#[derive(Debug, Clone)]
struct Viewer {
    roster: Roster,
    limit: u32,
    when_full: WhenFull,
    now: Timestamp,
}

impl Viewer {
    fn limited_to(limit: u32) -> Self {
        Self {
            roster: Roster::default(),
            limit,
            when_full: WhenFull::Refuse,
            now: Timestamp::from_millis(1_000_000),
        }
    }

    /// A viewer whose sessions came one second after the other, and whose limit was lowered afterwards.
    fn watching(sessions: &str, limit: u32) -> Self {
        let mut viewer = Self::limited_to(u32::MAX);
        for session in sessions.split_whitespace() {
            viewer.admit(session);
            viewer.wait(seconds(1));
        }
        viewer.limit = limit;
        viewer
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    fn step_back(&mut self, span: Duration) {
        self.now = Timestamp::from_millis(self.now.as_millis() - as_millis(span));
    }

    fn admit(&mut self, session: &str) -> Admission {
        self.ask(&start(session))
    }

    fn ask(&mut self, start: &Start) -> Admission {
        self.roster
            .admit(start, self.limit, &self.when_full, &terms(), self.now)
    }

    fn renew(&mut self, session: &str) -> Renewal {
        self.see(&sighting(session))
    }

    fn see(&mut self, sighting: &Sighting) -> Renewal {
        self.roster.renew(sighting, self.limit, &terms(), self.now)
    }

    fn release(&mut self, session: &str, ending: Ending) -> Released {
        self.roster
            .release(&key(session), ending, &terms(), self.now)
    }

    /// Ends a session of every cause there is: `playback:released`, `playback:operator`, and `playback:displaced` by `playback:taker`, which is released.
    fn with_an_end_of_each_cause() -> Self {
        let mut viewer = Self::limited_to(1);
        viewer.admit("playback:displaced");
        viewer.when_full = WhenFull::DisplaceOldest;
        viewer.admit("playback:taker");
        viewer.release("playback:taker", Ending::Stream);
        viewer.release("playback:released", Ending::Stream);
        viewer.release("playback:operator", Ending::Operator);
        viewer
    }

    fn live(&self) -> Vec<SessionKey> {
        let live = self.roster.live(self.now);
        live.map(|session| session.key.clone()).collect()
    }

    fn session(&self, session: &str) -> Session {
        let mut live = self.roster.live(self.now);
        live.find(|live| live.key == key(session)).unwrap().clone()
    }

    fn tombstone(&self, session: &str) -> Option<Tombstone> {
        let mut tombstones = self.roster.tombstones(self.now);
        tombstones.find(|end| end.key == key(session)).cloned()
    }

    /// Until when an end that is written now is remembered.
    fn memory(&self) -> Timestamp {
        self.now.after(terms().memory)
    }
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

/// An admission in a few words.
fn answer(admission: &Admission) -> &'static str {
    match admission {
        Admission::Admitted(admitted) => match admitted.entry {
            Entry::Started => "started",
            Entry::Renewed => "renewed",
        },
        Admission::Refused(Refusal::Full { .. }) => "full",
        Admission::Refused(Refusal::Ended(cause)) => cause.as_str(),
        Admission::Refused(Refusal::NotStoppable) => "not stoppable",
    }
}

// === admit ===

#[test]
fn as_many_as_the_limit_are_let_in_and_the_next_is_refused_naming_them() {
    let mut viewer = Viewer::limited_to(2);
    for (session, active) in [("playback:tv", 1), ("request:phone", 2)] {
        let expected = Admitted {
            entry: Entry::Started,
            expires_at: viewer.now.after(seconds(30)),
            active,
            displaced: Vec::new(),
            decided_at: viewer.now,
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
fn a_repeated_start_is_a_renewal_whatever_the_limit() {
    for limit in [0, 1, 2, 3] {
        let mut viewer = Viewer::watching("playback:a playback:b", limit);
        let expected = Admitted {
            entry: Entry::Renewed,
            expires_at: viewer.now.after(seconds(30)),
            active: 2,
            displaced: Vec::new(),
            decided_at: viewer.now,
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
                    Admission::Admitted(admitted) => admitted.expires_at,
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
fn nobody_is_promised_a_longer_lease_than_the_longest() {
    let mut viewer = Viewer::limited_to(1);
    let lease = seconds(31);
    let longest = viewer.now.after(seconds(30));
    let asked = Start {
        lease,
        ..start("playback:a")
    };
    for _ in ["started", "renewed"] {
        match viewer.ask(&asked) {
            Admission::Admitted(admitted) => assert_eq!(admitted.expires_at, longest),
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
fn an_ended_session_is_refused_with_its_cause_though_there_is_room() {
    let mut viewer = Viewer::with_an_end_of_each_cause();
    let displaced = EndCause::Displaced {
        by: key("playback:taker"),
    };
    for (session, cause) in [
        ("playback:released", EndCause::Released),
        ("playback:displaced", displaced),
        ("playback:operator", EndCause::Operator),
    ] {
        let refused = Admission::Refused(Refusal::Ended(cause));
        assert_eq!(viewer.admit(session), refused);
    }
    assert_eq!(viewer.live(), []);
}

#[test]
fn a_refusal_extends_the_memory_of_an_end_that_was_not_the_sessions_own() {
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
fn an_end_is_forgotten_at_the_moment_its_memory_ends_and_not_before() {
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

// === displacement ===

/// One user at or above the limit, and what a start of `playback:new` does to that.
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
fn who_gives_way_to_a_newcomer() {
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

/// Plays one row of the table, and looks at all that must have changed and must not.
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
        })
        .collect();
    assert_eq!(told, gone, "{}", row.story);
    assert_eq!(admitted.active, live.len(), "{}", row.story);
    assert_eq!(viewer.live(), live, "{}", row.story);
    assert_eq!(buried, expected, "{}", row.story);
}

#[test]
fn the_displaced_are_told_as_they_were() {
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
fn the_oldest_is_the_one_that_started_first_not_the_one_that_was_put_back_first() {
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
fn a_takeover_that_is_repeated_displaces_nobody_else() {
    let mut viewer = Viewer::watching("playback:a playback:b", 2);
    viewer.when_full = WhenFull::TakeOver(key("playback:a"));
    assert_eq!(answer(&viewer.admit("playback:c")), "started");
    assert_eq!(answer(&viewer.admit("playback:c")), "renewed");
    assert_eq!(viewer.live(), keys("playback:b playback:c"));
    assert_eq!(answer(&viewer.admit("playback:a")), "displaced");
}

// === renew ===

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
fn an_unknown_stream_that_is_seen_running_is_put_back_up_to_32_above_the_limit() {
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
fn a_stream_is_put_back_with_what_is_known_of_it_and_its_start_is_believed_if_past() {
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
        };
        assert_eq!(viewer.session("request:a"), expected, "{told:?}");
    }
}

// === release ===

#[test]
fn what_the_end_of_a_session_leaves_behind() {
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
                Released::Freed(viewer.session(session))
            } else {
                Released::NotLive
            };
            let story = format!("{session} {ending:?} {is_live}");
            let tombstone = cause.clone().map(|cause| Tombstone {
                key: key(session),
                cause,
                until: viewer.memory(),
            });
            assert_eq!(viewer.release(session, ending), expected, "{story}");
            assert_eq!(viewer.live(), keys("playback:other"), "{story}");
            assert_eq!(viewer.tombstone(session), tombstone, "{story}");
        }
    }
}

#[test]
fn a_repeated_end_says_how_it_ended_and_changes_nothing() {
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
fn an_operators_end_of_a_request_that_does_not_run_finds_nothing_and_buries_nothing() {
    let mut viewer = Viewer::watching("playback:a", 1);
    let before = viewer.roster.clone();
    let released = viewer.release("request:a", Ending::Operator);
    assert_eq!(released, Released::NotLive);
    assert_eq!(viewer.roster, before);
}

#[test]
fn a_stream_that_runs_after_its_end_was_vouched_for_counts_again() {
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

// === undo ===

/// A viewer with one request, started by the call of ticket 1.
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
    let session = viewer.session("request:a");
    for expected in [Released::Freed(session), Released::NotLive] {
        let undone = viewer.release("request:a", Ending::Undone(ticket(1)));
        assert_eq!(undone, expected);
        assert_eq!(viewer.roster, Roster::default());
    }
    assert_eq!(answer(&viewer.admit("request:a")), "started");
}

#[test]
fn a_call_takes_back_nobody_elses_start_and_none_that_was_renewed() {
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

// === tombstones ===

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
    assert_eq!(viewer.roster.forgettable_at(), None);
    viewer.admit("playback:a");
    let lease = viewer.now.after(seconds(30));
    assert_eq!(viewer.roster.forgettable_at(), Some(lease));
    viewer.release("playback:b", Ending::Stream);
    assert_eq!(viewer.roster.forgettable_at(), Some(viewer.memory()));
    viewer.wait(seconds(20));
    viewer.admit("playback:a");
    let lease = viewer.now.after(seconds(30));
    assert_eq!(viewer.roster.forgettable_at(), Some(lease));
}

// === a clock that steps ===

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
    assert_eq!(viewer.roster.forgettable_at(), Some(viewer.memory()));
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

fn facts(device: &str, content: &str, door: Door, position_seconds: u32) -> Facts {
    Facts {
        device: Some(DeviceId::parse(device).unwrap()),
        content: Some(ContentId::parse(content).unwrap()),
        door: Some(door),
        position_seconds: Some(position_seconds),
    }
}
