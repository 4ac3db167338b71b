//! The exact contract of the answers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use serde_json::{Value, json};

use super::denial::{DenialStyle, outage, refuse, reject};
use super::response::pass;
use super::response::tests::allow;
use crate::clock::Timestamp;
use crate::config::{self, OutageRule, Shown};
use crate::envoy::check::verdict;
use crate::identity::claim::ClaimError;
use crate::identity::{ContentId, DeviceId, Facts, Kind, SessionId, SessionKey, UserId};
use crate::ledger::Basis;
use crate::problem::Problem;
use crate::problem::guide::tests::{Section, assert_explained};
use crate::session::{AdmissionKind, EndCause, Refusal, Session};
use crate::telemetry::metrics::Verdict;

fn key(id: &str) -> SessionKey {
    SessionKey {
        kind: Kind::Playback,
        id: SessionId::parse(id).unwrap(),
    }
}

/// A session that has just started, and whose lease ends after that many milliseconds.
fn session(left: u64) -> Session {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Session {
        key: key("p1"),
        facts: Facts::default(),
        started_at: at,
        renewed_at: at,
        expires_at: Timestamp::from_millis(at.as_millis() + left),
        ticket: None,
        flags: crate::session::Flags::default(),
    }
}

/// A full roster with one holder whose lease ends after that many milliseconds.
fn full(limit: u32, left: u64) -> Refusal {
    let holder = session(left);
    Refusal::Full {
        limit,
        decided_at: holder.started_at,
        holders: vec![holder],
    }
}

fn show_all() -> config::RefusalSettings {
    config::RefusalSettings::default()
}

fn show_nothing() -> config::RefusalSettings {
    config::RefusalSettings {
        show: BTreeSet::new(),
        ..config::RefusalSettings::default()
    }
}

/// The style for an HTTP client.
fn over_http(refusal: &config::RefusalSettings) -> DenialStyle<'_> {
    DenialStyle {
        refusal,
        is_grpc: false,
    }
}

/// The style for a gRPC client.
fn over_grpc(refusal: &config::RefusalSettings) -> DenialStyle<'_> {
    DenialStyle {
        refusal,
        is_grpc: true,
    }
}

/// Headers by name; each replaces existing ones, and occurs once.
fn headers(options: &[HeaderValueOption]) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for option in options {
        assert_eq!(
            option.append_action(),
            HeaderAppendAction::OverwriteIfExistsOrAdd
        );
        let header = option.header.clone().unwrap();
        assert_eq!(header.key, header.key.to_lowercase());
        assert_eq!(headers.insert(header.key, header.value), None, "twice");
    }
    headers
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn metadata(response: &CheckResponse) -> BTreeMap<String, String> {
    let fields = response.dynamic_metadata.clone().unwrap_or_default().fields;
    let text = |value: Option<ValueKind>| match value {
        Some(ValueKind::StringValue(text)) => text,
        other => panic!("{other:?} is no text"),
    };
    fields
        .into_iter()
        .map(|(name, value)| (name, text(value.kind)))
        .collect()
}

fn code(response: &CheckResponse) -> i32 {
    response.status.as_ref().unwrap().code
}

fn ok(response: &CheckResponse) -> &OkHttpResponse {
    match &response.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok,
        other => panic!("{other:?}"),
    }
}

fn denied(response: &CheckResponse) -> &DeniedHttpResponse {
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => denied,
        other => panic!("{other:?}"),
    }
}

fn body(response: &DeniedHttpResponse) -> Value {
    serde_json::from_str(&response.body).unwrap()
}

#[test]
fn an_allow_names_the_session_to_upstream_client_and_log() {
    let response = allow(&UserId::parse("anna").unwrap(), &key("p1"));
    assert_eq!(code(&response), 0);
    let named = texts(&[("x-streamgate-session", "p1")]);
    assert_eq!(headers(&ok(&response).headers), named);
    assert_eq!(headers(&ok(&response).response_headers_to_add), named);
    let expected = [
        ("decision", "allow"),
        ("user", "anna"),
        ("kind", "playback"),
        ("session", "p1"),
    ];
    assert_eq!(metadata(&response), texts(&expected));
}

#[test]
fn a_pass_without_slot_strips_the_session_header() {
    let response = pass();
    assert_eq!(code(&response), 0);
    assert_eq!(ok(&response).headers_to_remove, ["x-streamgate-session"]);
    assert!(ok(&response).headers.is_empty() && ok(&response).response_headers_to_add.is_empty());
    assert_eq!(metadata(&response), texts(&[("decision", "allow")]));
}

