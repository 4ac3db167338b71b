//! The problems among the answers, for the OpenAPI document: each is described once, with a real
//! answer as its example; and which call may give which answer.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::IntoResponses;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::examples;
use crate::config::Shown;
use crate::events::MAX_LISTENERS;
use crate::http::MAX_BODY_BYTES;
use crate::http::REQUEST_TIMEOUT;
use crate::http::error::{ApiError, Scheme};
use crate::http::layers::{MAX_ADDRESS_BYTES, MAX_HEADER_BYTES};
use crate::problem::{self, Problem};
use crate::session::{EndCause, Refusal};

/// Responses by status or by name.
type Responses = BTreeMap<String, RefOr<Response>>;

/// An answer that is a problem.
#[derive(Debug, Clone, Copy)]
enum ProblemResponse {
    BadRequest,
    Unauthorized,
    Forbidden,
    NoName,
    NoSession,
    NotLive,
    TooSlow,
    NotStoppable,
    Ended,
    VideoEnded,
    TooLarge,
    AddressTooLong,
    UnsupportedMediaType,
    Full,
    HeadersTooLarge,
    TooManyListeners,
    Internal,
    Outage,
}

/// Defines a group of answers that calls have in common.
macro_rules! group {
    ($(#[$meta:meta])* $group:ident: $($answer:ident),+) => {
        $(#[$meta])*
        pub(in crate::http) struct $group;

        impl IntoResponses for $group {
            fn responses() -> Responses {
                [$(ProblemResponse::$answer),+].map(ProblemResponse::reference).into()
            }
        }
    };
}

group! {
    /// Answers of any path, whatever is requested.
    TooMuch: AddressTooLong, HeadersTooLarge
}
group! {
    /// Answers of any call of the API.
    Failures: BadRequest, Unauthorized, Forbidden, TooSlow, AddressTooLong, HeadersTooLarge, Outage
}
group! {
    /// Answers of calls about the instance itself.
    Inspected: BadRequest, Unauthorized, Forbidden, TooSlow, AddressTooLong, HeadersTooLarge
}
group! {
    /// Answers of calls whose callers stay.
    TooManyListening: TooManyListeners
}
group! {
    /// Answers of calls that run in a task of their own.
    Detached: Internal
}
group! {
    /// Answers of calls whose path contains a name.
    NoName: NoName
}
group! {
    /// Answers of calls that read the session in their path.
    NoSession: NoSession
}
group! {
    /// Answers of calls that start nothing.
    NotLive: NotLive
}
group! {
    /// Answers of calls with a body.
    BadBody: TooLarge, UnsupportedMediaType
}
group! {
    /// Answers of starts.
    Full: Full
}
group! {
    /// Answers of starts or heartbeats of a session that may have ended already.
    Ended: Ended
}
group! {
    /// The same for a video, which can be started again after it was stopped.
    VideoEnded: VideoEnded
}
group! {
    /// Answers of calls that stop a session.
    NotStoppable: NotStoppable
}

/// The answers of releases.
pub(in crate::http) struct Done;

impl IntoResponses for Done {
    fn responses() -> Responses {
        let plain = |text: &str| RefOr::T(ResponseBuilder::new().description(text).build());
        [
            ("204", "It no longer holds a slot."),
            (
                "202",
                "The store doesn't answer; the release is done once it does.",
            ),
        ]
        .map(|(status, text)| (status.to_owned(), plain(text)))
        .into()
    }
}

/// All answers that are problems, by the names that calls refer to.
pub(in crate::http) fn all() -> Responses {
    ProblemResponse::ALL
        .iter()
        .map(|answer| (answer.name(), RefOr::T(answer.described())))
        .collect()
}

impl ProblemResponse {
    const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NoName,
        Self::NoSession,
        Self::NotLive,
        Self::TooSlow,
        Self::NotStoppable,
        Self::Ended,
        Self::VideoEnded,
        Self::TooLarge,
        Self::AddressTooLong,
        Self::UnsupportedMediaType,
        Self::Full,
        Self::HeadersTooLarge,
        Self::TooManyListeners,
        Self::Internal,
        Self::Outage,
    ];

    /// Its name in the document.
    fn name(self) -> String {
        format!("{self:?}")
    }

    /// Its status, and a reference to its description.
    fn reference(self) -> (String, RefOr<Response>) {
        let statuses = self.told().into_iter().map(|(problem, _)| problem.status);
        let status = statuses.max().unwrap_or_default();
        let place = Ref::from_response_name(self.name());
        (status.to_string(), RefOr::Ref(place))
    }

    /// Its description: each reason in backticks with its meaning, and a real answer as an example.
    fn described(self) -> Response {
        let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
        let mut meanings = Vec::new();
        for (problem, meaning) in self.told() {
            let word = problem.reason.as_str();
            meanings.push(format!("`{word}`: {meaning}"));
            let value = serde_json::to_value(&problem).ok();
            let example = ExampleBuilder::new().summary(problem.title).value(value);
            content = content.examples_from_iter([(word, example.build())]);
        }
        let mut response = ResponseBuilder::new()
            .description(format!("{}.", meanings.join("; ")))
            .content(problem::CONTENT_TYPE, content.build());
        for name in self.headers() {
            response = response.header(*name, utoipa::openapi::Header::default());
        }
        response.build()
    }

    /// Its headers; each is described under its name.
    const fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Unauthorized => &["www-authenticate"],
            Self::Full => &["retry-after", "ratelimit-policy", "ratelimit"],
            // `Ended` has it only if the id was started at Envoy and is derived.
            Self::Outage | Self::Ended | Self::TooManyListeners => &["retry-after"],
            _ => &[],
        }
    }

    /// The problem for each of its reasons, and what it means.
    fn told(self) -> Vec<(Problem, &'static str)> {
        match self.of_request() {
            Some((error, meaning)) => vec![(error.problem(), meaning)],
            None => self.of_session(),
        }
    }

    /// The same for answers about the request or the service.
    fn of_request(self) -> Option<(ApiError, &'static str)> {
        Some(match self {
            Self::BadRequest => (
                ApiError::BadRequest("The user is empty; it must have 1 to 256 bytes.".to_owned()),
                "the URL, a header or the body is invalid, and `detail` says what and where",
            ),
            Self::Unauthorized => {
                let (scheme, shown) = (Scheme::Bearer, false);
                let error = ApiError::Unauthorized { scheme, shown };
                (error, "the caller is not identified")
            }
            Self::Forbidden => (
                ApiError::Forbidden("You may act for only one user, and this is another one."),
                "the caller is not allowed (the user is another one, the token has another role, or, without tokens, the request comes from a web page of another site)",
            ),
            Self::NoName => (
                ApiError::NotFound,
                "nothing is at this path (a name in it is empty or unknown)",
            ),
            Self::TooSlow => (
                ApiError::TooSlow(REQUEST_TIMEOUT),
                "the request did not arrive in time, and the connection ends",
            ),
            Self::AddressTooLong => (
                ApiError::AddressTooLong(MAX_ADDRESS_BYTES),
                "path and query are longer than 8 KiB",
            ),
            Self::UnsupportedMediaType => {
                let (found, read_here) = ("text/csv".to_owned(), &["application/json"][..]);
                (
                    ApiError::UnsupportedMediaType { found, read_here },
                    "the body's media type is not accepted here",
                )
            }
            Self::HeadersTooLarge => (
                ApiError::HeadersTooLarge(MAX_HEADER_BYTES),
                "all headers together are larger than 16 KiB",
            ),
            Self::TooManyListeners => (
                ApiError::TooManyListeners(MAX_LISTENERS),
                "as many clients as possible listen to this instance",
            ),
            Self::TooLarge => (
                ApiError::TooLarge(MAX_BODY_BYTES),
                "the body is larger than 512 KiB",
            ),
            Self::Internal => (ApiError::Internal, "a bug"),
            Self::Outage => (
                examples::outage(),
                "the session store does not answer, or has no room (try again)",
            ),
            _ => return None,
        })
    }

    /// The same for answers about a session.
    fn of_session(self) -> Vec<(Problem, &'static str)> {
        match self {
            Self::NotLive => vec![(ApiError::NotLive.problem(), "no such session is live")],
            Self::NoSession => [Self::NotLive, Self::NoName].map(Self::told).concat(),
            Self::NotStoppable => vec![(
                ApiError::NotStoppable.problem(),
                "the session to be stopped or taken over runs inside the gateway, and the caller can't vouch for its end",
            )],
            Self::Ended => {
                let ended = refused(&Refusal::Ended(EndCause::Released, None, None));
                let meaning = "this session has ended (start one with a new id)";
                [vec![(ended, meaning)], Self::VideoEnded.told()].concat()
            }
            Self::VideoEnded => {
                let by = examples::session().key;
                let displaced = refused(&Refusal::Ended(EndCause::Displaced { by }, None, None));
                let ended = refused(&Refusal::Ended(EndCause::Operator, None, None));
                vec![
                    (displaced, "another session has taken its slot"),
                    (ended, "an operator has ended it"),
                ]
            }
            Self::Full => vec![(
                refused(&examples::full()),
                "all slots are taken, by `sessions` as far as `refusal.show` shows them",
            )],
            _ => Vec::new(),
        }
    }
}

