//! Mutants of our own file, each of which must be found, and files without a flaw.

use super::*;

/// Our own file.
fn ours() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/envoy.yaml");
    std::fs::read_to_string(path).unwrap()
}

/// The findings about a text.
fn found_in(text: &str, user: Option<&str>) -> Vec<EnvoyFinding> {
    let user = user.map(|user| user.parse().unwrap());
    let tree = read::parse(Path::new("envoy.yaml"), text).unwrap();
    check(&tree, user.as_ref()).findings
}

/// Our own file with each of the first replaced by the second, once.
fn mutant(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(ours(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// The text without the block that begins with that line: all lines below it that are indented
/// more, and the items of its list.
fn without(text: &str, first: &str) -> String {
    let mut kept = String::new();
    let mut depth = None;
    let mut is_found = false;
    for line in text.lines() {
        let indentation = line.len() - line.trim_start().len();
        if let Some(of) = depth {
            if indentation > of || line.trim().is_empty() {
                continue;
            }
            depth = None;
        }
        if !is_found && line.trim_start().starts_with(first) {
            depth = Some(indentation);
            is_found = true;
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    assert!(is_found, "{first}");
    kept
}

#[test]
fn nothing_is_found_in_our_own_files() {
    for (file, user) in [
        ("envoy/envoy.yaml", None),
        ("deploy/compose/envoy.yaml", None),
        ("deploy/demo/envoy.yaml.in", Some("header:x-user-id")),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("${", "").replace("_PORT}", "");
        assert_eq!(found_in(&text, user), [], "{file}");
    }
}

#[test]
fn nothing_is_found_in_what_envoy_config_writes() {
    let variants = include_str!("../../../tests/fixtures/envoy-config-variants.txt");
    for line in variants.lines().filter(|line| !line.starts_with('#')) {
        let text = envoy_config::whole(line);
        let mut words = line.split(' ').skip_while(|word| *word != "--user").skip(1);
        assert_eq!(found_in(&text, words.next()), [], "{line}");
    }
}

/// Each mutant is our own file with one piece missing or wrong: the replacements, and the check
/// that finds them.
const MUTANTS: [(&[(&str, &str)], &str); 34] = [
    (
        &[("normalize_path: true", "normalize_path: false")],
        "normalize_path",
    ),
    (&[("merge_slashes: true", "")], "merge_slashes"),
    (
        &[("path_with_escaped_slashes_action: REJECT_REQUEST", "")],
        "path_with_escaped_slashes_action",
    ),
    (&[("use_remote_address: true", "")], "use_remote_address"),
    (
        &[("pack_trace_reason: false", "pack_trace_reason: true")],
        "request_id_extension",
    ),
    (&[("{remove: x-user-id}, ", "")], "client_header"),
    (&[("{remove: x-request-id}, ", "")], "client_header"),
    (&[(", {remove: x-streamgate-user}", "")], "client_header"),
    (
        &[("codec_type: AUTO", "preserve_external_request_id: true")],
        "client_header",
    ),
    (
        &[("stream_idle_timeout: 60s", "stream_idle_timeout: 0s")],
        "stream_idle_timeout",
    ),
    (
        &[(
            "http2_protocol_options: {connection_keepalive: {interval: 10s, timeout: 5s}}",
            "",
        )],
        "http2_keepalive",
    ),
    (
        &[("access_log_options: {access_log_flush_interval: 5s}", "")],
        "periodic",
    ),
    (
        &[(
            "access_log_flush_interval: 5s",
            "access_log_flush_interval: 10s",
        )],
        "periodic",
    ),
    (
        &[(
            "types: [DownstreamPeriodic, DownstreamEnd]",
            "types: [DownstreamEnd]",
        )],
        "periodic",
    ),
    (
        &[
            ("buffer_size_bytes: 1\n", "buffer_size_bytes: 16384\n"),
            ("buffer_flush_interval: 0.25s", ""),
        ],
        "fast",
    ),
    (&[("buffer_size_bytes: 3145728", "")], "durable"),
    (
        &[("buffer_size_bytes: 3145728", "buffer_size_bytes: 33554432")],
        "buffer",
    ),
    (
        &[(
            "match_if_key_not_found: true",
            "match_if_key_not_found: false",
        )],
        "log_filter",
    ),
    (
        &[(
            "[x-user-id, x-playback-session-id]",
            "[x-playback-session-id]",
        )],
        "log_headers",
    ),
    (
        &[(
            "[x-user-id, x-playback-session-id]",
            "[x-user-id, authorization]",
        )],
        "secret",
    ),
    (
        &[(
            "metadata_namespace: streamgate.check",
            "metadata_namespace: other",
        )],
        "mark",
    ),
    (
        &[(
            "{cluster_name: streamgate, authority: streamgate}",
            "{cluster_name: streamgate}",
        )],
        "authority",
    ),
    (
        &[(
            "grpc_health_check: {authority: streamgate}",
            "grpc_health_check: {}",
        )],
        "authority",
    ),
    (
        &[(
            "{cluster_name: streamgate_access_log, authority: streamgate}",
            "{cluster_name: streamgate_access_log}",
        )],
        "authority",
    ),
    (
        &[("  - name: streamgate\n", "  - name: streamgat\n")],
        "cluster",
    ),
    (
        &[(
            "cluster_name: streamgate_access_log, a",
            "cluster_name: streamgate, a",
        )],
        "two_clusters",
    ),
    (
        &[
            ("timeout: 0.5s", "timeout: 0.2s"),
            ("failure_mode_allow: false", "failure_mode_allow: true"),
        ],
        "timeout",
    ),
    (&[("                timeout: 0.5s", "")], "timeout"),
    (
        &[("status_on_error: {code: ServiceUnavailable}", "")],
        "status_on_error",
    ),
    (&[("encode_raw_headers: true", "")], "encode_raw_headers"),
    (
        &[(
            "{streamgate.session: \"header:x-playback",
            "{streamgate.session: \"request,header:x-playback",
        )],
        "request",
    ),
    (
        &[
            ("circuit_breakers: &plenty", "alt_stat_name: &plenty"),
            ("circuit_breakers: *plenty", ""),
        ],
        "circuit_breakers",
    ),
    (
        &[
            ("common_lb_config: &no_panic", "alt_stat_name: &no_panic"),
            ("common_lb_config: *no_panic", ""),
        ],
        "panic",
    ),
    (&[("keep_empty_value: true", "")], "api_user"),
];

#[test]
fn every_mutant_of_our_own_file_is_found() {
    for (changes, check) in MUTANTS {
        let found = found_in(&mutant(changes), None);
        let checks: Vec<_> = found.iter().map(|it| it.check).collect();
        assert!(checks.contains(&check), "{changes:?}: {checks:?}");
        let others = checks.iter().filter(|it| **it != check).count();
        assert_eq!(others, 0, "{changes:?}: {checks:?}");
    }
}

#[test]
fn every_piece_that_is_missing_from_our_own_file_is_found() {
    for (first, check) in [
        ("socket_options:", "socket_options"),
        ("access_log:", "access_log"),
        ("early_header_mutation_extensions:", "client_header"),
        ("- name: envoy.filters.http.jwt_authn", "user"),
        ("- name: envoy.filters.http.set_metadata", "mark"),
        ("- name: envoy.filters.http.ext_authz", "ext_authz"),
        ("- name: streamgate_access_log", "cluster"),
        ("outlier_detection:", "outlier_detection"),
        ("metadata_context_namespaces:", "claims"),
        ("request_headers_to_add:", "api_user"),
    ] {
        let text = match first {
            // Lists are indented like their names.
            "socket_options:"
            | "access_log:"
            | "early_header_mutation_extensions:"
            | "request_headers_to_add:" => {
                ours().replacen(&format!(" {first}"), &format!(" x_{first}"), 1)
            }
            _ => without(&ours(), first),
        };
        let found = found_in(&text, None);
        let checks: Vec<_> = found.iter().map(|it| it.check).collect();
        assert!(checks.contains(&check), "{first}: {checks:?}");
    }
}

#[test]
fn a_filter_that_verifies_behind_the_check_is_found_with_its_line() {
    let text = ours();
    let (before, rest) = text.split_once("          # Who is it?").unwrap();
    let (login, rest) = rest.split_once("          # The mark").unwrap();
    let (check, router) = rest
        .split_once("          - name: envoy.filters.http.router")
        .unwrap();
    let text = format!(
        "{before}          # The mark{check}          # Who is it?{login}          - name: envoy.filters.http.router{router}"
    );
    let found = found_in(&text, None);
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((found.check, found.piece), ("order", Some("http_filters")));
    let line = text.lines().nth(usize::try_from(found.line).unwrap() - 1);
    assert!(line.unwrap().contains("JwtAuthentication"), "{line:?}");
    assert!(
        found.path.ends_with("http_filters[3].typed_config"),
        "{}",
        found.path
    );
}

#[test]
fn bad_input_is_told_by_what_it_is() {
    let of = |text: &str| read::parse(Path::new("it"), text).unwrap_err().to_string();
    for (text, expected) in [
        ("", "it: empty"),
        (" \n", "it: empty"),
        ("{\"a\": ", "it:1: neither YAML nor JSON"),
        (
            "{\"a\": 1}",
            "it: no Envoy configuration: none of static_resources,",
        ),
        ("[1, 2]", "it: no Envoy configuration"),
        ("http {\n  server {\n    listen 80;\n  }\n}\n", "it"),
        ("global\n    daemon\nfrontend http\n    bind *:80\n", "it"),
        (
            "http:\n  routers:\n    a: {rule: \"Host(`a`)\"}\n",
            "it: no Envoy configuration",
        ),
    ] {
        let told = of(text);
        assert!(told.starts_with(expected), "{told}");
        assert!(told.contains("Envoy configuration"), "{told}");
    }
}

#[test]
fn a_file_that_is_not_there_or_is_too_large_is_not_read() {
    let missing = read::read(Path::new("/nowhere/envoy.yaml"), &mut std::io::empty());
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .starts_with("failed to read /nowhere/envoy.yaml: ")
    );
    let mut endless = std::io::repeat(b' ');
    let large = read::read(Path::new("-"), &mut endless).unwrap_err();
    assert!(large.to_string().contains("larger than 32 MiB"), "{large}");
    let mut bytes = &b"\xff\xfe"[..];
    let bytes = read::read(Path::new("-"), &mut bytes).unwrap_err();
    assert!(bytes.to_string().contains("not UTF-8"), "{bytes}");
}

#[test]
fn a_cookie_and_retries_of_the_check_are_found() {
    let text = envoy_config::whole("--shared --hls /vod");
    let text = text.replacen(
        "{streamgate.session: \"header",
        "{streamgate.issue: cookie, streamgate.session: \"header",
        1,
    );
    let found = found_in(&text, None);
    assert_eq!(
        found.iter().map(|it| it.check).collect::<Vec<_>>(),
        ["retry"]
    );
}

/// Envoy hides the values of `context_extensions` in its dump.
#[test]
fn what_a_dump_hides_is_no_finding_and_is_told() {
    let text = ours();
    let sources = "\"header:x-playback-session-id,cmcd:sid,query:session\"";
    let text = text.replace(sources, "\"[redacted]\"");
    let text = text.replace("\"request\"", "\"[redacted]\"");
    let tree = read::parse(Path::new("-"), &text).unwrap();
    let checked = check(&tree, None);
    assert_eq!(checked.findings, []);
    let [note] = &checked.notes[..] else {
        panic!("{:?}", checked.notes);
    };
    assert!(
        note.starts_with("/config_dump hides what the routes of gateway say"),
        "{note}"
    );
}

#[test]
fn names_may_be_written_as_protobuf_s_json_writes_them() {
    let names = [
        "normalize_path",
        "typed_config",
        "http_filters",
        "cluster_name",
    ];
    let text = names.iter().fold(ours(), |text, name| {
        let (first, second) = name.split_once('_').unwrap();
        let (initial, rest) = second.split_at(1);
        text.replace(name, &format!("{first}{}{rest}", initial.to_uppercase()))
    });
    assert!(text.contains("normalizePath"));
    assert_eq!(found_in(&text, None), []);
}