#[test]
fn a_full_refusal_is_429_with_what_to_do_about_it() {
    let response = refuse(&full(3, 15_000), over_http(&show_all()));
    assert_eq!(code(&response), 8);
    assert_eq!(denied(&response).status.unwrap().code, 429);
    let expected = texts(&[
        ("cache-control", "no-store"),
        ("content-type", "application/problem+json"),
        ("ratelimit", "\"streams\";r=0"),
        (
            "ratelimit-policy",
            "\"streams\";q=3;qu=\"concurrent-requests\"",
        ),
        ("retry-after", "5"),
    ]);
    assert_eq!(headers(&denied(&response).headers), expected);
    assert_eq!(
        metadata(&response),
        texts(&[("decision", "deny"), ("reason", "full")])
    );
    let told = body(denied(&response));
    for field in ["type", "title", "detail"] {
        assert!(
            told[field].as_str().is_some_and(|text| !text.is_empty()),
            "{told}"
        );
    }
    for (field, expected) in [
        ("status", json!(429)),
        ("reason", json!("full")),
        ("limit", json!(3)),
        ("active", json!(1)),
        (
            "sessions",
            json!([{"session": "p1", "started_at": "2027-01-15T08:00:00.000Z"}]),
        ),
    ] {
        assert_eq!(told[field], expected, "{field}");
    }
}

#[test]
fn retry_after_is_a_third_of_the_shortest_lease_at_least_one() {
    for (left, expected) in [
        (30_000, "10"),
        (8_999, "2"),
        (3_000, "1"),
        (1, "1"),
        (0, "1"),
    ] {
        let response = refuse(&full(1, left), over_http(&show_nothing()));
        assert_eq!(
            headers(&denied(&response).headers)["retry-after"],
            expected,
            "{left} ms"
        );
    }
    let nobody = Refusal::Full {
        limit: 0,
        holders: Vec::new(),
        decided_at: Timestamp::default(),
    };
    let response = refuse(&nobody, over_http(&show_nothing()));
    assert!(
        !headers(&denied(&response).headers).contains_key("retry-after"),
        "waiting won't help"
    );
}

#[test]
fn an_ended_session_is_429_with_its_reason_and_no_retry_after() {
    let by = key("p2");
    for (cause, reason) in [
        (EndCause::Released, "ended"),
        (EndCause::Displaced { by }, "displaced"),
        (EndCause::Operator, "operator"),
    ] {
        let response = refuse(&Refusal::Ended(cause, None, None), over_http(&show_all()));
        assert_ne!(code(&response), 0);
        assert_eq!(denied(&response).status.unwrap().code, 429);
        let expected = [
            ("cache-control", "no-store"),
            ("content-type", "application/problem+json"),
        ];
        assert_eq!(headers(&denied(&response).headers), texts(&expected));
        assert_eq!(
            metadata(&response),
            texts(&[("decision", "deny"), ("reason", reason)])
        );
        assert_eq!(body(denied(&response))["reason"], reason);
    }
    let response = refuse(&Refusal::NotStoppable, over_http(&show_all()));
    assert_eq!(denied(&response).status.unwrap().code, 409);
    assert_ne!(code(&response), 0);
}

#[test]
fn an_unidentified_request_is_refused_without_operator_details() {
    let malformed = ClaimError::Malformed {
        what: "user",
        source_name: "header:x".to_owned(),
        flaw: "is not UTF-8".to_owned(),
    };
    for (error, status, reason, counted) in [
        (ClaimError::NoUser, 401, "no_user", Verdict::NoUser),
        (ClaimError::NoSession, 400, "no_session", Verdict::NoSession),
        (malformed, 400, "malformed", Verdict::Malformed),
        (
            ClaimError::NotHttp,
            500,
            "misconfigured",
            Verdict::Misconfigured,
        ),
        (
            ClaimError::Misconfigured("streamgate.session", "secret".to_owned()),
            500,
            "misconfigured",
            Verdict::Misconfigured,
        ),
    ] {
        let response = reject(&error, over_http(&show_all()));
        assert_ne!(code(&response), 0, "Envoy would let it through");
        assert_eq!(denied(&response).status.unwrap().code, status);
        assert_eq!(
            metadata(&response),
            texts(&[("decision", "deny"), ("reason", reason)])
        );
        let told = body(denied(&response));
        assert_eq!(
            (&told["status"], &told["reason"]),
            (&json!(status), &json!(reason))
        );
        assert!(!told.to_string().contains("secret"), "{told}");
        assert_eq!(verdict::rejected(&error), counted);
    }
}

