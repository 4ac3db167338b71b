//! Our cookie: who gets one, which playback it names, where it is sent, and which cookies are
//! invalid.

use super::fixtures::Check;
use crate::envoy::check::claim::decode;
use crate::envoy::check::starts_anew;
use crate::identity::claim::{CheckKind, ClaimError};
use crate::identity::cookie::{Cookie, CookieOrigin};
use crate::identity::{Claim, Identity, Kind, RouteLists, SessionKey, UserId};
use crate::session::EndCause;

/// Seven, in a cookie's format.
const SEVEN: &str = "00000000000000000000000000000007";

fn ask(check: Check) -> Result<CheckKind, ClaimError> {
    let (identity, routes) = (Identity::default(), RouteLists::default());
    decode(&check.request(), &identity, &routes, || 7, |_, _| {})
}

fn claim(check: Check) -> (Claim, Option<Cookie>) {
    match ask(check) {
        Ok(CheckKind::Stream(claim, cookie, _)) => (claim, cookie),
        other => panic!("{other:?}"),
    }
}

fn cookie(check: Check) -> Cookie {
    claim(check).1.unwrap()
}

/// A check of that user's on a route that issues a cookie.
fn on_route(user: &str, path: &str) -> Check {
    let headers = [("x-user-id", user), ("x-request-id", "r1")];
    let check = Check::on("GET", path).headers(&headers);
    check.context(&[("streamgate.issue", "cookie")])
}

fn anna(path: &str) -> Check {
    on_route("anna", path)
}

/// A new cookie's text, from its path on.
fn attributes(check: Check) -> String {
    let set = cookie(check).to_set().unwrap();
    let (_, attributes) = set.split_once("; ").unwrap();
    attributes.to_owned()
}

#[test]
fn a_player_without_an_id_is_one_playback_by_its_cookie() {
    let (first, new) = claim(anna("/vod/film/index.m3u8"));
    let new = new.unwrap();
    assert_eq!(new.origin, CookieOrigin::New);
    let set = new.to_set().unwrap();
    let expected = format!("streamgate={SEVEN}; Path=/vod; HttpOnly; SameSite=Lax");
    assert_eq!(set, expected);
    assert_eq!(first.key.kind, Kind::Playback);

    let (pair, _) = set.split_once(';').unwrap();
    let again = || anna("/vod/film/1.ts").headers(&[("cookie", &format!("a=1; {pair}; b=2"))]);
    let (second, brought) = claim(again());
    let brought = brought.unwrap();
    assert_eq!(
        (second.key, brought.origin, brought.to_set()),
        (first.key, CookieOrigin::Brought, None)
    );
}

#[test]
fn the_session_reveals_no_cookie_and_belongs_to_its_user() {
    let of = |user: &str, cookie: &str| -> SessionKey {
        let line = format!("streamgate={cookie}");
        claim(on_route(user, "/vod/1").headers(&[("cookie", &line)]))
            .0
            .key
    };
    let all = [
        of("anna", SEVEN),
        of("ben", SEVEN),
        of("anna", &SEVEN.replace('7', "8")),
    ];
    for (index, key) in all.iter().enumerate() {
        assert!(!all[..index].contains(key), "{all:?}");
        assert_eq!(key.id.as_str().len(), 32);
        assert_ne!(key.id.as_str(), SEVEN);
        // Knowing an id doesn't give you its cookie.
        assert!(!all.contains(&of("anna", key.id.as_str())));
    }
    // Every instance and every version must agree on this.
    let expected = "playback:410fdf56fe22f6db81b8624f4bd4aafd";
    assert_eq!(of("anna", SEVEN).to_string(), expected);
    let line = format!("streamgate={SEVEN}");
    let shown = format!("{:?}", cookie(anna("/").headers(&[("cookie", &line)])));
    assert!(
        !shown.contains(SEVEN) && shown.contains("Secret"),
        "{shown}"
    );
}