/// The problem for a refusal, with everything that may be shown.
fn refused(refusal: &Refusal) -> Problem {
    let shown = BTreeSet::from([
        Shown::Session,
        Shown::Device,
        Shown::Content,
        Shown::StartedAt,
    ]);
    ApiError::refused(refusal, &shown).problem()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::problem::Reason;
    use crate::problem::guide::tests::assert_explained;

    /// Reasons used only at the gateway, or by answers that the document doesn't describe call by
    /// call.
    const ELSEWHERE: [Reason; 5] = [
        Reason::NoUser,
        Reason::NoSession,
        Reason::Malformed,
        Reason::Misconfigured,
        Reason::MethodNotAllowed,
    ];

    #[test]
    fn each_answer_matches_the_guide_to_problems() {
        for answer in ProblemResponse::ALL {
            for (problem, _) in answer.told() {
                let told = serde_json::to_value(&problem).unwrap();
                // After a release, waiting never helps.
                let is_released = problem.reason == Reason::Ended;
                assert_explained(&told, if is_released { &[] } else { answer.headers() });
            }
        }
        let problem = ApiError::MethodNotAllowed.problem();
        assert_explained(&serde_json::to_value(&problem).unwrap(), &["allow"]);
    }

    #[test]
    fn each_reason_of_a_call_is_documented_with_its_status() {
        let mut told = HashSet::from(ELSEWHERE);
        for answer in ProblemResponse::ALL {
            let (status, _) = answer.reference();
            let problems = answer.told();
            assert!(!problems.is_empty(), "{answer:?}");
            for (problem, _) in problems {
                assert_eq!(problem.status.to_string(), status, "{answer:?}");
                told.insert(problem.reason);
            }
        }
        assert_eq!(told, Reason::ALL.iter().copied().collect());
    }
}
