//! What calls answer beside what each is there for, as the OpenAPI document describes it: the problems, each described once, with what is
//! really told as its example, and which call may answer which.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::IntoResponses;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::examples;
use crate::config::Shown;
use crate::http::MAX_BODY_BYTES;
use crate::http::REQUEST_TIMEOUT;
use crate::http::error::{ApiError, Scheme};
use crate::http::layers::{MAX_ADDRESS_BYTES, MAX_HEADER_BYTES};
use crate::problem::{self, Problem};
use crate::session::{EndCause, Refusal};

/// By their statuses, or by their names.
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
    Internal,
    Outage,
}

/// Makes a group of answers that calls have in common.
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
    /// What any address may answer, whatever is asked.
    TooMuch: AddressTooLong, HeadersTooLarge
}
group! {
    /// What any call of the API may answer.
    Failures: BadRequest, Unauthorized, Forbidden, TooSlow, AddressTooLong, HeadersTooLarge, Outage
}
group! {
    /// What a call may answer that is about the instance itself.
    Inspected: BadRequest, Unauthorized, Forbidden, TooSlow, AddressTooLong, HeadersTooLarge
}
group! {
    /// What a call may answer that is done in a task of its own.
    Detached: Internal
}
group! {
    /// What a call may answer whose path names somebody.
    NoName: NoName
}
group! {
    /// What a call may answer that tells of the session which its path names.
    NoSession: NoSession
}
group! {
    /// What a call may answer that starts nothing.
    NotLive: NotLive
}
group! {
    /// What a call with a body may answer.
    BadBody: TooLarge, UnsupportedMediaType
}
group! {
    /// What a start may answer.
    Full: Full
}
group! {
    /// What a start or heartbeat of a session may answer that may have ended already.
    Ended: Ended
}
group! {
    /// The same for a video, which can be started again when it has been stopped.
    VideoEnded: VideoEnded
}
group! {
    /// What a call may answer that is to stop a session.
    NotStoppable: NotStoppable
}

/// What a release is answered.
pub(in crate::http) struct Done;

impl IntoResponses for Done {
    fn responses() -> Responses {
        let plain = |text: &str| RefOr::T(ResponseBuilder::new().description(text).build());
        [
            ("204", "It holds no slot any more."),
            (
                "202",
                "The store does not answer; it is done once that does.",
            ),
        ]
        .map(|(status, text)| (status.to_owned(), plain(text)))
        .into()
    }
}

/// All the answers that are problems, by the names by which calls refer to them.
pub(in crate::http) fn all() -> Responses {
    ProblemResponse::ALL
        .iter()
        .map(|answer| (answer.name(), RefOr::T(answer.described())))
        .collect()
}

impl ProblemResponse {
    const ALL: [Self; 17] = [
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
        Self::Internal,
        Self::Outage,
    ];

    /// What the document calls it.
    fn name(self) -> String {
        format!("{self:?}")
    }

    /// Its status, and where it is described.
    fn reference(self) -> (String, RefOr<Response>) {
        let statuses = self.told().into_iter().map(|(problem, _)| problem.status);
        let status = statuses.max().unwrap_or_default();
        let place = Ref::from_response_name(self.name());
        (status.to_string(), RefOr::Ref(place))
    }

    /// Its description: each reason in backticks with what it means, and as an example what is told.
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

