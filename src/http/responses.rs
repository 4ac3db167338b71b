//! What calls answer beside what each is there for, as the OpenAPI document describes it: the problems, group by group.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

use crate::problem;

/// By their statuses.
type Responses = BTreeMap<String, RefOr<Response>>;

/// What any call may answer.
pub(super) struct Failures;

/// What a call with a body may answer too.
pub(super) struct BadBody;

/// Why a start or heartbeat may be refused.
pub(super) struct NotStarted;

/// Why a release may be refused.
pub(super) struct CannotStop;

/// What a release is answered.
pub(super) struct Done;

impl IntoResponses for Failures {
    fn responses() -> Responses {
        problems(&[
            (
                400,
                "`bad_request`: the address or the body is not what it should be; `detail` says what and where.",
                &[],
            ),
            (
                401,
                "`unauthorized`: nobody knows who asks.",
                &["www-authenticate"],
            ),
            (
                403,
                "`forbidden`: whoever asks may not; the token is another user's, or of another role.",
                &[],
            ),
            (
                404,
                "`not_live`: no such session is live; `not_found`: nothing is at this address.",
                &[],
            ),
            (408, "`too_slow`: the request did not arrive in time.", &[]),
            (414, "`address_too_long`", &[]),
            (431, "`headers_too_large`", &[]),
            (500, "`internal`: a bug.", &[]),
            (
                503,
                "`outage`: the store of sessions does not answer.",
                &["retry-after"],
            ),
        ])
    }
}

impl IntoResponses for BadBody {
    fn responses() -> Responses {
        problems(&[
            (413, "`too_large`: the body has more than 512 KiB.", &[]),
            (
                415,
                "`unsupported_media_type`: the body is called something that is not read here.",
                &[],
            ),
        ])
    }
}

impl IntoResponses for NotStarted {
    fn responses() -> Responses {
        problems(&[
            (
                409,
                "`not_stoppable`: what was to be taken over runs inside the gateway.",
                &[],
            ),
            (
                410,
                "`ended`, `displaced` or `operator`: this session has ended, for that reason; start one with a new id.",
                &[],
            ),
            (
                429,
                "`full`: all slots are taken, by `sessions`.",
                &["retry-after", "ratelimit-policy", "ratelimit"],
            ),
        ])
    }
}

impl IntoResponses for CannotStop {
    fn responses() -> Responses {
        problems(&[(
            409,
            "`not_stoppable`: it runs inside the gateway, and whoever asks can't vouch for its end.",
            &[],
        )])
    }
}

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

/// Statuses, what they mean, and the headers that come with them.
fn problems(each: &[(u16, &str, &[&str])]) -> Responses {
    let described = each.iter().map(|(status, meaning, headers)| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let mut response = ResponseBuilder::new()
            .description(*meaning)
            .content(problem::CONTENT_TYPE, content);
        for name in *headers {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            response = response.header(*name, HeaderBuilder::new().schema(Some(text)).build());
        }
        (status.to_string(), RefOr::T(response.build()))
    });
    described.collect()
}