#[test]
fn a_player_s_id_beats_the_cookie_and_a_request_id_does_not() {
    let line = format!("streamgate={SEVEN}");
    let named = anna("/vod/1?session=p1").headers(&[("cookie", &line)]);
    let (named, none) = claim(named);
    assert_eq!(named.key.to_string(), "playback:p1");
    assert!(none.is_none(), "who says something gets no cookie");
    let listed = anna("/vod/1").context(&[("streamgate.session", "query:s")]);
    assert_eq!(cookie(listed).origin, CookieOrigin::New);
    // If the route doesn't ask for it, a cookie changes nothing.
    let plain = Check::on("GET", "/vod/1").headers(&[
        ("x-user-id", "anna"),
        ("x-request-id", "r1"),
        ("cookie", &line),
    ]);
    assert_eq!(claim(plain).0.key.to_string(), "request:r1");
    for method in ["HEAD", "OPTIONS"] {
        let mut check = anna("/vod/1");
        let http = check.0.request.as_mut().unwrap().http.as_mut().unwrap();
        method.clone_into(&mut http.method);
        assert!(matches!(
            ask(check),
            Ok(CheckKind::Head | CheckKind::Preflight)
        ));
    }
    let malformed = ask(anna("/vod/1?session=%ff"));
    assert!(matches!(malformed, Err(ClaimError::Malformed { .. })));
}

#[test]
fn an_invalid_cookie_counts_as_absent() {
    let long = SEVEN.replace('7', "77");
    let upper = SEVEN.replace('7', "A");
    for value in ["", "7", &long, &upper, "zz", "\"", &SEVEN.replace('7', "é")] {
        let line = format!("streamgate={value}");
        let check = anna("/vod/1").headers(&[("cookie", &line)]);
        assert_eq!(cookie(check).origin, CookieOrigin::New, "{value}");
    }
    for (line, origin) in [
        (format!("xstreamgate={SEVEN}"), CookieOrigin::New),
        (format!("streamgatex={SEVEN}"), CookieOrigin::New),
        (format!("Streamgate={SEVEN}"), CookieOrigin::New),
        ("streamgate".to_owned(), CookieOrigin::New),
        (
            format!("streamgate=bad; streamgate={SEVEN}"),
            CookieOrigin::Brought,
        ),
        (format!("a=1,streamgate={SEVEN}"), CookieOrigin::Brought),
        (format!("a=1;streamgate={SEVEN};b"), CookieOrigin::Brought),
    ] {
        let check = anna("/vod/1").headers(&[("cookie", &line)]);
        assert_eq!(cookie(check).origin, origin, "{line}");
    }
    // Of two valid ones the first counts: browsers send that for the longer path first.
    let two = format!("streamgate={SEVEN}; streamgate={}", SEVEN.replace('7', "8"));
    let (first, _) = claim(anna("/vod/1").headers(&[("cookie", &two)]));
    let line = format!("streamgate={SEVEN}");
    let (only, _) = claim(anna("/vod/1").headers(&[("cookie", &line)]));
    assert_eq!(first.key, only.key);
    // Other sites' cookies may not be text.
    let raw = [b"other=\xff; ", line.as_bytes()].concat();
    let lines: &[(&str, &[u8])] = &[("x-user-id", b"anna"), ("cookie", &raw)];
    let check = anna("/vod/1").raw_headers(lines);
    assert_eq!(cookie(check).origin, CookieOrigin::Brought);
}

#[test]
fn over_tls_the_cookie_is_secure_and_sent_from_other_sites() {
    let secure = "Path=/vod; HttpOnly; Secure; SameSite=None; Partitioned";
    let forwarded = |proto| anna("/vod/1").headers(&[("x-forwarded-proto", proto)]);
    assert_eq!(attributes(forwarded("https")), secure);
    assert_eq!(attributes(forwarded("HTTPS, http")), secure);
    assert!(attributes(forwarded("http")).ends_with("HttpOnly; SameSite=Lax"));
    let mut direct = anna("/vod/1");
    let http = direct.0.request.as_mut().unwrap().http.as_mut().unwrap();
    "https".clone_into(&mut http.scheme);
    assert_eq!(attributes(direct), secure);

    let set = cookie(forwarded("https")).to_set().unwrap();
    let (pair, _) = set.split_once(';').unwrap();
    assert_eq!(pair, format!("__Secure-streamgate={SEVEN}"));
    let again = forwarded("https").headers(&[("cookie", pair)]);
    assert_eq!(cookie(again).origin, CookieOrigin::Brought);
    // Anybody may have set one that was set without TLS.
    let plain = format!("streamgate={SEVEN}");
    let planted = forwarded("https").headers(&[("cookie", &plain)]);
    assert_eq!(cookie(planted).origin, CookieOrigin::New);
}

