//! Encodes denials for Envoy. Pure functions.
//!
//! A refusal is a denied response. An outage is an *error response* with a nonzero status code,
//! because Envoy lets an error with code zero through.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use tonic::Code;

use super::grpc_status;
use super::response::{header, metadata, status};
use crate::config;
use crate::identity::claim::ClaimError;
use crate::problem::{self, Problem, Reason};
use crate::session::Refusal;

/// When to try again after an outage.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(1);

/// The form in which a client reads a denial.
#[derive(Debug, Clone, Copy)]
pub(in crate::envoy) struct DenialStyle<'a> {
    /// What a denial shows, and where its guide is.
    pub(in crate::envoy) refusal: &'a config::RefusalSettings,
    /// Whether it is a gRPC call: then Envoy puts the body into a header, and the status differs.
    pub(in crate::envoy) is_grpc: bool,
}

/// A denial, before it is encoded.
struct Denial {
    /// Its gRPC status, for Envoy's check and for a client's call.
    code: Code,
    /// The problem.
    problem: Problem,
    /// When a retry makes sense.
    retry_after: Option<Duration>,
    /// The headers that only this denial has.
    headers: Vec<HeaderValueOption>,
}

/// Refuses a stream.
pub(in crate::envoy) fn refuse(refusal: &Refusal, style: DenialStyle<'_>) -> CheckResponse {
    let code = match refusal {
        Refusal::Full { .. } => Code::ResourceExhausted,
        // Repeating this start won't help; a start under a new id may.
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
    let denial = Denial {
        code,
        problem: Problem::refusal(refusal, &style.refusal.show),
        retry_after: refusal.retry_after(),
        headers,
    };
    deny(denial, style)
}

/// Refuses a request that names no user or no stream, or names them wrongly. The viewer can't fix
/// that: `flaw` tells the player's developer what is wrong, and the log tells the gateway's
/// operator.
pub(in crate::envoy) fn reject(error: &ClaimError, style: DenialStyle<'_>) -> CheckResponse {
    let (code, problem) = match error {
        ClaimError::NoUser => (
            Code::Unauthenticated,
            Problem::plain(
                401,
                Reason::NoUser,
                "You are not signed in. Sign in to watch.",
            ),
        ),
        ClaimError::NoSession => {
            let detail = "This player doesn't identify its stream. Use the service's app or website to watch.";
            (
                Code::InvalidArgument,
                Problem::plain(400, Reason::NoSession, detail),
            )
        }
        ClaimError::Malformed { .. } => {
            let detail = "This player sent an invalid request. Reload the page or restart the app. If that doesn't help, contact support.";
            let problem = Problem {
                flaw: Some(error.to_string()),
                ..Problem::plain(400, Reason::Malformed, detail)
            };
            (Code::InvalidArgument, problem)
        }
        ClaimError::NotHttp | ClaimError::Misconfigured(..) => {
            let detail = "Something is wrong with the service at this address. Contact support, or try again later.";
            (
                Code::Internal,
                Problem::plain(500, Reason::Misconfigured, detail),
            )
        }
    };
    let denial = Denial {
        code,
        problem,
        retry_after: None,
        headers: Vec::new(),
    };
    deny(denial, style)
}

/// Denies the stream because the store could not answer.
pub(in crate::envoy) fn outage(style: DenialStyle<'_>) -> CheckResponse {
    let denial = Denial {
        code: Code::Unavailable,
        problem: Problem::plain(503, Reason::Outage, problem::OUTAGE),
        retry_after: Some(RETRY_AFTER_OUTAGE),
        headers: Vec::new(),
    };
    CheckResponse {
        status: Some(status(denial.code, "the session store does not answer")),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::ErrorResponse(response(denial, style))),
    }
}

/// Encodes a denial.
fn deny(denial: Denial, style: DenialStyle<'_>) -> CheckResponse {
    let reason = denial.problem.reason.as_str();
    CheckResponse {
        status: Some(status(denial.code, reason)),
        dynamic_metadata: Some(metadata(&[("decision", "deny"), ("reason", reason)])),
        http_response: Some(HttpResponse::DeniedResponse(response(denial, style))),
    }
}

/// The client's part of the response.
fn response(denial: Denial, style: DenialStyle<'_>) -> DeniedHttpResponse {
    let problem = match &style.refusal.problems {
        Some(guide) => denial.problem.explained_at(guide),
        None => denial.problem,
    };
    let mut headers = denial.headers;
    if let Some(after) = denial.retry_after {
        headers.push(header("retry-after", &after.as_secs().to_string()));
    }
    headers.push(header("cache-control", "no-store"));
    let code = i32::from(problem.status);
    let body = if style.is_grpc {
        let (code, details) = grpc_status::status(denial.code, &problem, denial.retry_after);
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
