//! What a check asks for: the user, the stream, or no stream at all.

use std::cell::RefCell;
use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Request;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::fixtures::{Check, sent};
use crate::config::Changeable;
use crate::envoy::check::claim::{CheckContext, decode};
use crate::envoy::wire::request::CheckRequest;
use crate::identity::claim::{CheckKind, ClaimError};
use crate::identity::{Claim, Door, Fact, FactLoss, Kind, RouteLists, Takeover};
use crate::identity::{Identity, Source};

fn ask(check: Check) -> Result<CheckKind, ClaimError> {
    decode(
        &check.request(),
        &Identity::default(),
        &RouteLists::default(),
        || 7,
        |_, _| {},
    )
}

fn claim(check: Check) -> Claim {
    match ask(check) {
        Ok(CheckKind::Stream(claim, None, _)) => claim,
        other => panic!("{other:?}"),
    }
}

/// The request's id, as the log shows it.
fn request_id(request: &CheckRequest<'_>) -> String {
    let context = CheckContext::of(request, None, Arc::<Changeable>::default(), None);
    context.request.request_id
}

/// A check of anna's, on request `r1`.
fn anna(method: &str, path: &str) -> Check {
    Check::on(method, path).headers(&[("x-user-id", "anna"), ("x-request-id", "r1")])
}

#[test]
fn a_claim_has_all_facts_from_the_sources() {
    let check = anna("GET", "/vod/1.m3u8?CMCD=cid%3D%22film%22")
        .headers(&[("x-device-id", "tv"), ("x-playback-session-id", "p1")])
        .jwt(&json!({"payload": {"plan": "gold"}}));
    let claim = claim(check);
    assert_eq!(claim.user.as_str(), "anna");
    assert_eq!(claim.plan.unwrap().as_str(), "gold");
    assert_eq!(
        (claim.key.kind, claim.key.id.as_str()),
        (Kind::Playback, "p1")
    );
    assert_eq!(claim.facts.device.unwrap().as_str(), "tv");
    assert_eq!(claim.facts.content.unwrap().as_str(), "film");
    assert_eq!(
        (claim.facts.door, claim.facts.position_seconds),
        (Some(Door::ExtAuthz), None)
    );
}

#[test]
fn the_source_of_the_session_decides_its_kind() {
    let header = |name, value| anna("GET", "/a").headers(&[(name, value)]);
    for (check, kind, id) in [
        (anna("GET", "/a"), Kind::Request, "r1"),
        (anna("POST", "/a"), Kind::Request, "r1"),
        (anna("", "/a"), Kind::Request, "r1"),
        (anna("get", "/a"), Kind::Request, "r1"),
        (header("x-playback-session-id", "p1"), Kind::Playback, "p1"),
        (header("cmcd-session", "sid=\"c1\""), Kind::Playback, "c1"),
        (anna("GET", "/a?session=q1"), Kind::Playback, "q1"),
        // A playback may have the same id as a request; its kind distinguishes them.
        (header("x-playback-session-id", "r1"), Kind::Playback, "r1"),
    ] {
        let key = claim(check).key;
        assert_eq!((key.kind, key.id.as_str()), (kind, id));
    }
}

#[test]
fn a_route_s_list_replaces_the_configured_sources() {
    let route = |list| anna("GET", "/a?session=q1&s=mine").context(&[("streamgate.session", list)]);
    for (list, expected) in [
        ("request", "request:r1"),
        ("query:s", "playback:mine"),
        ("header:x-none, query:s", "playback:mine"),
        ("header:x-none,request", "request:r1"),
    ] {
        assert_eq!(claim(route(list)).key.to_string(), expected, "{list}");
    }
    assert_eq!(
        ask(route("header:x-none")).unwrap_err(),
        ClaimError::NoSession
    );
    for list in ["", ",", "query", "basic:", "cmcd:s;request"] {
        let wrong = ask(route(list)).unwrap_err();
        assert!(
            matches!(wrong, ClaimError::Misconfigured(..)),
            "{list}: {wrong}"
        );
    }
}

#[test]
fn a_preflight_has_no_user_and_a_head_has_one_but_no_stream() {
    let nobody = |method| Check::on(method, "/a?session=%ff");
    assert!(matches!(ask(nobody("OPTIONS")), Ok(CheckKind::Preflight)));
    assert!(matches!(
        ask(anna("OPTIONS", "/a")),
        Ok(CheckKind::Preflight)
    ));
    assert_eq!(ask(nobody("HEAD")).unwrap_err(), ClaimError::NoUser);
    assert!(matches!(
        ask(anna("HEAD", "/a?session=%ff")),
        Ok(CheckKind::Head)
    ));
    assert_eq!(ask(nobody("GET")).unwrap_err(), ClaimError::NoUser);
}

