//! Every source, in a check and in an access log entry.

use serde_json::json;

use super::attributes::{CheckAttributes, EntryAttributes};
use super::entry::LogEntry;
use crate::envoy::tests::fixtures::{Check, Entry};
use crate::identity::Source;
use crate::identity::attributes::RequestAttributes;
use crate::identity::cmcd::CmcdError;
use crate::identity::find::{Flaw, find};

/// The result of a list of sources: the matching source and its text, or its flaw.
fn found(
    sources: &str,
    evidence: &impl RequestAttributes,
) -> Result<Option<(String, String)>, Flaw> {
    let sources = Source::parse_list(sources).unwrap();
    match find(&sources, evidence) {
        Ok(None) => Ok(None),
        Ok(Some((source, text))) => Ok(Some((source.to_string(), text.into_owned()))),
        Err((_, flaw)) => Err(flaw),
    }
}

fn in_check(sources: &str, check: &Check) -> Result<Option<(String, String)>, Flaw> {
    found(
        sources,
        &CheckAttributes::of(&check.clone().request()).unwrap(),
    )
}

/// Only the text.
fn text(sources: &str, check: &Check) -> Result<Option<String>, Flaw> {
    in_check(sources, check).map(|found| found.map(|(_, text)| text))
}

/// The same source and text.
fn has(source: &str, text: &str) -> (String, String) {
    (source.to_owned(), text.to_owned())
}

const CMCD: &str = r#"bl=1,sid="c1",cid="film""#;
const QUERY: &str = "/a?x=1&session=q1&CMCD=sid%3D%22c2%22";

#[test]
fn every_source_works_in_a_check() {
    let headers = [
        ("x-user-id", "anna"),
        ("cmcd-session", CMCD),
        ("x-request-id", "r1"),
    ];
    let check = Check::on("GET", "/a?x=1&session=q1")
        .headers(&headers)
        .context(&[("tenant", "acme")])
        .jwt(&json!({"payload": {"sub": "j1"}}));
    for (source, expected) in [
        ("header:x-user-id", "anna"),
        ("header:X-User-ID", "anna"),
        ("query:session", "q1"),
        ("cmcd:sid", "c1"),
        ("cmcd:cid", "film"),
        ("cmcd:bl", "1"),
        ("jwt:sub", "j1"),
        ("context:tenant", "acme"),
        ("request", "r1"),
    ] {
        assert_eq!(
            text(source, &check),
            Ok(Some(expected.to_owned())),
            "{source}"
        );
    }
    for absent in [
        "header:x-user",
        "query:Session",
        "query:a",
        "cmcd:st",
        "jwt:name",
        "context:user",
    ] {
        assert_eq!(text(absent, &check), Ok(None), "{absent}");
    }
    let nothing = Check::on("GET", "/a");
    for source in [
        "header:a",
        "query:a",
        "cmcd:sid",
        "jwt:sub",
        "context:a",
        "request",
    ] {
        assert_eq!(text(source, &nothing), Ok(None), "{source}");
    }
}

