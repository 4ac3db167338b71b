//! An answer of the API, and its meaning if it is an error.

use std::io::Write;
use std::time::SystemTime;

use http::StatusCode;
use http::response::Parts;
use serde::Deserialize;

use crate::cli::show::{line, plain};
use crate::cli::{CommandStatus, complain, print};
use crate::identity::UserId;

/// An answer.
#[derive(Debug)]
pub(in crate::cli) struct ApiResponse {
    /// Its status.
    pub(in crate::cli) status: StatusCode,
    /// The time at the server, by its `Date`.
    pub(in crate::cli) given_at: Option<SystemTime>,
    /// Its media type.
    media_type: String,
    /// The address of a redirect.
    location: Option<String>,
    /// The body.
    pub(in crate::cli) body: String,
}

/// An answer that is an error.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Disappointment {
    /// The outcome.
    pub(in crate::cli) outcome: CommandStatus,
    /// The description for people.
    pub(in crate::cli) told: String,
    /// The problem document with its original bytes, if there is one.
    pub(in crate::cli) problem: Option<String>,
}

/// The part of a problem document (RFC 9457) that is shown. A gateway on the way may have written
/// it.
#[derive(Debug, Deserialize)]
struct ProblemDocument {
    /// The kind of problem, in a few words.
    title: Option<String>,
    /// What happened, in a sentence.
    detail: Option<String>,
    /// The reason, in a word.
    reason: Option<String>,
}

impl ApiResponse {
    /// The answer with this head and body. A body that isn't text can't come from streamgate.
    pub(super) fn new(head: &Parts, body: Vec<u8>) -> Self {
        let header = |name: http::HeaderName| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let date = header(http::header::DATE);
        Self {
            status: head.status,
            given_at: date.and_then(|date| httpdate::parse_http_date(&date).ok()),
            media_type: header(http::header::CONTENT_TYPE).unwrap_or_default(),
            location: header(http::header::LOCATION),
            body: String::from_utf8(body).unwrap_or_default(),
        }
    }

    /// The error that the answer is, if it is one.
    pub(in crate::cli) fn disappoints(self, has_token: bool) -> Disappointment {
        let problem: Option<ProblemDocument> = self.problem();
        let outcome = self.outcome(problem.is_some());
        let status = self.status.as_u16();
        let mut told = match &problem {
            Some(problem) => {
                let reason = problem.reason.as_deref().map(plain);
                let reason = reason.map(|reason| format!(" ({reason})"));
                let detail = problem.detail.as_ref().or(problem.title.as_ref());
                format!(
                    "{status}{}: {}",
                    reason.unwrap_or_default(),
                    plain(detail.map_or("no details", String::as_str))
                )
            }
            None => self.of_a_stranger(),
        };
        if self.status == StatusCode::UNAUTHORIZED && !has_token {
            told.push_str(" (no token was sent: use --token-file or STREAMGATE_TOKEN)");
        }
        Disappointment {
            outcome,
            told,
            problem: problem.is_some().then_some(self.body),
        }
    }

    /// The problem document in the answer, if there is one.
    fn problem(&self) -> Option<ProblemDocument> {
        if self.status.as_u16() < 400 {
            return None;
        }
        let told: ProblemDocument = serde_json::from_str(&self.body).ok()?;
        let says_something = told.title.is_some() || told.detail.is_some() || told.reason.is_some();
        says_something.then_some(told)
    }

    /// Describes an answer that can't come from streamgate.
    fn of_a_stranger(&self) -> String {
        let status = self.status.as_u16();
        if self.status.is_redirection() {
            let location = self.location.as_deref().map(plain).unwrap_or_default();
            return format!(
                "{status}: redirected to {location:?}, which is not followed, since it would get the token; if that address is right, pass it with --url"
            );
        }
        let what = match self.media_type.as_str() {
            "" => "something".to_owned(),
            media_type => plain(media_type),
        };
        format!(
            "{status} with {what} that streamgate did not send; check --url, and any proxy in between"
        )
    }

    /// The outcome. A success with a strange body means that something else than the API answered.
    fn outcome(&self, is_problem: bool) -> CommandStatus {
        match self.status.as_u16() {
            400 if is_problem => CommandStatus::Usage,
            300..=499 => CommandStatus::Refused,
            _ => CommandStatus::Outage,
        }
    }
}