#[test]
fn an_outage_is_an_error_response_that_is_never_code_zero() {
    let response = outage(over_http(&show_all()));
    assert_eq!(code(&response), 14);
    assert_eq!(metadata(&response), BTreeMap::new());
    let Some(HttpResponse::ErrorResponse(error)) = &response.http_response else {
        panic!("{response:?}");
    };
    assert_eq!(error.status.unwrap().code, 503);
    let headers = headers(&error.headers);
    assert_eq!(
        (&*headers["retry-after"], &*headers["content-type"]),
        ("1", "application/problem+json")
    );
    assert_eq!(body(error)["reason"], "outage");
}

/// All denials that a client at the gateway may get.
fn all_that_is_told(style: DenialStyle<'_>) -> Vec<CheckResponse> {
    let malformed = ClaimError::Malformed {
        what: "user",
        source_name: "header:x".to_owned(),
        flaw: "is not UTF-8".to_owned(),
    };
    let misconfigured = ClaimError::Misconfigured("streamgate.session", "x".to_owned());
    let refusals = [
        full(0, 1),
        full(1, 1),
        full(3, 1),
        Refusal::Ended(EndCause::Released, None, None),
        Refusal::Ended(EndCause::Displaced { by: key("p2") }, None, None),
        Refusal::Ended(EndCause::Operator, None, None),
        Refusal::NotStoppable,
    ];
    let error = [
        ClaimError::NoUser,
        ClaimError::NoSession,
        malformed,
        ClaimError::NotHttp,
        misconfigured,
    ];
    let refusals = refusals.iter().map(|refusal| refuse(refusal, style));
    let rejections = error.iter().map(|error| reject(error, style));
    refusals.chain(rejections).chain([outage(style)]).collect()
}

/// The client's part of a denial or an error.
fn to_client(response: &CheckResponse) -> &DeniedHttpResponse {
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(told) | HttpResponse::ErrorResponse(told)) => told,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_refusal_matches_the_guide_to_problems() {
    let all = show_all();
    let mut reasons = HashSet::new();
    for response in all_that_is_told(over_http(&all)) {
        let told = to_client(&response);
        let mut problem = body(told);
        // The guide's example has as many as possible.
        if problem["limit"] == 3 {
            let detail = problem["detail"].as_str().unwrap();
            problem["detail"] = detail.replace("and 1 are", "and 3 are").into();
        }
        let headers = headers(&told.headers);
        let own = headers.keys().map(String::as_str);
        let own = own.filter(|name| !["cache-control", "content-type"].contains(name));
        assert_explained(&problem, &own.collect::<Vec<_>>());
        reasons.insert(problem["reason"].to_string());
    }
    assert_eq!(reasons.len(), 10);
}

#[test]
fn a_grpc_denial_has_status_sentence_and_details() {
    let all = show_all();
    let (http, grpc) = (over_http(&all), over_grpc(&all));
    for (response, call) in all_that_is_told(http).iter().zip(all_that_is_told(grpc)) {
        let (plain, told) = (to_client(response), to_client(&call));
        let problem = body(plain);
        assert_eq!(told.body, problem["detail"].as_str().unwrap());
        let (mut expected, mut found) = (headers(&plain.headers), headers(&told.headers));
        assert_eq!(
            found.remove("grpc-status").unwrap(),
            code(&call).to_string()
        );
        assert!(found.remove("grpc-status-details-bin").is_some());
        expected.remove("content-type");
        assert_eq!(found, expected);
        assert_eq!((plain.status, code(response)), (told.status, code(&call)));
        let name = Section::of(problem["reason"].as_str().unwrap())
            .words("Status")
            .concat();
        let told = format!("{:?}", tonic::Code::from_i32(code(&call)));
        assert_eq!(told.to_uppercase(), name.replace('_', ""));
    }
}

