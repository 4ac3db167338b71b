//! Invalid input from clients: each gets an answer or a counted rejection, and never a slot of
//! another user.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use testkit::gateway::session_from;
use testkit::stack::Stack;
use testkit::viewers::Viewers;

const PLAYBACK: &str = "/vod/demo/index.m3u8";

/// Sends a request made of bytes; returns the answer. `lines` are the headers, `target` follows
/// `GET`.
async fn send(viewers: &Viewers, target: &[u8], lines: &[&[u8]]) -> Option<u16> {
    let mut request = [b"GET ", target, b" HTTP/1.1\r\nhost: test\r\n"].concat();
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    viewers.raw(&request).await.status().await
}

const NOTHING: &[u8] = b"x-nothing: to say";
const ALICE: &[u8] = b"x-user-id: alice";

/// A request, and the status of its answer.
struct Case {
    what: &'static str,
    target: Vec<u8>,
    line: Vec<u8>,
    expected: u16,
}

/// Sends each; how many were not let in.
async fn send_all(viewers: &Viewers, cases: Vec<Case>) -> f64 {
    let mut rejected = 0.0;
    for Case {
        what,
        target,
        line,
        expected,
    } in cases
    {
        // A named user, unless the case is about one.
        let named = if line.starts_with(b"x-user-id") {
            NOTHING
        } else {
            ALICE
        };
        let status = send(viewers, &target, &[named, &line]).await;
        assert_eq!(status, Some(expected), "{what}");
        rejected += f64::from(u8::from(expected != 200));
    }
    rejected
}

#[tokio::test]
async fn a_user_that_is_missing_or_no_name_is_rejected_and_counted() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[]).await;
    let case = |what, user: &[u8], expected| Case {
        what,
        target: b"/live/1".to_vec(),
        line: [b"x-user-id: ", user].concat(),
        expected,
    };
    let none = viewers.refused(viewers.anonymous("/live/1")).await;
    assert_eq!((none.status.as_u16(), none.reason()), (401, "no_user"));
    let cases = vec![
        case("an empty user", b"", 401),
        case("a user of blanks", b"   ", 401),
        case("a user of 256 bytes", "u".repeat(256).as_bytes(), 200),
        case("a user of 257 bytes", "u".repeat(257).as_bytes(), 400),
        case("a user with a tab", b"al\tice", 400),
        case(
            "a user with a control character of Unicode",
            "al\u{85}ice".as_bytes(),
            400,
        ),
        case("a user in broken UTF-8", b"al\xff\xfeice", 400),
        case("a user cut off in a character", b"al\xc3", 400),
        case("a user in Latin-1", b"andr\xe9", 400),
        case("a user in any script", "ユーザー".as_bytes(), 200),
    ];
    let rejected = send_all(viewers, cases).await;
    let counted = streamgate.checks("no_user").await + streamgate.checks("malformed").await;
    assert_eq!(counted, rejected + 1.0);
    assert_eq!(streamgate.checks("started").await, 2.0);
}

/// A session in the query.
fn query(what: &'static str, text: &str, expected: u16) -> Case {
    Case {
        what,
        target: format!("{PLAYBACK}?session={text}").into_bytes(),
        line: NOTHING.to_vec(),
        expected,
    }
}

/// A CMCD payload in the query.
fn cmcd(what: &'static str, payload: &str, expected: u16) -> Case {
    let payload = utf8_percent_encode(payload, NON_ALPHANUMERIC);
    Case {
        what,
        target: format!("{PLAYBACK}?CMCD={payload}").into_bytes(),
        line: NOTHING.to_vec(),
        expected,
    }
}

/// A session in a header.
fn header(what: &'static str, line: &[u8], expected: u16) -> Case {
    Case {
        what,
        target: PLAYBACK.into(),
        line: line.to_vec(),
        expected,
    }
}

