//! Encodes the answer to a check, as Envoy wants it. Pure.
//!
//! Allowed and denied are answers; an outage is an *error response* with a status code that isn't zero, since Envoy lets an error
//! with code zero through.

use std::collections::{BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc::Status;
use tonic::Code;

use super::claim::Unclaimed;
use crate::config::{Outage, Shown};
use crate::ledger::Basis;
use crate::problem::{self, Problem, Reason};
use crate::session::{Admission, EndCause, Entry, Refusal, SessionKey, UserId};
use crate::telemetry::metrics::Verdict;

/// The header that tells upstream and client which session this is.
pub(super) const SESSION_HEADER: &str = "x-streamgate-session";

/// When to try again after an outage.
const RETRY_AFTER_OUTAGE_SECONDS: u64 = 1;

/// Lets a request through that takes no slot. What the client says of its session is not passed on.
pub(super) fn pass() -> CheckResponse {
    let response = OkHttpResponse {
        headers_to_remove: vec![SESSION_HEADER.to_owned()],
        ..OkHttpResponse::default()
    };
    CheckResponse {
        status: Some(status(Code::Ok, "")),
        dynamic_metadata: Some(metadata(&[("decision", "allow")])),
        http_response: Some(HttpResponse::OkResponse(response)),
    }
}

/// Lets a stream through.
pub(super) fn allow(user: &UserId, key: &SessionKey) -> CheckResponse {
    let named = vec![header(SESSION_HEADER, key.id.as_str())];
    let response = OkHttpResponse {
        headers: named.clone(),
        response_headers_to_add: named,
        ..OkHttpResponse::default()
    };
    CheckResponse {
        status: Some(status(Code::Ok, "")),
        dynamic_metadata: Some(metadata(&[
            ("decision", "allow"),
            ("user", user.as_str()),
            ("kind", key.kind.as_str()),
            ("session", key.id.as_str()),
        ])),
        http_response: Some(HttpResponse::OkResponse(response)),
    }
}

/// The same answer, setting a cookie beside those that the origin sets.
pub(super) fn with_cookie(mut answer: CheckResponse, cookie: &str) -> CheckResponse {
    let set = HeaderValueOption {
        append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
        ..header("set-cookie", cookie)
    };
    match &mut answer.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok.response_headers_to_add.push(set),
        Some(HttpResponse::DeniedResponse(told) | HttpResponse::ErrorResponse(told)) => {
            told.headers.push(set);
        }
        None => {}
    }
    answer
}

/// Refuses a stream. `show` says what may be told of the live ones.
pub(super) fn refuse(refusal: &Refusal, show: &BTreeSet<Shown>) -> CheckResponse {
    let mut headers = Vec::new();
    if let Some(after) = refusal.retry_after() {
        headers.push(header("retry-after", &after.as_secs().to_string()));
    }
    if let Refusal::Full { limit, .. } = refusal {
        headers.push(header(
            "ratelimit-policy",
            &problem::rate_limit_policy(*limit),
        ));
        headers.push(header("ratelimit", &problem::rate_limit(0)));
    }
    deny(
        Code::ResourceExhausted,
        &Problem::refusal(refusal, show),
        headers,
    )
}

/// Refuses a request that can't be told whose, or which stream's, it is.
pub(super) fn reject(unclaimed: &Unclaimed) -> CheckResponse {
    let detail = unclaimed.to_string();
    let (code, problem) = match unclaimed {
        Unclaimed::NoUser => (
            Code::Unauthenticated,
            Problem::plain(401, Reason::NoUser, detail),
        ),
        Unclaimed::NoSession => (
            Code::InvalidArgument,
            Problem::plain(400, Reason::NoSession, detail),
        ),
        Unclaimed::Malformed { .. } => (
            Code::InvalidArgument,
            Problem::plain(400, Reason::Malformed, detail),
        ),
        // The viewer can't mend it and needn't know; the log has the reason.
        Unclaimed::NotHttp | Unclaimed::Misconfigured(..) => {
            let detail = "The gateway's configuration for this address is wrong. Its operator finds the reason in streamgate's log.";
            (
                Code::FailedPrecondition,
                Problem::plain(500, Reason::Misconfigured, detail),
            )
        }
    };
    deny(code, &problem, Vec::new())
}