#[test]
fn every_source_but_context_works_in_an_entry() {
    let entry = Entry::end("r1")
        .path(QUERY)
        .headers(&[("x-user-id", "anna"), ("cmcd-object", r#"cid="film""#)])
        .metadata(&json!({"envoy.filters.http.jwt_authn": {"p": {"sub": "j1"}}}));
    let entry = entry.sent();
    let evidence = EntryAttributes::of(&entry);
    for (source, expected) in [
        ("header:x-user-id", "anna"),
        ("query:session", "q1"),
        ("cmcd:sid", "c2"),
        ("cmcd:cid", "film"),
        ("jwt:sub", "j1"),
        ("request", "r1"),
    ] {
        assert_eq!(found(source, &evidence), Ok(Some(has(source, expected))));
    }
    assert_eq!(found("context:tenant", &evidence), Ok(None));
    let bare = LogEntry::default();
    for source in [
        "header:a",
        "query:a",
        "cmcd:sid",
        "jwt:sub",
        "context:a",
        "request",
    ] {
        assert_eq!(
            found(source, &EntryAttributes::of(&bare)),
            Ok(None),
            "{source}"
        );
    }
}

#[test]
fn the_first_source_with_a_nonempty_value_wins() {
    let sources = "header:a,query:b,cmcd:sid,request";
    for (header, path, id, expected) in [
        ("h", "/?b=q", "r", Some(has("header:a", "h"))),
        ("", "/?b=q", "r", Some(has("query:b", "q"))),
        ("", "/?b=", "r", Some(has("request", "r"))),
        ("", "/?b", "r", Some(has("request", "r"))),
        ("", "/", "", None),
        ("", "/?b=&b=q", "r", Some(has("query:b", "q"))),
        ("", "/?CMCD=sid%3D%22%22", "r", Some(has("request", "r"))),
        (" ", "/", "r", Some(has("header:a", " "))),
    ] {
        let check = Check::on("GET", path).headers(&[("a", header), ("x-request-id", id)]);
        assert_eq!(
            in_check(sources, &check),
            Ok(expected),
            "{header:?} {path} {id:?}"
        );
    }
}

#[test]
fn a_malformed_value_is_never_skipped() {
    let on = |path| Check::on("GET", path).headers(&[("x-request-id", "r1")]);
    let raw = on("/").raw_headers(&[("a", b"\xff"), ("x-request-id", b"r1")]);
    let cmcd = on("/").headers(&[("cmcd-request", "sid=\"open")]);
    let claim = |claim| on("/").jwt(&json!({"p": {"id": claim}}));
    for (sources, check, flaw) in [
        ("header:a,request", raw, "is not UTF-8"),
        ("query:b,request", on("/?b=%ff"), "is not UTF-8"),
        ("query:b,request", on("/?b=1&b=2"), "more than once"),
        ("cmcd:sid,request", cmcd, "without a closing quote"),
        (
            "cmcd:sid,request",
            on("/?CMCD=sid%3D%22a%22x"),
            "between a closing quote",
        ),
        ("cmcd:sid,request", on("/?CMCD=bs%2Csid"), "without a value"),
        (
            "cmcd:sid,request",
            on("/?CMCD=sid%3D%22%ff%22"),
            "is not UTF-8",
        ),
        (
            "jwt:id,request",
            claim(json!(1.5)),
            "neither a text nor a whole number",
        ),
        (
            "jwt:id,request",
            claim(json!(["a"])),
            "neither a text nor a whole number",
        ),
        (
            "jwt:id,request",
            claim(json!({"a": "b"})),
            "neither a text nor a whole number",
        ),
        (
            "jwt:id,request",
            claim(json!(true)),
            "neither a text nor a whole number",
        ),
        (
            "jwt:id,request",
            claim(json!(9_007_199_254_740_992_u64)),
            "neither a text",
        ),
    ] {
        let told = in_check(sources, &check).unwrap_err().to_string();
        assert!(told.contains(flaw), "{sources} of {check:?}: {told}");
    }
}

#[test]
fn a_query_is_decoded_like_a_form() {
    for (path, expected) in [
        ("/v?s=a%20b+c", Some("a b c")),
        ("/v?s=%2B%26%3D", Some("+&=")),
        ("/v?%73=a", Some("a")),
        ("/v?s=a&s=a", Some("a")),
        ("/v?s=a=b", Some("a=b")),
        ("/v?s=a?s=b", Some("a?s=b")),
        ("/v?s=%zz%", Some("%zz%")),
        ("/v?%ff=x&s=a", Some("a")),
        ("/v?&&s=a&&", Some("a")),
        ("/v?s=%C3%A9", Some("é")),
        ("/v?S=a", None),
        ("/v;s=a", None),
        ("?s=a", Some("a")),
        ("", None),
    ] {
        let check = Check::on("GET", path);
        assert_eq!(
            text("query:s", &check),
            Ok(expected.map(str::to_owned)),
            "{path}"
        );
    }
}

#[test]
fn cmcd_in_headers_and_query_must_agree() {
    let sid = |header: &str, query: &str| {
        let check = Check::on("GET", query).headers(&[(header, r#"sid="a""#)]);
        text("cmcd:sid", &check)
    };
    for header in ["cmcd-session", "cmcd-object", "cmcd-request", "cmcd-status"] {
        assert_eq!(sid(header, "/"), Ok(Some("a".to_owned())), "{header}");
        assert_eq!(
            sid(header, "/?CMCD=sid%3D%22a%22"),
            Ok(Some("a".to_owned()))
        );
        assert_eq!(sid(header, "/?CMCD=sid%3D%22b%22"), Err(Flaw::Repeated));
    }
    assert_eq!(sid("cmcd", "/?cmcd=sid%3D%22b%22"), Ok(None));
}

#[test]
fn all_cmcd_payloads_must_agree_only_on_the_requested_key() {
    let in_query = |path| text("cmcd:sid", &Check::on("GET", path));
    let a = || Ok(Some("a".to_owned()));
    for (path, expected) in [
        ("/?CMCD=sid%3D%22a%22&x=1&CMCD=bl%3D1%2Csid%3D%22a%22", a()),
        ("/?CMCD=sid%3D%22a%22&CMCD=bl%3D1", a()),
        ("/?CMCD=bl%3D1&CMCD=sid%3D%22a%22", a()),
        ("/?CMCD=&CMCD=sid%3D%22a%22", a()),
        ("/?CMCD=sid%3D%22%22&CMCD=sid%3D%22a%22", a()),
        (
            "/?CMCD=cid%3D%22x%22%2Csid%3Da&CMCD=cid%3D%22y%22%2Csid%3Da",
            a(),
        ),
        ("/?CMCD=cid%3D%22x&CMCD=sid%3D%22a%22", a()),
        ("/?CMCD=%ff&CMCD=sid%3D%22a%22", a()),
        ("/?CMCD=bl%3D1&CMCD=bl%3D2", Ok(None)),
        (
            "/?CMCD=sid%3D%22a%22&CMCD=sid%3D%22b%22",
            Err(Flaw::Repeated),
        ),
        // An unreadable value agrees with nothing.
        (
            "/?CMCD=sid%3D%22a%22&CMCD=sid%3D%22a",
            Err(Flaw::Cmcd(CmcdError::Unterminated)),
        ),
        ("/?CMCD=sid%3D%22a%22&CMCD=sid%3D%ff", Err(Flaw::NotText)),
    ] {
        assert_eq!(in_query(path), expected, "{path}");
    }
    let in_lines =
        |lines: &[(&str, &[u8])]| text("cmcd:sid", &Check::on("GET", "/").raw_headers(lines));
    let name = "cmcd-session";
    for (other, expected) in [
        (&b"sid=\"a\""[..], a()),
        (b"bl=1,sid=\"a\"", a()),
        (b"cid=\"open", a()),
        (b"cid=\"\xe9\"", a()),
        (b"sid=\"b\"", Err(Flaw::Repeated)),
    ] {
        let first = (name, &b"sid=\"a\""[..]);
        assert_eq!(in_lines(&[first, (name, other)]), expected);
        assert_eq!(in_lines(&[(name, other), first]), expected);
        assert_eq!(in_lines(&[first, ("CMCD-Object", other)]), expected);
    }
}

#[test]
fn raw_headers_ignore_case_and_must_agree() {
    let check = Check::on("GET", "/").raw_headers(&[
        ("X-User-Id", "anné".as_bytes()),
        ("a", b"1"),
        ("b", b"x"),
        ("A", b"2"),
    ]);
    let mut with_value = check.clone();
    let http = with_value
        .0
        .request
        .as_mut()
        .unwrap()
        .http
        .as_mut()
        .unwrap();
    for header in &mut http.header_map.as_mut().unwrap().headers {
        header.value = String::from_utf8(std::mem::take(&mut header.raw_value)).unwrap();
    }
    for check in [check, with_value] {
        assert_eq!(
            text("header:x-user-id", &check),
            Ok(Some("anné".to_owned()))
        );
        assert_eq!(text("header:a", &check), Err(Flaw::Repeated));
        assert_eq!(text("header:c", &check), Ok(None));
    }
    // Bytes that are not text do no harm unless requested.
    let check = Check::on("GET", "/").raw_headers(&[("bad", b"\xff"), ("a", b"1")]);
    assert_eq!(text("header:a", &check), Ok(Some("1".to_owned())));
    assert_eq!(text("header:bad", &check), Err(Flaw::NotText));
}

#[test]
fn a_claim_is_found_by_the_longest_names_that_lead_to_it() {
    let payload = json!({
        "sub": "anna",
        "number": 42,
        "negative": -7,
        "none": null,
        "empty": "",
        "realm": {"tier": "gold", "a.b": "inner"},
        "realm.tier": "whole",
        "https://x.y/plan": "dotted",
        "deep": {"er": {"est": "found"}},
        "https://hasura.io/jwt/claims": {"x-hasura-user-id": "h1", "roles": {"a.b": {"c": "h2"}}},
        "two.ways": {"only": {"here": "longer"}},
        "two": {"ways": {"only": {"here": "shorter", "there": "shorter"}}, "ways.only": {"here": "middle"}},
    });
    for (claim, expected) in [
        ("jwt:sub", Some("anna")),
        ("jwt:number", Some("42")),
        ("jwt:negative", Some("-7")),
        ("jwt:none", None),
        ("jwt:empty", None),
        ("jwt:realm.tier", Some("whole")),
        ("jwt:https://x.y/plan", Some("dotted")),
        ("jwt:deep.er.est", Some("found")),
        ("jwt:deep.er.none", None),
        ("jwt:sub.name", None),
        ("jwt:realm.a.b", Some("inner")),
        (
            "jwt:https://hasura.io/jwt/claims.x-hasura-user-id",
            Some("h1"),
        ),
        ("jwt:https://hasura.io/jwt/claims.roles.a.b.c", Some("h2")),
        ("jwt:https://hasura.io/jwt/claims.roles.a.b.d", None),
        ("jwt:https://hasura.io/jwt.claims", None),
        ("jwt:two.ways.only.here", Some("longer")),
        ("jwt:two.ways.only.there", Some("shorter")),
        ("jwt:two.ways.none", None),
    ] {
        let check = Check::on("GET", "/").jwt(&json!({"payload": payload}));
        assert_eq!(
            text(claim, &check),
            Ok(expected.map(str::to_owned)),
            "{claim}"
        );
    }
}

#[test]
fn tokens_of_several_providers_must_agree() {
    let sub = |one, other| {
        let check =
            Check::on("GET", "/").jwt(&json!({"one": {"sub": one}, "other": {"sub": other}}));
        text("jwt:sub", &check)
    };
    assert_eq!(
        sub(json!("anna"), json!("anna")),
        Ok(Some("anna".to_owned()))
    );
    assert_eq!(sub(json!("anna"), json!(null)), Ok(Some("anna".to_owned())));
    assert_eq!(sub(json!(""), json!("anna")), Ok(Some("anna".to_owned())));
    assert_eq!(sub(json!("anna"), json!("ben")), Err(Flaw::Repeated));
}
