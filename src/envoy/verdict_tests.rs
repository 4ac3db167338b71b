//! The contract of the answers, to the letter.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use serde_json::{Value, json};

use super::claim::Unclaimed;
use super::verdict::{self, allow, outage, pass, refuse, reject};
use crate::config::{Outage, Shown};
use crate::ledger::Basis;
use crate::session::{
    Admission, Admitted, EndCause, Entry, Facts, Kind, Refusal, Session, SessionId, SessionKey,
    Timestamp, UserId,
};
use crate::telemetry::metrics::Verdict;

fn key(id: &str) -> SessionKey {
    SessionKey {
        kind: Kind::Playback,
        id: SessionId::parse(id).unwrap(),
    }
}

/// A session that has just started, and whose lease ends after so many milliseconds.
fn session(left: u64) -> Session {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Session {
        key: key("p1"),
        facts: Facts::default(),
        started_at: at,
        renewed_at: at,
        expires_at: Timestamp::from_millis(at.as_millis() + left),
        ticket: None,
    }
}

/// A full roster with one holder whose lease ends after so many milliseconds.
fn full(limit: u32, left: u64) -> Refusal {
    let holder = session(left);
    Refusal::Full {
        limit,
        decided_at: holder.started_at,
        holders: vec![holder],
    }
}

fn show_all() -> BTreeSet<Shown> {
    [
        Shown::Session,
        Shown::Device,
        Shown::Content,
        Shown::StartedAt,
    ]
    .into()
}

/// Headers by name; each replaces what is there, and stands there once.
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
fn who_is_let_in_is_named_upstream_to_the_client_and_to_the_log() {
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
fn what_takes_no_slot_passes_without_a_session_and_without_the_client_s_word_for_one() {
    let response = pass();
    assert_eq!(code(&response), 0);
    assert_eq!(ok(&response).headers_to_remove, ["x-streamgate-session"]);
    assert!(ok(&response).headers.is_empty() && ok(&response).response_headers_to_add.is_empty());
    assert_eq!(metadata(&response), texts(&[("decision", "allow")]));
}

#[test]
fn a_full_refusal_is_429_with_what_to_do_about_it() {
    let response = refuse(&full(3, 15_000), &show_all());
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
fn retry_after_is_a_third_of_the_shortest_lease_in_whole_seconds_and_at_least_one() {
    for (left, expected) in [
        (30_000, "10"),
        (8_999, "2"),
        (3_000, "1"),
        (1, "1"),
        (0, "1"),
    ] {
        let response = refuse(&full(1, left), &BTreeSet::new());
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
    let response = refuse(&nobody, &BTreeSet::new());
    assert!(
        !headers(&denied(&response).headers).contains_key("retry-after"),
        "waiting won't help"
    );
}

#[test]
fn an_ended_session_is_429_with_its_reason_and_nothing_to_wait_for() {
    let by = key("p2");
    for (cause, reason) in [
        (EndCause::Released, "ended"),
        (EndCause::Displaced { by }, "displaced"),
        (EndCause::Operator, "operator"),
    ] {
        let response = refuse(&Refusal::Ended(cause), &show_all());
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
    let response = refuse(&Refusal::NotStoppable, &show_all());
    assert_eq!(denied(&response).status.unwrap().code, 409);
    assert_ne!(code(&response), 0);
}

#[test]
fn what_can_t_be_told_whose_it_is_is_refused_and_an_operator_s_mistake_is_not_shown() {
    let malformed = Unclaimed::Malformed {
        what: "user",
        source_name: "header:x".to_owned(),
        flaw: "is not UTF-8".to_owned(),
    };
    for (unclaimed, status, reason, counted) in [
        (Unclaimed::NoUser, 401, "no_user", Verdict::NoUser),
        (Unclaimed::NoSession, 400, "no_session", Verdict::NoSession),
        (malformed, 400, "malformed", Verdict::Malformed),
        (
            Unclaimed::NotHttp,
            500,
            "misconfigured",
            Verdict::Misconfigured,
        ),
        (
            Unclaimed::Misconfigured("streamgate.session", "secret".to_owned()),
            500,
            "misconfigured",
            Verdict::Misconfigured,
        ),
    ] {
        let response = reject(&unclaimed);
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
        assert_eq!(verdict::unclaimed_verdict(&unclaimed), counted);
    }
}

#[test]
fn an_outage_is_an_error_response_that_is_never_code_zero() {
    let response = outage();
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

#[test]
fn each_answer_of_the_ledger_has_its_name_in_the_metrics_and_the_log() {
    let admitted = |entry| {
        Admission::Admitted(Admitted {
            entry,
            session: session(30_000),
            active: 1,
            displaced: Vec::new(),
            decided_at: Timestamp::default(),
        })
    };
    assert_eq!(
        verdict::verdict(&admitted(Entry::Started), Basis::Store),
        Verdict::Started
    );
    assert_eq!(
        verdict::verdict(&admitted(Entry::Renewed), Basis::Store),
        Verdict::Renewed
    );
    for (basis, counted) in [
        (Basis::HeldLease, Verdict::Held),
        (Basis::Rule(Outage::Allow), Verdict::OutageAllowed),
        (Basis::Rule(Outage::Local), Verdict::OutageLocal),
    ] {
        assert_eq!(verdict::verdict(&admitted(Entry::Started), basis), counted);
        assert_eq!(verdict::verdict(&admitted(Entry::Renewed), basis), counted);
    }
    let full_here = Admission::Refused(full(1, 1));
    assert_eq!(
        verdict::verdict(&full_here, Basis::Rule(Outage::Local)),
        Verdict::FullLocal
    );
    for (refusal, counted, reason) in [
        (full(1, 1), Verdict::Full, "full"),
        (
            Refusal::NotStoppable,
            Verdict::NotStoppable,
            "not_stoppable",
        ),
        (Refusal::Ended(EndCause::Released), Verdict::Ended, "ended"),
        (
            Refusal::Ended(EndCause::Displaced { by: key("p") }),
            Verdict::Displaced,
            "displaced",
        ),
        (
            Refusal::Ended(EndCause::Operator),
            Verdict::Operator,
            "operator",
        ),
    ] {
        assert_eq!(crate::problem::refusal_reason(&refusal).as_str(), reason);
        assert_eq!(
            verdict::verdict(&Admission::Refused(refusal), Basis::Store),
            counted
        );
    }
}