#[test]
fn a_malformed_name_is_reported_with_its_source() {
    let long = "x".repeat(257);
    let header = |name, value: &str| anna("GET", "/a").headers(&[(name, value)]);
    for (check, expected) in [
        (
            header("x-user-id", "a\u{7f}"),
            "the user (header:x-user-id) has a control character at byte 1",
        ),
        (
            header("x-user-id", &long),
            "the user (header:x-user-id) has 257 bytes",
        ),
        (
            header("x-playback-session-id", &long),
            "the session id (header:x-playback-session-id) has 257 bytes",
        ),
        (
            anna("GET", "/a?session=%00"),
            "the session id (query:session) has a control character",
        ),
        (
            header("x-request-id", &long),
            "the session id (request) has 257 bytes",
        ),
        (
            header("cmcd-session", "sid=\"a"),
            "a string without a closing quote",
        ),
        (
            anna("GET", "/a?CMCD=sid%3D%22a%22&CMCD=sid%3D%22b%22"),
            "the session id (cmcd:sid) is given more than once, with different values",
        ),
        (
            anna("GET", "/a").jwt(&json!({"p": {"plan": ["a"]}})),
            "the plan (jwt:plan) is neither",
        ),
    ] {
        let told = ask(check).unwrap_err();
        assert!(matches!(told, ClaimError::Malformed { .. }), "{told}");
        assert!(told.to_string().contains(expected), "{told}");
    }
}