impl Disappointment {
    /// Says what came instead of an answer, after whom it is about; with `json`, also prints the
    /// problem document unchanged.
    pub(in crate::cli) fn tell(
        self,
        whose: Option<&UserId>,
        json: bool,
        out: &mut impl Write,
        errors: &mut impl Write,
    ) -> CommandStatus {
        if let Some(problem) = self.problem.filter(|_| json) {
            // The exit status is decided already.
            let _ = print(line(&problem), out, errors);
        }
        match whose {
            Some(user) => complain(errors, format_args!("{user}: {}", self.told), self.outcome),
            None => complain(errors, self.told, self.outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> ApiResponse {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        ApiResponse::new(&response.body(()).unwrap().into_parts().0, body.to_vec())
    }

    #[test]
    fn a_problem_is_told_with_status_reason_and_detail() {
        let body = r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"Not yours.","reason":"forbidden"}"#;
        assert_eq!(
            answer(403, &[], body.as_bytes()).disappoints(true),
            Disappointment {
                outcome: CommandStatus::Refused,
                told: "403 (forbidden): Not yours.".to_owned(),
                problem: Some(body.to_owned()),
            }
        );
        for (body, told) in [
            (r#"{"title":"Gone"}"#, "410: Gone"),
            (r#"{"reason":"ended"}"#, "410 (ended): no details"),
            (r#"{"detail":"a\u001b[31mb\n"}"#, r"410: a\u{1b}[31mb\n"),
        ] {
            assert_eq!(
                answer(410, &[], body.as_bytes()).disappoints(true).told,
                told
            );
        }
    }

    #[test]
    fn the_status_decides_what_it_comes_to() {
        let problem = br#"{"reason":"x"}"#;
        for (status, with_problem, with_other) in [
            (200, CommandStatus::Outage, CommandStatus::Outage),
            (302, CommandStatus::Refused, CommandStatus::Refused),
            (400, CommandStatus::Usage, CommandStatus::Refused),
            (401, CommandStatus::Refused, CommandStatus::Refused),
            (404, CommandStatus::Refused, CommandStatus::Refused),
            (409, CommandStatus::Refused, CommandStatus::Refused),
            (429, CommandStatus::Refused, CommandStatus::Refused),
            (500, CommandStatus::Outage, CommandStatus::Outage),
            (503, CommandStatus::Outage, CommandStatus::Outage),
            (999, CommandStatus::Outage, CommandStatus::Outage),
        ] {
            let outcome = |body| answer(status, &[], body).disappoints(true).outcome;
            assert_eq!(
                (outcome(problem), outcome(b"<html>")),
                (with_problem, with_other),
                "{status}"
            );
        }
    }

    #[test]
    fn an_answer_of_another_server_is_reported_as_foreign() {
        let html = [("content-type", "text/html")];
        for (answer, told) in [
            (
                answer(502, &html, b"<html>"),
                "502 with text/html that streamgate did not send",
            ),
            (
                answer(502, &[], b"\xff"),
                "502 with something that streamgate did not send",
            ),
            (
                answer(404, &[], b"[1]"),
                "404 with something that streamgate did not send",
            ),
            (
                answer(404, &[], b"{\"detail\":1}"),
                "404 with something that streamgate did not send",
            ),
            (
                answer(404, &[], b"{}"),
                "404 with something that streamgate did not send",
            ),
            (
                answer(200, &[], b"{\"detail\":\"x\"}"),
                "200 with something that streamgate did not send",
            ),
            (
                answer(307, &[("location", "https://tv.example/login")], b""),
                "307: redirected to \"https://tv.example/login\", which is not followed",
            ),
        ] {
            let disappointment = answer.disappoints(true);
            assert!(disappointment.told.starts_with(told), "{disappointment:?}");
            assert_eq!(disappointment.problem, None);
        }
    }

    #[test]
    fn a_caller_without_a_token_learns_how_to_give_one() {
        let told = |has_token| {
            answer(401, &[], br#"{"detail":"Who asks?"}"#)
                .disappoints(has_token)
                .told
        };
        assert_eq!(told(true), "401: Who asks?");
        assert_eq!(
            told(false),
            "401: Who asks? (no token was sent: use --token-file or STREAMGATE_TOKEN)"
        );
    }

    #[test]
    fn an_answer_brings_its_time_along() {
        let date = [("date", "Fri, 15 Jan 2027 08:00:00 GMT")];
        assert_eq!(
            answer(200, &date, b"").given_at,
            Some(humantime::parse_rfc3339("2027-01-15T08:00:00Z").unwrap())
        );
        for date in ["", "yesterday"] {
            assert_eq!(answer(200, &[("date", date)], b"").given_at, None);
        }
    }
}
