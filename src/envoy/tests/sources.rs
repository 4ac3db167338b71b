//! The less simple sources: cookies, paths, Basic, certificates, and joined ones.

use envoy_types::pb::envoy::data::accesslog::v3::TlsProperties;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::CertificateProperties;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::SubjectAltName;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;

use super::fixtures::{Check, Entry};
use crate::envoy::wire::attributes::{CheckAttributes, EntryAttributes};
use crate::identity::Source;
use crate::identity::attributes::RequestAttributes;
use crate::identity::find::{Flaw, find};

/// The value of a source.
fn found(source: &str, evidence: &impl RequestAttributes) -> Result<Option<String>, Flaw> {
    let sources = [source.parse::<Source>().unwrap()];
    match find(&sources, evidence) {
        Ok(found) => Ok(found.map(|(_, text)| text.into_owned())),
        Err((_, flaw)) => Err(flaw),
    }
}

fn in_check(source: &str, check: &Check) -> Result<Option<String>, Flaw> {
    found(
        source,
        &CheckAttributes::of(&check.clone().request()).unwrap(),
    )
}

#[expect(clippy::unnecessary_wraps, reason = "findings are compared with it")]
fn text(text: &str) -> Result<Option<String>, Flaw> {
    Ok(Some(text.to_owned()))
}

#[test]
fn a_cookie_is_found_among_others_and_two_of_a_name_must_agree() {
    for (line, expected) in [
        ("sid=s1", text("s1")),
        ("a=1; sid=s1; b=2", text("s1")),
        ("a=1;sid=s1", text("s1")),
        ("sid=\"s 1\"", text("s 1")),
        ("sid=a=b", text("a=b")),
        ("sid=\"", text("\"")),
        ("xsid=s1; sidx=s2; SID=s3", Ok(None)),
        ("sid", Ok(None)),
        ("sid=; a=1", Ok(None)),
        ("", Ok(None)),
        ("sid=s1; sid=s1", text("s1")),
        ("sid=s1; sid=s2", Err(Flaw::Repeated)),
    ] {
        let check = Check::on("GET", "/").headers(&[("cookie", line)]);
        assert_eq!(in_check("cookie:sid", &check), expected, "{line}");
    }
    // HTTP/2 may send each on a line of its own.
    let lines: &[(&str, &[u8])] = &[("cookie", b"a=1"), ("cookie", b"sid=s1")];
    let check = Check::on("GET", "/").raw_headers(lines);
    assert_eq!(in_check("cookie:sid", &check), text("s1"));
    let raw = Check::on("GET", "/").raw_headers(&[("cookie", b"sid=\xff")]);
    assert_eq!(in_check("cookie:sid", &raw), Err(Flaw::NotText));
    // Other sites' cookies don't matter here.
    for lines in [
        &[("cookie", &b"a=caf\xe9; sid=s1; b=\xff"[..])][..],
        &[("cookie", b"a=\xff"), ("cookie", b"sid=s1")],
    ] {
        let check = Check::on("GET", "/").raw_headers(lines);
        assert_eq!(in_check("cookie:sid", &check), text("s1"));
    }
}

#[test]
fn a_pattern_is_looked_for_in_the_path_and_not_in_its_query() {
    for (path, expected) in [
        ("/vod/film/1.ts", text("film")),
        ("/vod/a%20b%2Fc/1.ts?x=/vod/no/", text("a b/c")),
        ("/vod//1.ts", Ok(None)),
        ("/live/film/1.ts", Ok(None)),
        ("/?p=/vod/film/", Ok(None)),
        ("/vod/%ff/1.ts", Err(Flaw::NotText)),
    ] {
        let check = Check::on("GET", path);
        assert_eq!(in_check("path:^/vod/([^/]+)/", &check), expected, "{path}");
        let entry = Entry::end("r1").path(path);
        let entry = entry.sent();
        let evidence = EntryAttributes::of(&entry);
        assert_eq!(found("path:^/vod/([^/]+)/", &evidence), expected, "{path}");
    }
}