#[tokio::test]
async fn a_session_that_is_no_name_is_rejected_and_counted() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[]).await;
    let too_long = "s".repeat(257);
    let cases = vec![
        query("a session of 257 bytes", &too_long, 400),
        query("a session in broken UTF-8", "%ff%fe", 400),
        query("a session with NUL", "a%00b", 400),
        query(
            "a session with a line break",
            "a%0D%0Ax-user-id:%20bob",
            400,
        ),
        query("a session with DEL", "a%7F", 400),
        query("two sessions", "a&session=b", 400),
        query("half a percent sign", "a%4", 200),
        header(
            "a header in broken UTF-8",
            b"x-playback-session-id: \xf0\x28\x8c\x28",
            400,
        ),
        header(
            "a CMCD header in broken UTF-8",
            b"cmcd-session: sid=\"\xff\"",
            400,
        ),
        cmcd("an unclosed CMCD string", "sid=\"abc", 400),
        cmcd("a CMCD string of backslashes", "sid=\"\\\\\\\"", 400),
        cmcd("two CMCD sids", "sid=\"a\",sid=\"b\"", 400),
        cmcd("a CMCD sid of control characters", "sid=\"a\u{1}b\"", 400),
        cmcd(
            "a CMCD sid of 257 bytes",
            &format!("sid=\"{too_long}\""),
            400,
        ),
        cmcd("a CMCD payload of commas", &",".repeat(5000), 400),
    ];
    let rejected = send_all(viewers, cases).await;
    let counted = streamgate.checks("no_session").await + streamgate.checks("malformed").await;
    assert_eq!(counted, rejected);
    assert_eq!(streamgate.checks("started").await, 1.0);
}

#[tokio::test]
async fn a_fact_that_is_only_shown_is_cut_or_left_out_and_stops_nobody() {
    let settings = [
        ("identity.device", "header:user-agent"),
        ("identity.content", "cmcd:cid,path:^/vod/([^/]+)/"),
        ("limits.default", "100"),
    ];
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&settings).await;
    let agent = format!("user-agent: {}", "x".repeat(310));
    let by = |what, agent: &[u8]| Case {
        line: agent.to_vec(),
        ..query(what, "by-agent", 200)
    };
    let cases = vec![
        by("a user agent of 310 bytes", agent.as_bytes()),
        by("a user agent in Latin-1", b"user-agent: caf\xe9"),
        cmcd(
            "a cid that is quoted twice",
            "cid=\"\"-977\"\",sid=\"s1\"",
            200,
        ),
        cmcd("a cid that is cut off", "sid=\"s2\",cid=\"fil", 200),
        query(
            "a manifest's CMCD and a player's",
            "s3&CMCD=bl%3D1&CMCD=bl%3D2%2Cbs",
            200,
        ),
        // It is let in, and the origin has no such title.
        Case {
            what: "a title in Latin-1",
            target: b"/vod/caf%E9/index.m3u8?session=s4".to_vec(),
            line: NOTHING.to_vec(),
            expected: 404,
        },
    ];
    assert_eq!(send_all(viewers, cases).await, 1.0);
    assert_eq!(streamgate.checks("malformed").await, 0.0);
    for (fact, loss, times) in [
        ("device", "shortened", 1.0),
        ("device", "left_out", 1.0),
        ("content", "left_out", 3.0),
    ] {
        let labels = [("fact", fact), ("loss", loss)];
        let counted = streamgate.metric("streamgate_facts_lost_total", &labels);
        assert_eq!(counted.await, times, "{fact} {loss}");
    }
}

/// A request (a target and header lines) that Envoy itself may refuse.
type Rubbish = (&'static str, &'static [u8], &'static [&'static [u8]]);
const RUBBISH: [Rubbish; 8] = [
    ("raw bytes in a path", b"/live/\xff\xfe", &[ALICE]),
    (
        "raw bytes in a query",
        b"/vod/demo/index.m3u8?session=\xff",
        &[ALICE],
    ),
    ("a NUL in a header", b"/live/1", &[b"x-user-id: al\0ice"]),
    (
        "a control character in a header",
        b"/live/1",
        &[b"x-user-id: al\x01ice"],
    ),
    ("an escaped slash", b"/vod%2f..%2flive/1", &[ALICE]),
    (
        "a path that climbs",
        b"/healthz/../live/1",
        &[b"x-user-id:"],
    ),
    ("two users", b"/live/1", &[ALICE, b"x-user-id: bob"]),
    ("a folded header", b"/live/1", &[ALICE, b" bob"]),
];

