//! A refusal in the form that gRPC clients read. Pure functions.
//!
//! Envoy answers a refused gRPC call without a body: 200 with a `grpc-status`, which is either ours
//! or Envoy's translation of the HTTP status (429 becomes `UNAVAILABLE`, which makes clients retry
//! immediately). It puts the body into `grpc-message`. So the body is the sentence for people, and
//! the problem goes where gRPC clients look for details: `google.rpc.ErrorInfo` in
//! `grpc-status-details-bin`. Some clients accept at most 8 KiB of headers in total, so the size is
//! bounded.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::attributes::CheckAttributes;
use crate::identity::attributes::RequestAttributes;
use crate::problem::Problem;

/// The media type of gRPC calls, and the prefix of those that name their encoding.
const MEDIA_TYPE: &str = "application/grpc";

/// The domain of these reasons.
const DOMAIN: &str = "streamgate";

/// The maximum size of the problem: some 4 KiB when encoded.
const MAX_PROBLEM_BYTES: usize = 3 * 1024;

/// The minimum size of a session: its braces and a comma.
const MIN_SESSION_BYTES: usize = 3;

/// Whether a request is a gRPC call, as Envoy sees it. A gRPC-Web call isn't, although the filter
/// that translates it sets that type before asking us.
pub(in crate::envoy) fn is_call(request: &CheckAttributes<'_>) -> bool {
    if !matches!(request.header("x-grpc-web"), Ok(None)) {
        return false;
    }
    let Ok(Some(found)) = request.header("content-type") else {
        return false;
    };
    let rest = found.strip_prefix(MEDIA_TYPE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// The values of `grpc-status` and `grpc-status-details-bin` for a problem.
pub(in crate::envoy) fn status(
    code: Code,
    problem: &Problem,
    retry_after: Option<Duration>,
) -> (String, String) {
    let mut facts = HashMap::from([("problem".to_owned(), bounded(problem))]);
    facts.extend(
        problem
            .limit
            .map(|limit| ("limit".to_owned(), limit.to_string())),
    );
    facts.extend(
        problem
            .active
            .map(|active| ("active".to_owned(), active.to_string())),
    );
    let mut details = ErrorDetails::new();
    details.set_error_info(problem.reason.as_str().to_uppercase(), DOMAIN, facts);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let status = Status::with_error_details(code, problem.detail.as_str(), details);
    let details = BASE64_STANDARD_NO_PAD.encode(status.details());
    (i32::from(code).to_string(), details)
}

/// The problem as it is sent elsewhere, without the last sessions if there are too many.
fn bounded(problem: &Problem) -> String {
    let mut problem = problem.clone();
    let Some(mut sessions) = problem.sessions.take() else {
        return problem.to_json();
    };
    sessions.truncate(MAX_PROBLEM_BYTES / MIN_SESSION_BYTES);
    let mut with = |count: usize| {
        problem.sessions = sessions.get(..count).map(Vec::from);
        problem.to_json()
    };
    // Each session makes it longer, so a binary search finds how many fit.
    let (mut fit, mut too_many) = (0, sessions.len() + 1);
    while too_many - fit > 1 {
        let half = fit.midpoint(too_many);
        if with(half).len() > MAX_PROBLEM_BYTES {
            too_many = half;
        } else {
            fit = half;
        }
    }
    with(fit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tonic_types::StatusExt;

    use super::*;
    use crate::clock::Timestamp;
    use crate::config;
    use crate::envoy::tests::fixtures::Check;
    use crate::identity::{ContentId, DeviceId, Facts, Kind, SessionId, SessionKey};
    use crate::session::{Refusal, Session};

    /// A refusal with that many streams, each with the longest names.
    fn full(count: u32) -> Problem {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let long = "\"".repeat(256);
        let holders = (0..count).map(|number| Session {
            key: SessionKey {
                kind: Kind::Playback,
                id: SessionId::parse(&format!("{number:0>256}")).unwrap(),
            },
            facts: Facts {
                device: DeviceId::parse(&long).ok(),
                content: ContentId::parse(&long).ok(),
                ..Facts::default()
            },
            started_at: at,
            renewed_at: at,
            expires_at: at,
            ticket: None,
            flags: crate::session::Flags::default(),
        });
        let refusal = Refusal::Full {
            limit: count,
            holders: holders.collect(),
            decided_at: at,
        };
        Problem::refusal(&refusal, &config::RefusalSettings::default().show)
    }

    /// Reads those headers like a gRPC client.
    fn read(code: Code, details: &str) -> (ErrorDetails, Value) {
        let bytes = BASE64_STANDARD_NO_PAD.decode(details).unwrap();
        let status = Status::with_details(code, "", bytes.into());
        let details = status.get_error_details();
        let problem = &details.error_info().unwrap().metadata["problem"];
        let problem = serde_json::from_str(problem).unwrap();
        (details, problem)
    }

    #[test]
    fn grpc_details_have_reason_numbers_problem_and_retry_delay() {
        let problem = full(1);
        let after = Duration::from_secs(7);
        let (code, details) = status(Code::ResourceExhausted, &problem, Some(after));
        assert_eq!(code, "8");
        let (details, told) = read(Code::ResourceExhausted, &details);
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("FULL", "streamgate"));
        assert_eq!(
            (&*info.metadata["limit"], &*info.metadata["active"]),
            ("1", "1")
        );
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(after));
        assert_eq!(
            told.to_string(),
            problem.to_json().parse::<Value>().unwrap().to_string()
        );

        let ended = Problem::refusal(
            &Refusal::NotStoppable,
            &config::RefusalSettings::default().show,
        );
        let (_, details) = status(Code::FailedPrecondition, &ended, None);
        let (details, told) = read(Code::FailedPrecondition, &details);
        assert_eq!(details.error_info().unwrap().metadata.len(), 1);
        assert!(details.retry_info().is_none());
        assert_eq!(told["reason"], json!("not_stoppable"));
    }

    #[test]
    fn grpc_headers_stay_within_limits_for_any_session_count() {
        for count in [1, 3, 40, 1000] {
            let problem = full(count);
            let (_, details) = status(Code::ResourceExhausted, &problem, None);
            assert!(details.len() < 5 * 1024, "{count}: {}", details.len());
            let (_, told) = read(Code::ResourceExhausted, &details);
            let shown = told["sessions"].as_array().unwrap().len();
            assert!(shown >= 1 && shown <= count as usize, "{shown} of {count}");
            assert_eq!(told["active"], json!(count));
        }
    }

    #[test]
    fn a_grpc_call_is_recognised_by_its_content_type() {
        let is_call = |check: Check| {
            let request = check.request();
            is_call(&CheckAttributes::of(&request).unwrap())
        };
        for (found, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            let check = Check::on("POST", "/a.B/C");
            let plain = check.clone().headers(&[("content-type", found)]);
            assert_eq!(is_call(plain), expected, "{found}");
            let raw = check.raw_headers(&[("content-type", found.as_bytes())]);
            assert_eq!(is_call(raw), expected, "{found}");
        }
        assert!(!is_call(Check::on("POST", "/")));
        // As it comes out of Envoy's grpc_web filter.
        let translated = [("content-type", "application/grpc"), ("x-grpc-web", "1")];
        let translated = Check::on("POST", "/a.B/C").headers(&translated);
        assert!(!is_call(translated));
    }
}