    /// The headers that come with it; what they say is described by their names.
    const fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Unauthorized => &["www-authenticate"],
            Self::Full => &["retry-after", "ratelimit-policy", "ratelimit"],
            // `Ended` has it only if the id was started at Envoy and is derived.
            Self::Outage | Self::Ended => &["retry-after"],
            _ => &[],
        }
    }

    /// What is told, by each of its reasons, and what that means.
    fn told(self) -> Vec<(Problem, &'static str)> {
        match self.of_request() {
            Some((error, meaning)) => vec![(error.problem(), meaning)],
            None => self.of_session(),
        }
    }

    /// The same where it is about the request, or about the service.
    fn of_request(self) -> Option<(ApiError, &'static str)> {
        Some(match self {
            Self::BadRequest => (
                ApiError::BadRequest("The user is empty; it takes 1 to 256 bytes.".to_owned()),
                "the address, a header or the body is not what it should be, and `detail` says what and where",
            ),
            Self::Unauthorized => {
                let (scheme, shown) = (Scheme::Bearer, false);
                let error = ApiError::Unauthorized { scheme, shown };
                (error, "nobody knows who asks")
            }
            Self::Forbidden => (
                ApiError::Forbidden("You may act for one user alone, and this is another one."),
                "the caller may not (the user is another one, the token has another role, or, where no tokens are set, the request comes from a web page of another site)",
            ),
            Self::NoName => (
                ApiError::NotFound,
                "nothing is at this address (a name in it is empty)",
            ),
            Self::TooSlow => (
                ApiError::TooSlow(REQUEST_TIMEOUT),
                "the request did not arrive in time, and the connection ends",
            ),
            Self::AddressTooLong => (
                ApiError::AddressTooLong(MAX_ADDRESS_BYTES),
                "path and query have more than 8 KiB",
            ),
            Self::UnsupportedMediaType => {
                let (found, read_here) = ("text/csv".to_owned(), &["application/json"][..]);
                (
                    ApiError::UnsupportedMediaType { found, read_here },
                    "the body is called something that is not read here",
                )
            }
            Self::HeadersTooLarge => (
                ApiError::HeadersTooLarge(MAX_HEADER_BYTES),
                "all headers together have more than 16 KiB",
            ),
            Self::TooLarge => (
                ApiError::TooLarge(MAX_BODY_BYTES),
                "the body has more than 512 KiB",
            ),
            Self::Internal => (ApiError::Internal, "a bug"),
            Self::Outage => (
                examples::outage(),
                "the store of sessions does not answer, or has no room (try again)",
            ),
            _ => return None,
        })
    }

    /// The same where it is about a session.
    fn of_session(self) -> Vec<(Problem, &'static str)> {
        match self {
            Self::NotLive => vec![(ApiError::NotLive.problem(), "no such session is live")],
            Self::NoSession => [Self::NotLive, Self::NoName].map(Self::told).concat(),
            Self::NotStoppable => vec![(
                ApiError::NotStoppable.problem(),
                "the session to be stopped or taken over runs inside the gateway, and whoever asks can't vouch for its end",
            )],
            Self::Ended => {
                let ended = refused(&Refusal::Ended(EndCause::Released, None));
                let meaning = "this session has ended (start one with a new id)";
                [vec![(ended, meaning)], Self::VideoEnded.told()].concat()
            }
            Self::VideoEnded => {
                let by = examples::session().key;
                let displaced = refused(&Refusal::Ended(EndCause::Displaced { by }, None));
                let ended = refused(&Refusal::Ended(EndCause::Operator, None));
                vec![
                    (displaced, "another session has taken its slot"),
                    (ended, "an operator has ended it"),
                ]
            }
            Self::Full => vec![(
                refused(&examples::full()),
                "all slots are taken, by `sessions`, as far as `refusal.show` lets that be told",
            )],
            _ => Vec::new(),
        }
    }
}

/// What whoever is refused is told, as far as anything may be told.
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

    /// Told at the gateway alone, or of what the document does not describe call by call.
    const ELSEWHERE: [Reason; 5] = [
        Reason::NoUser,
        Reason::NoSession,
        Reason::Malformed,
        Reason::Misconfigured,
        Reason::MethodNotAllowed,
    ];

    #[test]
    fn each_answer_is_what_the_guide_to_problems_says_of_it() {
        for answer in ProblemResponse::ALL {
            for (problem, _) in answer.told() {
                let told = serde_json::to_value(&problem).unwrap();
                // For what was released waiting never helps.
                let is_released = problem.reason == Reason::Ended;
                assert_explained(&told, if is_released { &[] } else { answer.headers() });
            }
        }
        let problem = ApiError::MethodNotAllowed.problem();
        assert_explained(&serde_json::to_value(&problem).unwrap(), &["allow"]);
    }

    #[test]
    fn each_reason_that_a_call_can_tell_is_in_an_answer_with_its_status() {
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