#[tokio::test]
async fn nonsense_is_answered_by_envoy_or_streamgate_and_takes_nobodys_slot() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[]).await;
    let long_path = [b"/live/".to_vec(), b"x".repeat(40_000)].concat();
    let long_query = [
        b"/vod/demo/index.m3u8?session=a&x=".to_vec(),
        b"%ff".repeat(13_000),
    ]
    .concat();
    let many: Vec<u8> = (0..2000)
        .flat_map(|n| format!("&session{n}=a").into_bytes())
        .collect();
    let many = [b"/vod/demo/index.m3u8?session=b".to_vec(), many].concat();
    let nobody: &[u8] = b"x-user-id: mallory";
    for (what, target, expected) in [
        ("a path of 40 KB", long_path, 200),
        ("a query of 40 KB", long_query, 200),
        ("two thousand parameters", many, 200),
    ] {
        assert_eq!(
            send(viewers, &target, &[nobody]).await,
            Some(expected),
            "{what}"
        );
    }
    for (what, target, lines) in RUBBISH {
        let status = send(viewers, target, lines).await;
        assert!(status.is_some(), "{what} was not answered");
    }
    // Each user named in it still has all slots.
    for user in ["alice", "bob"] {
        let first = viewers.watch(viewers.http1(user, "/live/1")).await;
        let second = viewers.watch(viewers.http1(user, "/live/2")).await;
        let third = viewers.watch(viewers.http1(user, "/live/3")).await;
        viewers.assert_full(user, &[&first, &second, &third]).await;
    }
    assert!(!streamgate.log().contains("panicked"));
}

#[tokio::test]
async fn nobody_takes_or_frees_another_users_slot_by_naming_its_session() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&[("limits.default", "1")]).await;
    let playback = |user: &str, id: &str| {
        viewers
            .http1(user, PLAYBACK)
            .header("x-playback-session-id", id)
    };
    let alices = viewers.let_in(playback("alice", "tv-1")).await;
    let bobs = viewers.let_in(playback("bob", "tv-1")).await;
    streamgate.release("bob", "tv-1").await;
    viewers
        .refused(playback("alice", "tv-2"))
        .await
        .assert_full(&[&alices]);
    assert_eq!(bobs.session, alices.session);

    let live = viewers.watch(viewers.http1("carol", "/live/1")).await;
    let spoofed = viewers
        .http1("dave", "/live/1")
        .header("x-request-id", &live.session)
        .header("x-streamgate-session", &live.session);
    let spoofed = viewers.watch(spoofed).await;
    assert_ne!(spoofed.session, live.session);
    drop(spoofed);
    let next = || viewers.http1("dave", "/live/2");
    viewers
        .let_in_within(std::time::Duration::from_secs(1), next)
        .await;
    viewers.assert_full("carol", &[&live]).await;
    // A session of one kind is none of another.
    let same_name = viewers.refused(playback("carol", &live.session)).await;
    same_name.assert_full(&[&live]);
}

#[tokio::test]
async fn session_ids_with_blanks_and_any_script_work_and_come_back_as_they_were() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&[("limits.default", "20")], |setup| {
        setup.route(json!({
            "match": {"path_separated_prefix": "/live"},
            "route": {"cluster": "backend", "timeout": "0s"},
            "typed_per_filter_config": session_from("query:session"),
        }))
    })
    .await;
    let ids = [
        "TV im Wohnzimmer",
        "télé-1",
        "テレビ",
        "📺",
        "a\"b\\c",
        "{a}%2F:b;c",
        " a ",
        "a  b",
        "\u{a0}x",
    ];
    for id in ids {
        let encoded = utf8_percent_encode(id, NON_ALPHANUMERIC);
        for target in [
            format!("{PLAYBACK}?session={encoded}"),
            format!("/live/1?session={encoded}"),
        ] {
            let mut answer = viewers.raw_get("alice", &target, &[]).await;
            assert_eq!(answer.status().await, Some(200), "{id:?}");
            let named = answer.header("x-streamgate-session").unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&named).trim(), id.trim());
        }
    }
    assert_eq!(
        streamgate.checks("started").await,
        f64::from(u32::try_from(ids.len()).unwrap())
    );
    let header = "x-playback-session-id: télé-1";
    let mut answer = viewers.raw_get("alice", PLAYBACK, &[header]).await;
    assert_eq!(answer.status().await, Some(200));
    assert_eq!(
        streamgate.checks("started").await,
        f64::from(u32::try_from(ids.len()).unwrap())
    );
}
