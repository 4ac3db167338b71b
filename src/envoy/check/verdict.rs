//! Encodes the answer to a check, as Envoy wants it. Pure.
//!
//! Allowed and denied are answers; an outage is an *error response* with a status code that isn't zero, since Envoy lets an error
//! with code zero through.

use std::collections::HashMap;
use std::time::Duration;

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

use crate::config::{self, OutageRule};
use crate::envoy::wire::grpc_status;
use crate::identity::claim::Unclaimed;
use crate::ledger::Basis;
use crate::problem::{self, Problem, Reason};
use crate::session::{Admission, AdmissionKind, EndCause, Refusal, SessionKey, UserId};
use crate::telemetry::metrics::Verdict;

/// The header that tells upstream and client which session this is.
pub(in crate::envoy) const SESSION_HEADER: &str = "x-streamgate-session";

/// When to try again after an outage.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(1);

/// How a client is told.
#[derive(Debug, Clone, Copy)]
pub(in crate::envoy) struct Telling<'a> {
    /// What, and where the rest stands.
    pub(in crate::envoy) refusal: &'a config::Refusal,
    /// Whether it is a gRPC call: there Envoy puts the body into a header, and the status is another one.
    pub(in crate::envoy) is_grpc: bool,
}

/// What is told.
struct Told {
    /// Its status for gRPC: Envoy's check, and a client's call.
    code: Code,
    /// What it is.
    problem: Problem,
    /// When it is worth trying again.
    retry_after: Option<Duration>,
    /// The headers that only this one has.
    headers: Vec<HeaderValueOption>,
}

/// Lets a request through that takes no slot. What the client says of its session is not passed on.
pub(in crate::envoy) fn pass() -> CheckResponse {
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
pub(in crate::envoy) fn allow(user: &UserId, key: &SessionKey) -> CheckResponse {
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
pub(in crate::envoy) fn with_cookie(mut answer: CheckResponse, cookie: &str) -> CheckResponse {
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

/// Refuses a stream.
pub(in crate::envoy) fn refuse(refusal: &Refusal, telling: Telling<'_>) -> CheckResponse {
    let code = match refusal {
        Refusal::Full { .. } => Code::ResourceExhausted,
        // Trying the same again won't help, starting anew may.
        Refusal::Ended(..) => Code::Aborted,
        Refusal::NotStoppable => Code::FailedPrecondition,
    };
    let headers = match refusal {
        Refusal::Full { limit, .. } => vec![
            header("ratelimit-policy", &problem::rate_limit_policy(*limit)),
            header("ratelimit", &problem::rate_limit(0)),
        ],
        Refusal::Ended(..) | Refusal::NotStoppable => Vec::new(),
    };
    let told = Told {
        code,
        problem: Problem::refusal(refusal, &telling.refusal.show),
        retry_after: refusal.retry_after(),
        headers,
    };
    deny(told, telling)
}

/// Refuses a request that can't be told whose, or which stream's, it is. The viewer can't mend it; whoever makes the player finds in `flaw` what
/// is wrong, and whoever runs the gateway in the log.
pub(in crate::envoy) fn reject(unclaimed: &Unclaimed, telling: Telling<'_>) -> CheckResponse {
    let (code, problem) = match unclaimed {
        Unclaimed::NoUser => (
            Code::Unauthenticated,
            Problem::plain(
                401,
                Reason::NoUser,
                "You are not signed in. Sign in to watch.",
            ),
        ),
        Unclaimed::NoSession => {
            let detail = "This player doesn't say which stream it plays. Watch with the app or the page of the service.";
            (
                Code::InvalidArgument,
                Problem::plain(400, Reason::NoSession, detail),
            )
        }
        Unclaimed::Malformed { .. } => {
            let detail = "This player has sent something that can't be understood. Reload the page or restart the app; tell the service if that doesn't help.";
            let problem = Problem {
                flaw: Some(unclaimed.to_string()),
                ..Problem::plain(400, Reason::Malformed, detail)
            };
            (Code::InvalidArgument, problem)
        }
        Unclaimed::NotHttp | Unclaimed::Misconfigured(..) => {
            let detail = "The service has a fault at this address. Tell it, or try again later.";
            (
                Code::Internal,
                Problem::plain(500, Reason::Misconfigured, detail),
            )
        }
    };
    let told = Told {
        code,
        problem,
        retry_after: None,
        headers: Vec::new(),
    };
    deny(told, telling)
}

/// Says that it can't be told now.
pub(in crate::envoy) fn outage(telling: Telling<'_>) -> CheckResponse {
    let told = Told {
        code: Code::Unavailable,
        problem: Problem::plain(503, Reason::Outage, problem::OUTAGE),
        retry_after: Some(RETRY_AFTER_OUTAGE),
        headers: Vec::new(),
    };
    CheckResponse {
        status: Some(status(told.code, "the store of sessions does not answer")),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::ErrorResponse(response(told, telling))),
    }
}

/// What the metrics call an answer of the ledger, on that basis.
pub(in crate::envoy) const fn verdict(admission: &Admission, basis: Basis) -> Verdict {
    match (admission, basis) {
        (Admission::Admitted(_), Basis::HeldLease) => Verdict::Held,
        (Admission::Admitted(_), Basis::Rule(OutageRule::Local)) => Verdict::OutageLocal,
        (Admission::Admitted(_), Basis::Rule(OutageRule::Allow | OutageRule::Deny)) => {
            Verdict::OutageAllowed
        }
        (Admission::Admitted(admitted), Basis::Store) => match admitted.entry {
            AdmissionKind::Started => Verdict::Started,
            AdmissionKind::Renewed => Verdict::Renewed,
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
        Refusal::Ended(EndCause::Released, _) => Verdict::Ended,
        Refusal::Ended(EndCause::Displaced { .. }, _) => Verdict::Displaced,
        Refusal::Ended(EndCause::Operator, _) => Verdict::Operator,
    }
}

/// What the metrics call a request that was not asked of the ledger.
pub(in crate::envoy) const fn unclaimed_verdict(unclaimed: &Unclaimed) -> Verdict {
    match unclaimed {
        Unclaimed::NoUser => Verdict::NoUser,
        Unclaimed::NoSession => Verdict::NoSession,
        Unclaimed::Malformed { .. } => Verdict::Malformed,
        Unclaimed::NotHttp | Unclaimed::Misconfigured(..) => Verdict::Misconfigured,
    }
}

/// A denial.
fn deny(told: Told, telling: Telling<'_>) -> CheckResponse {
    let reason = told.problem.reason.as_str();
    CheckResponse {
        status: Some(status(told.code, reason)),
        dynamic_metadata: Some(metadata(&[("decision", "deny"), ("reason", reason)])),
        http_response: Some(HttpResponse::DeniedResponse(response(told, telling))),
    }
}

/// What the client is told.
fn response(told: Told, telling: Telling<'_>) -> DeniedHttpResponse {
    let guide = telling.refusal.problems.as_deref();
    let problem = told.problem.explained_at(guide);
    let mut headers = told.headers;
    if let Some(after) = told.retry_after {
        headers.push(header("retry-after", &after.as_secs().to_string()));
    }
    headers.push(header("cache-control", "no-store"));
    let code = i32::from(problem.status);
    let body = if telling.is_grpc {
        let (code, details) = grpc_status::status(told.code, &problem, told.retry_after);
        headers.push(header("grpc-status", &code));
        headers.push(header("grpc-status-details-bin", &details));
        problem.detail
    } else {
        headers.push(header("content-type", problem::CONTENT_TYPE));
        problem.to_json()
    };
    DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers,
        body,
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