/// The facts about a session with those sources of device and content, and the losses.
fn facts_of(
    device: &str,
    content: &str,
    check: Check,
) -> (Option<String>, Option<String>, Vec<String>) {
    let identity = Identity {
        device: Source::parse_list(device).unwrap(),
        content: Source::parse_list(content).unwrap(),
        ..Identity::default()
    };
    let losses = RefCell::new(Vec::new());
    let lost = |fact: Fact, loss: FactLoss| {
        let told = format!("{} {}", fact.as_str(), loss.as_str());
        losses.borrow_mut().push(told);
    };
    let routes = RouteLists::default();
    let asked = decode(&check.request(), &identity, &routes, || 7, lost);
    let Ok(CheckKind::Stream(claim, None, _)) = asked else {
        panic!("{asked:?}");
    };
    let (device, content) = (claim.facts.device, claim.facts.content);
    (
        device.map(|device| device.to_string()),
        content.map(|content| content.to_string()),
        losses.into_inner(),
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, one line a case")]
fn a_fact_that_is_only_shown_never_stops_the_stream() {
    let agent = format!("Mozilla/5.0 {}", "x".repeat(298));
    let cut = format!("{}…", agent.get(..253).unwrap());
    let on = |path: &str| anna("GET", path);
    let agent_of = |value: &str| on("/a").headers(&[("user-agent", value)]);
    let raw = on("/a").raw_headers(&[
        ("x-user-id", b"anna"),
        ("x-request-id", b"r1"),
        ("user-agent", b"tv"),
        ("user-agent", b"phone"),
        ("cmcd-object", b"cid=\"caf\xe9\""),
    ]);
    let claims = |device| on("/a").jwt(&json!({"p": {"device": device}}));
    let (header, cmcd, path) = ("header:user-agent", "cmcd:cid", "path:^/vod/([^/]+)/");
    for (sources, check, device, content, losses) in [
        ([header, cmcd], agent_of("tv"), Some("tv"), None, &[][..]),
        (
            [header, cmcd],
            agent_of(&agent),
            Some(&*cut),
            None,
            &["device shortened"],
        ),
        (
            [header, cmcd],
            agent_of("a\tb"),
            None,
            None,
            &["device left_out"],
        ),
        ([header, cmcd], agent_of(""), None, None, &[]),
        (
            [header, cmcd],
            raw,
            None,
            None,
            &["device left_out", "content left_out"],
        ),
        // A malformed value counts as none: the client must not select its device by the next
        // source.
        (
            ["jwt:device,header:user-agent", cmcd],
            claims(json!(["tv"])).headers(&[("user-agent", "mine")]),
            None,
            None,
            &["device left_out"],
        ),
        (
            [header, path],
            on("/vod/caf%E9/1.ts"),
            None,
            None,
            &["content left_out"],
        ),
        (
            [header, path],
            on("/vod/caf%C3%A9/1.ts"),
            None,
            Some("café"),
            &[],
        ),
        (
            [header, cmcd],
            on("/a?CMCD=cid%3D%22a%22&CMCD=cid%3D%22b%22"),
            None,
            None,
            &["content left_out"],
        ),
        (
            [header, cmcd],
            on("/a?CMCD=bl%3D1%2Ccid%3D%22cut"),
            None,
            None,
            &["content left_out"],
        ),
    ] {
        let [of_device, of_content] = sources;
        let shown = format!("{sources:?} {check:?}");
        let expected = (
            device.map(str::to_owned),
            content.map(str::to_owned),
            losses.iter().map(ToString::to_string).collect(),
        );
        assert_eq!(facts_of(of_device, of_content, check), expected, "{shown}");
    }
}

#[test]
fn an_unreadable_content_does_not_affect_the_session() {
    for payload in [
        // cid=""-977"",sid="s1"
        "cid%3D%22%22-977%22%22%2Csid%3D%22s1%22",
        // cid="café",sid="s1" in Latin-1
        "cid%3D%22caf%E9%22%2Csid%3D%22s1%22",
        "cid%3D%22open%2Csid%3D%22s1%22",
    ] {
        let query = anna("GET", &format!("/a?CMCD={payload}"));
        let bytes: Vec<u8> = percent_decode_str(payload).collect();
        let header = anna("GET", "/a").raw_headers(&[
            ("x-user-id", b"anna"),
            ("x-request-id", b"r1"),
            ("cmcd-session", &bytes),
        ]);
        for check in [query, header] {
            let claim = claim(check);
            let found = (claim.key.kind, claim.key.id.as_str());
            assert_eq!(found, (Kind::Playback, "s1"), "{payload}");
            assert_eq!(claim.facts.content, None, "{payload}");
        }
    }
}

#[test]
fn a_check_without_an_http_request_is_an_error() {
    let no_http = AttributeContext {
        request: Some(Request::default()),
        ..AttributeContext::default()
    };
    for attributes in [None, Some(AttributeContext::default()), Some(no_http)] {
        let request = sent(attributes);
        let told = decode(
            &request,
            &Identity::default(),
            &RouteLists::default(),
            || 7,
            |_, _| {},
        )
        .unwrap_err();
        assert_eq!(told, ClaimError::NotHttp);
        assert_eq!(request_id(&request), "");
    }
}

#[test]
fn a_header_that_is_not_text_matters_only_if_it_is_asked_for() {
    let decoded = |user: &str, accept: &str| {
        let headers = [
            ("x-user-id", user),
            ("x-playback-session-id", "p1"),
            ("accept", accept),
        ];
        let mut message = Check::on("GET", "/").headers(&headers).message().to_vec();
        let at = message.windows(4).position(|part| part == b"ZZZZ").unwrap();
        message[at] = 0xff;
        let request = CheckRequest::read(&message).unwrap();
        let (identity, routes) = (Identity::default(), RouteLists::default());
        decode(&request, &identity, &routes, || 7, |_, _| {}).map(drop)
    };
    assert_eq!(decoded("anna", "ZZZZ"), Ok(()));
    let Err(ClaimError::Malformed { what, flaw, .. }) = decoded("ZZZZ", "*/*") else {
        panic!("it was taken");
    };
    assert_eq!((what, flaw.as_str()), ("user", "is not UTF-8"));
}

#[test]
fn the_request_id_is_logged_even_for_bad_requests() {
    assert_eq!(request_id(&anna("GET", "/a?session=%ff").request()), "r1");
    let raw = Check::on("GET", "/").raw_headers(&[("x-request-id", b"\xff")]);
    assert_eq!(request_id(&raw.request()), "");
}

#[test]
fn a_path_of_40_kb_is_searched_completely() {
    let path = format!(
        "/{}?{}session=p1",
        "a/".repeat(10_000),
        "x=%41&".repeat(3_500)
    );
    assert_eq!(claim(anna("GET", &path)).key.to_string(), "playback:p1");
    let endless = format!("/a?session={}", "x".repeat(40_000));
    assert!(matches!(
        ask(anna("GET", &endless)),
        Err(ClaimError::Malformed { .. })
    ));
}

#[test]
fn a_playback_may_ask_for_a_takeover_and_a_request_may_not() {
    let playback = |name: &str, text: &str| anna("GET", "/a?session=p1").headers(&[(name, text)]);
    let takeover = |check: Check| claim(check).takeover;
    let of = |id: &str| Takeover::parse(id).ok();
    assert_eq!(takeover(playback("x-streamgate-takeover", "p0")), of("p0"));
    assert_eq!(
        takeover(playback("x-streamgate-takeover", "oldest")),
        Some(Takeover::Oldest)
    );
    assert_eq!(takeover(playback("x-streamgate-takeover", "")), None);
    assert_eq!(takeover(anna("GET", "/a?session=p1")), None);
    let query = anna("GET", "/a?session=p1&x-streamgate-takeover=p0");
    assert_eq!(takeover(query), of("p0"));
    let request = anna("GET", "/a").headers(&[("x-streamgate-takeover", "oldest")]);
    assert_eq!(takeover(request), None);
    let long = "x".repeat(257);
    assert!(matches!(
        ask(playback("x-streamgate-takeover", &long)),
        Err(ClaimError::Malformed { .. })
    ));
}
