//! CMCD with its specifications' own examples, in both forms, up to the resulting claim.

use percent_encoding::percent_decode_str;

use super::fixtures::Check;
use crate::envoy::check::claim::decode;
use crate::identity::claim::CheckKind;
use crate::identity::cmcd;
use crate::identity::{Claim, Identity, RouteLists};
use crate::identity::{ContentId, Kind};

/// The examples.
const EXAMPLES: &str = include_str!("cmcd_examples.txt");

/// All keys of the specifications, and those of vendors in the examples.
const KEYS: &str = "bg bl br bs bsa bsd bsda cid cs d dfa dl ec lb ltc msd mtp nor nr nrr ot pb pr pt rtp sf sid sn st sta su tb tbl tpb v \
    com.example-myNumericKey com.example-myStringKey";

/// An example.
#[derive(Debug)]
struct Example {
    name: &'static str,
    query: &'static str,
    headers: Vec<(String, &'static str)>,
    sid: Option<&'static str>,
    cid: Option<&'static str>,
}

fn examples() -> Vec<Example> {
    let examples = EXAMPLES.split("\n# ").skip(1);
    examples.map(example).collect()
}

fn example(text: &'static str) -> Example {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let headers = text.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value));
    Example {
        name: text.lines().next().unwrap(),
        query: line("CMCD=").unwrap(),
        headers: headers
            .filter(|(name, _)| name.starts_with("cmcd-"))
            .collect(),
        sid: line("sid: "),
        cid: line("cid: "),
    }
}

/// The claim of a check if only CMCD names a session and a content.
fn claimed(check: Check) -> Option<Claim> {
    let identity = Identity::default();
    let check = check.headers(&[("x-user-id", "anna")]).request();
    match decode(&check, &identity, &RouteLists::default(), || 0, |_, _| {}).unwrap() {
        CheckKind::Stream(claim, None, _) if claim.key.kind == Kind::Playback => Some(claim),
        _ => None,
    }
}

/// The check of a request with the example in its query.
fn by_query(example: &Example) -> Check {
    Check::on("GET", &format!("/seg.m4v?a=b&CMCD={}&c=d", example.query))
}

/// The same with the example in its headers, also as `encode_raw_headers` sends them.
fn by_headers(example: &Example) -> [Check; 2] {
    let headers: Vec<_> = example
        .headers
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let mut raw: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    raw.extend([("x-user-id", &b"anna"[..]), ("x-request-id", b"r1")]);
    let check = || Check::on("GET", "/seg.m4v").headers(&[("x-request-id", "r1")]);
    [check().headers(&headers), check().raw_headers(&raw)]
}

#[test]
fn each_cmcd_example_names_session_and_content_in_both_forms() {
    for example in &examples() {
        let [plain, raw] = by_headers(example);
        for check in [
            by_query(example).headers(&[("x-request-id", "r1")]),
            plain,
            raw,
        ] {
            let claim = claimed(check);
            let session = claim.as_ref().map(|claim| claim.key.id.as_str());
            assert_eq!(session, example.sid, "{}", example.name);
            let content = claim
                .as_ref()
                .and_then(|claim| claim.facts.content.as_ref());
            let expected = example.sid.and(example.cid);
            assert_eq!(content.map(ContentId::as_str), expected, "{}", example.name);
        }
    }
}

#[test]
fn each_key_reads_the_same_from_the_query_and_every_header() {
    let mut found = Vec::new();
    for example in examples() {
        let payload = percent_decode_str(example.query).decode_utf8().unwrap();
        for key in KEYS.split(' ') {
            let in_query = cmcd::value(&payload, key);
            let headers = example
                .headers
                .iter()
                .map(|(_, header)| cmcd::value(header, key));
            let in_headers: Vec<_> = headers.filter(|value| *value != Ok(None)).collect();
            match &in_query {
                Ok(None) => assert_eq!(in_headers, [], "{key} of {}", example.name),
                said => {
                    assert_eq!(
                        in_headers,
                        std::slice::from_ref(said),
                        "{key} of {}",
                        example.name
                    );
                    found.push(key);
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found.len(),
        KEYS.split(' ').count(),
        "each is in an example"
    );
}

#[test]
fn the_order_of_keys_does_not_matter() {
    for example in examples() {
        let payload = percent_decode_str(example.query).decode_utf8().unwrap();
        let sid = example.sid.map(Into::into);
        // In the examples a comma only separates keys.
        let mut keys: Vec<_> = payload.split(',').collect();
        for _ in 0..keys.len() {
            keys.rotate_left(1);
            assert_eq!(cmcd::value(&keys.join(","), "sid"), Ok(sid.clone()));
        }
        keys.reverse();
        assert_eq!(cmcd::value(&keys.join(","), "sid"), Ok(sid));
    }
}

#[test]
fn structured_fields_session_values_decode_in_both_forms() {
    for (payload, sid) in [
        (r#"sid="a \"b\" \\c""#, r#"a "b" \c"#),
        (r#"sid="a,b=c;d(e)""#, "a,b=c;d(e)"),
        (r#"v=2,sid="x";com.example-p="1,2",nr"#, "x"),
        (r#"nor=("seg,1.m4s?sid=no" "b"),sid="x",v=2"#, "x"),
        (r#"bs=?0,su,sid="x""#, "x"),
        ("sid=token:with/slash,v=1", "token:with/slash"),
        ("sid=7", "7"),
    ] {
        let encode = |byte: u8| match byte {
            b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        let query: String = payload.bytes().map(encode).collect();
        // As in forms, which version 2 requires.
        let form = query.replace("%20", "+");
        for query in [query, form] {
            let claim = claimed(Check::on("GET", &format!("/?CMCD={query}"))).unwrap();
            assert_eq!(claim.key.id.as_str(), sid, "{payload}");
        }
        let header = Check::on("GET", "/").headers(&[("cmcd-session", payload)]);
        assert_eq!(claimed(header).unwrap().key.id.as_str(), sid, "{payload}");
    }
}