#[test]
fn problem_types_use_the_configured_guide_or_the_iana_type() {
    let elsewhere = config::RefusalSettings {
        problems: Some("https://watch.example/help".to_owned()),
        ..config::RefusalSettings::default()
    };
    let here = config::RefusalSettings::default();
    for (refusal, guide) in [
        (&here, "/v1/problems"),
        (&elsewhere, "https://watch.example/help"),
    ] {
        for response in all_that_is_told(over_http(refusal)) {
            let problem = body(to_client(&response));
            let kind = problem["type"].as_str().unwrap();
            match problem["reason"].as_str().unwrap() {
                "full" => assert!(kind.starts_with("https://iana.org/"), "{kind}"),
                reason => assert_eq!(kind, format!("{guide}#{reason}")),
            }
        }
    }
}

#[test]
fn hidden_facts_are_shown_in_no_form() {
    let holder = Session {
        facts: Facts {
            device: DeviceId::parse("the-tv").ok(),
            content: ContentId::parse("the-film").ok(),
            ..Facts::default()
        },
        ..session(1)
    };
    let refusal = Refusal::Full {
        limit: 1,
        decided_at: holder.started_at,
        holders: vec![holder],
    };
    let displaced = Refusal::Ended(EndCause::Displaced { by: key("p9") }, None, None);
    let facts = [
        (Shown::Session, "session", "\"p1\""),
        (Shown::Device, "device", "the-tv"),
        (Shown::Content, "content", "the-film"),
        (Shown::StartedAt, "started_at", "2027-01-15T"),
    ];
    let sets = (0..16_u8).map(|bits| {
        let chosen = facts
            .iter()
            .enumerate()
            .filter(move |(place, _)| bits >> place & 1 == 1);
        chosen
            .map(|(_, (shown, _, _))| *shown)
            .collect::<BTreeSet<_>>()
    });
    for show in sets {
        let refusal_of = config::RefusalSettings {
            show,
            problems: None,
        };
        let told = &denied(&refuse(&refusal, over_http(&refusal_of)))
            .body
            .clone();
        let by_grpc = Problem::refusal(&refusal, &refusal_of.show).to_json();
        assert_eq!(*told, by_grpc);
        let told_json: Value = serde_json::from_str(told).unwrap();
        for (shown, field, text) in facts {
            let may = refusal_of.show.contains(&shown);
            assert_eq!(told_json["sessions"][0].get(field).is_some(), may, "{told}");
            assert_eq!(told.contains(text), may, "{told}");
        }
        assert_eq!(
            (&told_json["limit"], &told_json["active"]),
            (&json!(1), &json!(1))
        );
        let told = &denied(&refuse(&displaced, over_http(&refusal_of)))
            .body
            .clone();
        assert_eq!(
            told.contains("p9"),
            refusal_of.show.contains(&Shown::Session),
            "{told}"
        );
    }
}

#[test]
fn each_ledger_answer_has_a_label_in_metrics_and_log() {
    assert_eq!(
        verdict::admitted(AdmissionKind::Started, Basis::Store),
        Verdict::Started
    );
    assert_eq!(
        verdict::admitted(AdmissionKind::Renewed, Basis::Store),
        Verdict::Renewed
    );
    for (basis, counted) in [
        (Basis::HeldLease, Verdict::Held),
        (Basis::Rule(OutageRule::Allow), Verdict::OutageAllowed),
        (Basis::Rule(OutageRule::Local), Verdict::OutageLocal),
    ] {
        assert_eq!(verdict::admitted(AdmissionKind::Started, basis), counted);
        assert_eq!(verdict::admitted(AdmissionKind::Renewed, basis), counted);
    }
    assert_eq!(
        verdict::refused(&full(1, 1), Basis::Rule(OutageRule::Local)),
        Verdict::FullLocal
    );
    for (refusal, counted, reason) in [
        (full(1, 1), Verdict::Full, "full"),
        (
            Refusal::NotStoppable,
            Verdict::NotStoppable,
            "not_stoppable",
        ),
        (
            Refusal::Ended(EndCause::Released, None, None),
            Verdict::Ended,
            "ended",
        ),
        (
            Refusal::Ended(EndCause::Displaced { by: key("p") }, None, None),
            Verdict::Displaced,
            "displaced",
        ),
        (
            Refusal::Ended(EndCause::Operator, None, None),
            Verdict::Operator,
            "operator",
        ),
    ] {
        assert_eq!(crate::problem::refusal_reason(&refusal).as_str(), reason);
        assert_eq!(verdict::refused(&refusal, Basis::Store), counted);
    }
}