#[test]
fn a_cookie_is_for_the_route_s_path_or_the_first_folder() {
    let said = |path: &str, said: &str| anna(path).context(&[("streamgate.cookie_path", said)]);
    let film = "path:^/vod/[^/]+/";
    let long = format!("/vod/{}/1", "x".repeat(1200));
    for (check, expected) in [
        (anna("/vod/film/1.ts?a=/b/"), "/vod"),
        (anna("/vod"), "/"),
        (anna("/"), "/"),
        (anna("/index.m3u8?x=/a/b"), "/"),
        (anna("/vod;Domain=evil/1"), "/"),
        (anna("/é/1"), "/"),
        (said("/vod/film/1.ts", "/"), "/"),
        (said("/vod/film/1.ts", "/cdn/vod"), "/cdn/vod"),
        (said("/vod/film/1.ts", film), "/vod/film/"),
        (
            said("/vod/film/hd/1.ts", "path:^(/vod/[^/]+)/"),
            "/vod/film",
        ),
        (said("/vod/film;a=1/1.ts", film), "/vod/"),
        (said(&long, film), "/vod/"),
    ] {
        let attributes = attributes(check);
        let path = attributes.split("; ").next().unwrap();
        assert_eq!(path, format!("Path={expected}"));
    }
    assert_eq!(
        ask(said("/vod/1.ts", film)).unwrap_err(),
        ClaimError::NoSession,
        "the pattern says what can be a playback"
    );
    let named = said("/vod/1.ts?session=p1", film);
    assert_eq!(claim(named).0.key.to_string(), "playback:p1");
}

#[test]
fn a_route_s_mistake_is_reported_to_its_operator() {
    let on = |pairs: &[(&str, &str)]| ask(anna("/vod/film/1.ts").context(pairs)).unwrap_err();
    for (key, value, part) in [
        ("streamgate.issue", "", "got \"\"; allowed: cookie"),
        ("streamgate.issue", "Cookie", "allowed: cookie"),
        ("streamgate.cookie_path", "", "allowed:"),
        ("streamgate.cookie_path", "vod", "allowed:"),
        ("streamgate.cookie_path", "/vod; Domain=a", "allowed:"),
        (
            "streamgate.cookie_path",
            "query:a",
            "no semicolon, or path:REGEX",
        ),
        ("streamgate.cookie_path", "path:(", "unclosed group"),
        (
            "streamgate.cookie_path",
            "path:film/",
            "beginning of the path",
        ),
        (
            "streamgate.cookie_path",
            "path:/film/",
            "beginning of the path",
        ),
        (
            "streamgate.session",
            "cmcd:sid,request",
            "it can't contain request",
        ),
        ("streamgate.session", "sid", "allowed: header:NAME"),
    ] {
        let told = on(&[(key, value)]);
        assert!(matches!(told, ClaimError::Misconfigured(..)), "{told}");
        let text = told.to_string();
        let start = format!("this route's context extension {key} is wrong: ");
        assert!(text.starts_with(&start) && text.contains(part), "{text}");
    }
}

#[test]
fn a_cookie_has_one_successor_for_a_viewer_who_wants_to_watch() {
    let anna = UserId::parse("anna").unwrap();
    let by = SessionKey {
        kind: Kind::Playback,
        id: crate::identity::SessionId::parse("p2").unwrap(),
    };
    let displaced = EndCause::Displaced { by };
    let line = format!("streamgate={SEVEN}");
    let brought = || cookie(on_route("anna", "/vod/1").headers(&[("cookie", &line)]));
    let next = brought().after(true).unwrap();
    let (set, same) = (next.to_set().unwrap(), brought());
    let same = same.after(true).unwrap();
    assert_eq!(
        same.to_set(),
        Some(set.clone()),
        "every request has the same one"
    );
    assert_ne!(next.session(&anna), brought().session(&anna));
    assert!(
        set.ends_with("; Path=/vod; HttpOnly; SameSite=Lax"),
        "{set}"
    );
    for (ended, is_takeover, goes_on) in [
        (&EndCause::Released, true, true),
        (&displaced, false, false),
        (&displaced, true, true),
        (&EndCause::Operator, false, false),
        (&EndCause::Operator, true, true),
    ] {
        let after = brought().after(starts_anew(ended, is_takeover));
        assert_eq!(after.is_some(), goes_on, "{ended:?} {is_takeover}");
    }
    assert!(next.after(true).is_none(), "only one");
    let forget = format!("{line}; Path=/vod; HttpOnly; SameSite=Lax; Max-Age=5");
    assert_eq!(brought().to_forget(), forget);
}
