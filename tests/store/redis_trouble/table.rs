//! A request of each kind under each fault, by each rule: how it is answered, and what is counted of it.

use futures_util::future::join_all;
use serde_json::json;
use streamgate::config::{OutageRule, Topology};

use super::{
    Fault, LONG, RULES, Scene, by_each_rule, counted, is_full, is_unavailable, lasting_store,
};
use testkit::gateway_client::{Answer, Check, end, periodic};

/// What is asked. Anna may watch two streams, and does: a playback and a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// A playback of somebody who has none.
    Playback,
    /// A request of somebody who has none.
    Request,
    /// A third stream of anna's.
    OneTooMany,
    /// The next segment of anna's playback.
    Segment,
    /// Anna's request once more.
    Repeat,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// One that says nothing of a user.
    NoUser,
    /// One that says nothing of a session.
    NoSession,
    /// The periodic access log entry of anna's request.
    Periodic,
    /// The end of dora's request in the access log.
    End,
    /// The release of emil's playback through the hook.
    Hook,
}

/// What comes of it.
#[derive(Debug, Clone, Copy)]
enum To {
    /// It is let in and told its session's name, for that reason.
    LetIn(&'static str),
    /// It is let through without one, for that reason.
    Passed(&'static str),
    /// It is told who holds the slots, for that reason.
    Full(&'static str),
    /// It is told that nobody knows.
    Unavailable,
    /// It is refused with that status, for that reason.
    Refused(i32, &'static str),
    /// It is read as an entry of that type, and taken for that.
    Logged(&'static str, &'static str),
    /// The hook answers with that.
    Status(u16),
}

/// What each is answered while the store doesn't answer, by `allow`, `deny` and `local`.
const TABLE: [(Ask, [To; 3]); 12] = [
    (Ask::Playback, STARTS),
    (Ask::Request, STARTS),
    (
        Ask::OneTooMany,
        [
            To::LetIn("outage_allowed"),
            To::Unavailable,
            To::Full("full_local"),
        ],
    ),
    (Ask::Segment, [To::LetIn("held"); 3]),
    (Ask::Repeat, [To::LetIn("held"); 3]),
    (Ask::Head, [To::Passed("head"); 3]),
    (Ask::Options, [To::Passed("preflight"); 3]),
    (Ask::NoUser, [To::Refused(401, "no_user"); 3]),
    (Ask::NoSession, [To::Refused(400, "no_session"); 3]),
    (Ask::Periodic, [To::Logged("periodic", "renewal"); 3]),
    (Ask::End, [To::Logged("end", "release"); 3]),
    (Ask::Hook, [To::Status(202); 3]),
];

/// What every start is answered.
const STARTS: [To; 3] = [
    To::LetIn("outage_allowed"),
    To::Unavailable,
    To::LetIn("outage_local"),
];

/// What a full store does all the same: it renews, releases, and refuses.
const FULL: [(Ask, To); 3] = [
    (Ask::OneTooMany, To::Full("full")),
    (Ask::Repeat, To::LetIn("renewed")),
    (Ask::Hook, To::Status(204)),
];

/// How many ask first, before it is known that the store is out.
const FIRST: usize = 5;

/// What that comes to.
fn expected(fault: Fault, rule: OutageRule, (ask, by_rule): (Ask, [To; 3])) -> To {
    let differs = FULL.iter().find(|(full, _)| *full == ask);
    match differs {
        Some((_, to)) if fault == Fault::Full => *to,
        _ => by_rule[RULES.iter().position(|each| *each == rule).unwrap()],
    }
}

impl To {
    /// Whether a check was answered so.
    fn is(self, answer: &Answer, session: &str) -> bool {
        let named = answer.header("x-streamgate-session");
        let denied = ("denied", answer.reason());
        match self {
            Self::LetIn(_) => answer.is_allowed() && named == Some(session),
            Self::Passed(_) => answer.is_allowed() && named.is_none(),
            Self::Full(_) => is_full(answer, &["film", "live"]),
            Self::Unavailable => is_unavailable(answer),
            Self::Refused(http, reason) => {
                answer.http == http && denied == (answer.kind, reason) && answer.code != 0
            }
            Self::Logged(..) | Self::Status(_) => false,
        }
    }

    /// The labels under which it is counted.
    fn counted_as(self) -> (&'static str, &'static str) {
        match self {
            Self::LetIn(reason) | Self::Passed(reason) => ("allow", reason),
            Self::Full(reason) | Self::Refused(_, reason) => ("deny", reason),
            Self::Unavailable => ("error", "outage"),
            Self::Logged(entry, outcome) => (entry, outcome),
            Self::Status(_) => ("", ""),
        }
    }
}

/// Those whose streams run before the trouble begins.
struct Running {
    /// Anna's request, as it was answered.
    live: Answer,
    /// Dora's.
    ending: Answer,
}

impl Running {
    /// They start, and Redis counts them.
    async fn start(scene: &Scene) -> Self {
        for (name, id) in [("anna", "film"), ("emil", "released")] {
            let check = Check::of_playback(name, id);
            let playback = scene.counts(name, check, id).await;
            scene.app.plays(&scene.gateway, &playback).await;
        }
        let request = async |name, id| scene.counts(name, Check::of(name, id), id).await;
        Self {
            live: request("anna", "live").await,
            ending: request("dora", "ending").await,
        }
    }

    /// Asks that; what it is to be answered.
    async fn ask(&self, scene: &Scene, ask: Ask, to: To) {
        let (fault, rule) = (scene.fault, scene.rule);
        let check = match ask {
            Ask::Playback => (Check::of_playback("ben", "new"), "new"),
            Ask::Request => (Check::of("cleo", "new"), "new"),
            Ask::OneTooMany => (Check::of_playback("anna", "third"), "third"),
            Ask::Segment => (Check::of_playback("anna", "film"), "film"),
            Ask::Repeat => (Check::of("anna", "live"), "live"),
            Ask::Head => (Check::of_playback("ben", "x").method("HEAD"), ""),
            Ask::Options => (Check::of_playback("ben", "x").method("OPTIONS"), ""),
            Ask::NoUser => (Check::of("", "x"), ""),
            Ask::NoSession => (Check::of("ben", "x").without("x-request-id"), ""),
            Ask::Periodic | Ask::End => {
                let entry = match ask {
                    Ask::Periodic => periodic("live", &self.live),
                    _ => end("ending", &self.ending),
                };
                let mut log = scene.gateway.access_log().await;
                log.send(vec![entry]);
                assert_eq!(log.finish().await, 0, "{fault:?} {rule:?} {ask:?}");
                return;
            }
            Ask::Hook => {
                let To::Status(status) = to else {
                    panic!("the hook gives {to:?}");
                };
                let body = json!({"user": "emil", "session": "released"});
                let hook = reqwest::Client::new().post(scene.app.url("/v1/release"));
                let answer = hook.json(&body).send().await.unwrap();
                assert_eq!(answer.status(), status, "{fault:?} {rule:?}");
                return;
            }
        };
        let answer = scene.gateway.check(check.0).await;
        assert!(
            to.is(&answer, check.1),
            "{fault:?} {rule:?} {ask:?}: {to:?} is not {answer:?}"
        );
        if let (Ask::Playback | Ask::OneTooMany, To::LetIn(_)) = (ask, to) {
            scene.app.plays(&scene.gateway, &answer).await;
        }
    }
}

/// How often something was answered so.
async fn count(scene: &Scene, to: To) -> u64 {
    let (first, second) = to.counted_as();
    match to {
        To::Logged(..) => scene.app.entries(first, second).await,
        To::Status(_) => 0,
        _ => scene.app.checks(first, second).await,
    }
}

/// The trouble begins, and the first who ask run into it.
async fn strike(scene: &Scene) {
    scene.strike().await;
    let to = expected(scene.fault, scene.rule, TABLE[0]);
    let first = (0..FIRST).map(async |number| {
        let id = format!("first-{number}");
        let answer = scene.gateway.check(Check::of_playback(&id, &id)).await;
        assert!(
            to.is(&answer, &id),
            "{:?} {:?}: {answer:?}",
            scene.fault,
            scene.rule
        );
    });
    join_all(first).await;
    scene.rule_is_in_force().await;
    let full = scene.fault == Fault::Full;
    let told = scene.readiness().await;
    assert_eq!(scene.says_up(&told), full, "{told}");
    assert!(told["store"]["trouble"].is_string(), "{told}");
    shows(scene, full, Some(scene.rule)).await;
}

/// The metrics show the store so, and that rule in force.
async fn shows(scene: &Scene, up: bool, in_force: Option<OutageRule>) {
    assert_eq!(scene.shows_up().await, up);
    for rule in RULES {
        let label = format!("{rule:?}").to_lowercase();
        let series = format!("streamgate_outage_rule{{rule=\"{label}\"}}");
        let shown = scene.app.metric(&series).await;
        assert_eq!(shown, u64::from(Some(rule) == in_force), "{label}");
    }
}

/// All is well again: what runs counts, what was let in too, and nothing else does.
async fn is_well(scene: &Scene) {
    scene.is_normal().await;
    scene.owes_nothing().await;
    let let_in = scene.rule != OutageRule::Deny;
    let store = lasting_store(&scene.server);
    let anna: &[&str] = match expected(scene.fault, scene.rule, TABLE[2]) {
        To::LetIn(_) => &["film", "live", "third"],
        _ => &["film", "live"],
    };
    let new = ["new"];
    let new = &new[..usize::from(let_in)];
    let expected = [
        ("anna", anna),
        ("ben", new),
        ("cleo", new),
        ("dora", &[]),
        ("emil", &[]),
    ];
    for (name, expected) in expected {
        let counted = counted(&store, name).await;
        assert_eq!(
            counted, expected,
            "{:?} {:?} {name}",
            scene.fault, scene.rule
        );
    }
    for number in 0..FIRST {
        let id = format!("first-{number}");
        let counted = counted(&store, &id).await;
        assert_eq!(
            counted.len(),
            usize::from(let_in),
            "{:?} {:?} {id}",
            scene.fault,
            scene.rule
        );
    }
    for cause in ["hook", "access_log"] {
        let series = format!("streamgate_releases_total{{cause=\"{cause}\"}}");
        // A Redis that has come back empty had nothing to release, and one whose answer is lost isn't known to have.
        let most = u64::from(scene.fault != Fault::Killed);
        let freed = scene.app.metric(&series).await;
        assert!(
            freed <= most,
            "{:?} {:?} {cause}: {freed}",
            scene.fault,
            scene.rule
        );
    }
    // For a while it is said that there was no room.
    if scene.fault != Fault::Full {
        shows(scene, true, None).await;
    }
}

/// Asks everything, by each rule, while that is wrong.
async fn each_is_answered_under(fault: Fault) {
    each_is_answered_in(Topology::Standalone, fault).await;
}

/// The same where that Redis is arranged so.
async fn each_is_answered_in(topology: Topology, fault: Fault) {
    by_each_rule(async |rule| {
        let scene = Scene::open(topology, fault, rule, (LONG, LONG)).await;
        let running = Running::start(&scene).await;
        strike(&scene).await;
        for row in TABLE {
            let to = expected(fault, rule, row);
            let before = count(&scene, to).await;
            running.ask(&scene, row.0, to).await;
            let grown = count(&scene, to).await - before;
            let is_check = !matches!(to, To::Status(_));
            assert_eq!(grown, u64::from(is_check), "{fault:?} {rule:?} {:?}", row.0);
        }
        scene.mend().await;
        is_well(&scene).await;
        scene.close().await;
    })
    .await;
}

#[tokio::test]
async fn each_is_answered_while_the_wire_stalls() {
    each_is_answered_under(Fault::Stall).await;
}

#[tokio::test]
async fn each_is_answered_while_the_wire_is_cut() {
    each_is_answered_under(Fault::Cut).await;
}

#[tokio::test]
async fn each_is_answered_while_answers_come_too_late() {
    each_is_answered_under(Fault::Slow).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_is_gone() {
    each_is_answered_under(Fault::Killed).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_stands_still() {
    each_is_answered_under(Fault::Paused).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_is_full() {
    each_is_answered_under(Fault::Full).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_is_a_replica() {
    each_is_answered_under(Fault::Replica).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_loads() {
    each_is_answered_under(Fault::Loading).await;
}

#[tokio::test]
async fn each_is_answered_while_redis_wants_a_password() {
    each_is_answered_under(Fault::Password).await;
}

#[tokio::test]
async fn each_is_answered_while_the_way_to_a_clusters_master_is_bad() {
    for fault in [Fault::Stall, Fault::Cut, Fault::Slow] {
        each_is_answered_in(Topology::Cluster, fault).await;
    }
}

/// A node of a cluster can't be told to be a replica of just any server.
#[tokio::test]
async fn each_is_answered_while_a_clusters_master_is_in_trouble() {
    for fault in [
        Fault::Killed,
        Fault::Paused,
        Fault::Full,
        Fault::Loading,
        Fault::Password,
    ] {
        each_is_answered_in(Topology::Cluster, fault).await;
    }
}