/// Says that it can't be told now.
pub(super) fn outage() -> CheckResponse {
    let detail = "It can't be told now whether this account may watch one more stream. Try again in a moment.";
    let problem = Problem::plain(503, Reason::Outage, detail);
    let retry = header("retry-after", &RETRY_AFTER_OUTAGE_SECONDS.to_string());
    CheckResponse {
        status: Some(status(
            Code::Unavailable,
            "the store of sessions does not answer",
        )),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::ErrorResponse(told(&problem, vec![retry]))),
    }
}

/// What the metrics call an answer of the ledger, on that basis.
pub(super) const fn verdict(admission: &Admission, basis: Basis) -> Verdict {
    match (admission, basis) {
        (Admission::Admitted(_), Basis::HeldLease) => Verdict::Held,
        (Admission::Admitted(_), Basis::Rule(Outage::Local)) => Verdict::OutageLocal,
        (Admission::Admitted(_), Basis::Rule(Outage::Allow | Outage::Deny)) => {
            Verdict::OutageAllowed
        }
        (Admission::Admitted(admitted), Basis::Store) => match admitted.entry {
            Entry::Started => Verdict::Started,
            Entry::Renewed => Verdict::Renewed,
        },
        (Admission::Refused(refusal), basis) => refused(refusal, basis),
    }
}

/// What the metrics call a refusal.
const fn refused(refusal: &Refusal, basis: Basis) -> Verdict {
    match refusal {
        Refusal::Full { .. } if matches!(basis, Basis::Rule(_)) => Verdict::FullLocal,
        Refusal::Full { .. } => Verdict::Full,
        Refusal::NotStoppable => Verdict::NotStoppable,
        Refusal::Ended(EndCause::Released) => Verdict::Ended,
        Refusal::Ended(EndCause::Displaced { .. }) => Verdict::Displaced,
        Refusal::Ended(EndCause::Operator) => Verdict::Operator,
    }
}

/// What the metrics call a request that was not asked of the ledger.
pub(super) const fn unclaimed_verdict(unclaimed: &Unclaimed) -> Verdict {
    match unclaimed {
        Unclaimed::NoUser => Verdict::NoUser,
        Unclaimed::NoSession => Verdict::NoSession,
        Unclaimed::Malformed { .. } => Verdict::Malformed,
        Unclaimed::NotHttp | Unclaimed::Misconfigured(..) => Verdict::Misconfigured,
    }
}

/// A denial.
fn deny(code: Code, problem: &Problem, headers: Vec<HeaderValueOption>) -> CheckResponse {
    CheckResponse {
        status: Some(status(code, problem.reason.as_str())),
        dynamic_metadata: Some(metadata(&[
            ("decision", "deny"),
            ("reason", problem.reason.as_str()),
        ])),
        http_response: Some(HttpResponse::DeniedResponse(told(problem, headers))),
    }
}

/// What the client is told.
fn told(problem: &Problem, mut headers: Vec<HeaderValueOption>) -> DeniedHttpResponse {
    headers.push(header("content-type", problem::CONTENT_TYPE));
    headers.push(header("cache-control", "no-store"));
    let status = HttpStatus {
        code: i32::from(problem.status),
    };
    DeniedHttpResponse {
        status: Some(status),
        headers,
        body: problem.to_json(),
    }
}

/// A header that replaces whatever is there of that name.
fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue {
        key: name.to_owned(),
        value: value.to_owned(),
        ..HeaderValue::default()
    };
    HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// What the access log shows us again of our answer.
fn metadata(fields: &[(&str, &str)]) -> Struct {
    let text = |text: &str| Value {
        kind: Some(ValueKind::StringValue(text.to_owned())),
    };
    let fields: HashMap<String, Value> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), text(value)))
        .collect();
    Struct { fields }
}

/// A gRPC status.
fn status(code: Code, message: &str) -> Status {
    Status {
        code: code.into(),
        message: message.to_owned(),
        ..Status::default()
    }
}