#[test]
fn basic_authentication_names_the_user_in_its_header() {
    for (header, expected) in [
        ("Basic YW5uYTpwYXNz", text("anna")),
        ("basic  YW5uYTpwYXNz", text("anna")),
        ("Basic YW5uYTphOmI=", text("anna")),
        ("Basic w6k6eA==", text("é")),
        ("Basic OnBhc3M=", Ok(None)),
        ("Bearer YW5uYTpwYXNz", Ok(None)),
        ("Basic", Ok(None)),
        ("Basic YW5uYQ==", Err(Flaw::NotBasic)),
        ("Basic !", Err(Flaw::NotBasic)),
        ("Basic //86eA==", Err(Flaw::NotBasic)),
    ] {
        let check = Check::on("GET", "/").headers(&[("authorization", header)]);
        assert_eq!(in_check("basic", &check), expected, "{header}");
    }
    let two: &[(&str, &[u8])] = &[
        ("authorization", b"Basic YW5uYTp4"),
        ("authorization", b"Basic YmVuOng="),
    ];
    let check = Check::on("GET", "/").raw_headers(two);
    assert_eq!(in_check("basic", &check), Err(Flaw::Repeated));
    assert_eq!(in_check("basic", &Check::on("GET", "/")), Ok(None));
}

#[test]
fn a_principal_is_the_verified_name_in_checks_and_entries() {
    let check = Check::on("GET", "/").principal("spiffe://tv/box/42");
    assert_eq!(in_check("principal", &check), text("spiffe://tv/box/42"));
    assert_eq!(in_check("principal", &Check::on("GET", "/")), Ok(None));
    let entry = |names: Vec<San>, subject: &str| {
        let names = names
            .into_iter()
            .map(|san| SubjectAltName { san: Some(san) });
        let peer = CertificateProperties {
            subject_alt_name: names.collect(),
            subject: subject.to_owned(),
            ..CertificateProperties::default()
        };
        let mut entry = Entry::end("r1");
        entry.common().tls_properties = Some(TlsProperties {
            peer_certificate_properties: Some(peer),
            ..TlsProperties::default()
        });
        found("principal", &EntryAttributes::of(&entry.sent()))
    };
    let uri = || San::Uri("spiffe://tv/box/42".to_owned());
    let dns = || San::Dns("box.tv".to_owned());
    assert_eq!(
        entry(vec![dns(), uri()], "CN=box"),
        text("spiffe://tv/box/42")
    );
    assert_eq!(entry(vec![dns()], "CN=box"), text("box.tv"));
    assert_eq!(entry(vec![], "CN=box"), text("CN=box"));
    assert_eq!(entry(vec![], ""), Ok(None));
    let bare = Entry::end("r1");
    assert_eq!(
        found("principal", &EntryAttributes::of(&bare.sent())),
        Ok(None)
    );
}

#[test]
fn joined_values_are_complete_and_unambiguous() {
    let source = "header:x-device-id+path:^/vod/([^/]+)/";
    let joined = |device: &str, path: &str| {
        in_check(
            source,
            &Check::on("GET", path).headers(&[("x-device-id", device)]),
        )
    };
    assert_eq!(joined("tv", "/vod/film/1.ts"), text("tv+film"));
    assert_eq!(joined("t+v", "/vod/f%25ilm/1.ts"), text("t%2Bv+f%25ilm"));
    assert_ne!(joined("a+b", "/vod/c/"), joined("a", "/vod/b+c/"));
    assert_ne!(joined("a%2B", "/vod/c/"), joined("a+", "/vod/c/"));
    for (device, path) in [("", "/vod/film/1.ts"), ("tv", "/live/film/1.ts")] {
        assert_eq!(joined(device, path), Ok(None), "{device} {path}");
    }
    assert_eq!(joined("tv", "/vod/%ff/"), Err(Flaw::NotText));
}
