//! Choices and what they come to, and arguments that don't fit together.

use clap::Parser;

use super::shipped::{Arguments, parse};
use super::*;

/// The output for a command line, and the notes about it.
fn written(line: &str) -> (String, Vec<String>) {
    let args = parse(line);
    write(&args, "envoy-config").unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn no_slot_stays_empty_and_nothing_is_set_twice() {
    let variants = include_str!("../../../tests/fixtures/envoy-config-variants.txt");
    let lines = variants.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        for line in [line.to_owned(), format!("{line} --fragments")] {
            let (text, _) = written(&line);
            assert!(!text.contains("${"), "{line}: {text}");
            for document in text.split("\n---\n") {
                // A key that is there twice is an error of the reader.
                let read = serde_saphyr::from_str::<serde_json::Value>(document);
                read.unwrap_or_else(|error| panic!("{line}: {error}\n{document}"));
            }
        }
    }
}

#[test]
fn what_is_said_is_not_marked_and_what_is_not_is_named_by_its_line() {
    let (text, notes) = written("");
    let [note] = &notes[..] else {
        panic!("{notes:?}");
    };
    let lines = note
        .strip_prefix("CHANGE what is marked so, in lines ")
        .unwrap();
    let lines = lines.split(", ").map(|line| line.parse::<usize>().unwrap());
    for line in lines {
        let line = text.lines().nth(line - 1).unwrap();
        assert!(line.contains("CHANGE"), "{line}");
    }
    let said = "--user jwt:sub --issuer https://a.test --jwks http://a.test/keys --audience tv --live /live \
        --upstream a:1 --streamgate b:2 --api b:3 --cors-origin https://c.test --listen 0.0.0.0:4 --node d --trusted-hops 1";
    let (text, notes) = written(said);
    assert_eq!(notes, [""; 0]);
    assert_eq!(text.matches("CHANGE").count(), 1, "at the head");
}

#[test]
fn a_version_that_lacks_something_says_so_in_the_file_and_beside_it() {
    for (version, lacks) in [
        ("1.36", 2),
        ("1.37", 1),
        ("1.38", 1),
        ("1.39", 0),
        ("1.40", 0),
    ] {
        let (text, notes) = written(&format!("--envoy {version}"));
        let lines = text
            .lines()
            .filter(|line| line.starts_with("# Note: before Envoy"));
        let said = notes.iter().filter(|note| note.starts_with("before Envoy"));
        assert_eq!((lines.count(), said.count()), (lacks, lacks), "{version}");
    }
    assert!(Arguments::try_parse_from(["--envoy", "1.35"]).is_err());
}

/// Envoy takes the first rule that matches, so an open path must not hide one that needs a token.
#[test]
fn an_open_path_leaves_what_lies_below_it_verified() {
    let (text, _) = written("--open / --live /live");
    let (_, rules) = text.split_once("    rules:").unwrap();
    let (rules, _) = rules.split_once("# The mark").unwrap();
    let place = |what: &str| {
        rules
            .find(what)
            .unwrap_or_else(|| panic!("{what}: {rules}"))
    };
    let needs = "requires: {provider_name: login}";
    let live = place("- match: {path_separated_prefix: /live}");
    let open = place("- match: {prefix: /}");
    assert!(live < open, "{rules}");
    assert!(rules[live..open].contains(needs) && !rules[open..].contains(needs));
}

#[test]
fn a_path_below_another_comes_first() {
    let (text, _) = written("--live / --hls /vod/a --open /vod");
    // The filter for tokens, behind the routes, has matches of its own.
    let (routes, _) = text.split_once("http_filters:").unwrap();
    let places = [
        "- match: {path_separated_prefix: /v1/users}",
        "- match: {path_separated_prefix: /vod/a}",
        "- match: {path_separated_prefix: /vod}",
        "- match: {prefix: /}",
    ]
    .map(|what| routes.find(what).unwrap_or_else(|| panic!("{what}")));
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_user_header_of_a_proxy_is_trusted_and_kept_in_the_log() {
    let (text, notes) = written("--user header:X-Account --hls /hls");
    assert!(text.contains("&identity [x-account, x-playback-session-id]"));
    assert!(text.contains("%REQ(x-account)%") && text.contains("xff_num_trusted_hops: 1\n"));
    assert!(!text.contains("{remove: x-account}") && !text.contains("jwt_authn"));
    assert_eq!(
        notes[0],
        "set streamgate's identity.user to [header:x-account]"
    );
    let (text, _) = written("--user header:x-user-id --hls /hls");
    assert!(!text.contains("{remove: x-user-id}"));
}

#[test]
fn arguments_that_do_not_fit_together_say_what_to_do() {
    for (line, expected) in [
        (
            "--user query:name",
            "--user: got query:name; allowed: jwt:CLAIM",
        ),
        ("--user request", "--user: got request"),
        (
            "--user jwt:sub",
            "--user jwt:sub also needs --issuer and --jwks",
        ),
        (
            "--user basic --issuer a",
            "--issuer, --jwks and --audience are for --user jwt",
        ),
        (
            "--user jwt:a/b --issuer a --jwks http://a/b",
            "--user jwt:a/b: Envoy writes only",
        ),
        (
            "--user jwt:a --issuer a --jwks a",
            "--jwks: got \"a\"; allowed: http://HOST",
        ),
        (
            "--user jwt:a --issuer a --jwks ftp://a/b",
            "--jwks: got \"ftp://a/b\"",
        ),
        ("--live /a --hls /a/", "the path /a is given twice"),
        (
            "--live /v1/users",
            "the path /v1/users is taken by viewers' way to the API",
        ),
    ] {
        let told = Plan::of(&parse(line)).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{line}: {told}");
    }
    for words in [
        &["--live", "live"][..],
        &["--upstream", "a"],
        &["--health-interval", "0"],
        &["--tls-name", "a"],
        &["--tls-name", "a", "--tls-ca", "b", "--tls-cert", "c"],
        &["--issuer", "a"],
        &["--without", "video"],
    ] {
        assert!(Arguments::try_parse_from(words).is_err(), "{words:?}");
    }
    let newline = Arguments::try_parse_from(["--node", "a\nb"]).unwrap();
    let told = Plan::of(&newline.args).unwrap_err();
    assert_eq!(told, PlanError::NotText("--node"));
}
