//! The OpenAPI document, derived from the handlers; its head, and how it is served.

mod examples;
pub(super) mod responses;

use std::collections::BTreeMap;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, OpenApi, PathItem, Ref, RefOr, Required, Response};
use utoipa::{Modify, OpenApi as _};

use crate::problem::Problem;
use responses::TooMuch;

/// The head of the document.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "streamgate",
        description = "Who watches what, and who may watch more: the gateway's count of streams, for clients that are not behind the gateway.\n\n\
            Errors are `application/problem+json` (RFC 9457) with a `reason`, a word that never changes. Any other path gives 404 `not_found`. A method that a path does not support gives 405 `method_not_allowed` with `Allow`; `OPTIONS` gives 204 with `Allow`; `HEAD` is `GET` without the body.\n\n\
            Names (of users, sessions, videos, devices, contents, plans) are opaque: up to 256 bytes of UTF-8 without control characters, \
            percent-encoded in URLs. (A schema counts characters, so `maxLength` allows more than that for a name that is not ASCII. Many clients can't send \
            `.` and `..` as a part of a path.) A field without a value is absent from an answer, and never `null`; in a request both mean the same. Ignore unknown fields; more may come.\n\n\
            On every path, a request without exactly one `Host` gives 400, and one that announces a body of more than 512 KiB gives 413. Every answer has `x-request-id`, the client's own (up to 128 visible ASCII characters) or a new one. A gateway that lets viewers through names them in `x-streamgate-user`; they may then act only for themselves.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "sessions", description = "Start, renew, see and release streams."),
        (name = "small", description = "The small API: a user's name, a video's id, four methods. One video on two devices counts once."),
        (name = "operator", description = "For operators of the service."),
        (name = "probes", description = "For load balancers, Prometheus and developers of clients."),
    ),
    components(schemas(Problem)),
    modifiers(&Components),
)]
struct Head;

/// The components that many calls refer to.
struct Components;

impl Modify for Components {
    fn modify(&self, openapi: &mut OpenApi) {
        let mut token = Http::new(HttpAuthScheme::Bearer);
        token.description = Some(
            "A token from `http.tokens_file`. Without such a file no token is needed.".to_owned(),
        );
        let mut user = Http::new(HttpAuthScheme::Basic);
        user.description = Some(
            "The user's name; the password is a token that is valid for that user, or anything without a tokens file."
                .to_owned(),
        );
        let components = openapi.components.take().unwrap_or_default();
        let mut components = ComponentsBuilder::from(components)
            .security_scheme("token", SecurityScheme::Http(token))
            .security_scheme("user", SecurityScheme::Http(user))
            .build();
        components.responses = responses::all();
        components.headers = headers();
        openapi.components = Some(components);
    }
}

/// The header that every answer has.
const REQUEST_ID: &str = "x-request-id";

/// The headers of answers, by name.
fn headers() -> BTreeMap<String, RefOr<Header>> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let seconds = || {
        let whole = ObjectBuilder::new().schema_type(Type::Integer);
        whole.minimum(Some(1))
    };
    [
        (REQUEST_ID, "The request's id, from the client or a new one.", true, text().min_length(Some(1)).max_length(Some(128)).build(), json!("000000000000000000000000000c0ffe")),
        ("location", "The session's URL; send its heartbeats there.", true, text().build(), json!("/v1/users/anna/sessions/00000000000000000000000000005eed")),
        ("link", "The next page; absent on the last one.", false, text().build(), json!("</v1/sessions?limit=100&cursor=7>; rel=\"next\"")),
        ("retry-after", "How many seconds to wait before a retry; absent if no stream is allowed at all. With 410 only if the same id may start again after that long without a request.", false, seconds().build(), json!(10)),
        ("ratelimit-policy", "The limit of concurrent streams (draft-ietf-httpapi-ratelimit-headers).", true, text().build(), json!("\"streams\";q=3;qu=\"concurrent-requests\"")),
        ("ratelimit", "How many more streams may start now.", true, text().build(), json!("\"streams\";r=2")),
        ("www-authenticate", "How to authenticate: `Bearer`, or `Basic` for the small API.", true, text().build(), json!("Bearer realm=\"streamgate\"")),
    ]
    .map(|(name, description, required, schema, example)| {
        (name.to_owned(), RefOr::T(header_of(description, required, schema, example)))
    })
    .into()
}

fn header_of(
    description: &str,
    required: bool,
    schema: Object,
    example: serde_json::Value,
) -> Header {
    let mut header = HeaderBuilder::new()
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(example))
        .build();
    // utoipa doesn't know that headers may be required, but it writes extensions verbatim.
    header.extensions = required.then(|| Extensions::from_iter([("required", required)]));
    header
}

/// The head, to which routes add themselves.
pub(in crate::http) fn head() -> OpenApi {
    Head::openapi()
}

/// The document as JSON.
pub(in crate::http) fn as_json(mut document: OpenApi) -> String {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation);
        }
    }
    if let Some(components) = &mut document.components {
        components.responses.values_mut().for_each(refer_to_headers);
    }
    // Serializing strings and maps of strings can't fail.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ];
    all.into_iter().flatten()
}

/// Adds to an operation what its attributes can't express.
fn complete(operation: &mut Operation) {
    // A start or heartbeat without facts needs no body. A release and a limit need one.
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && !matches!(
            operation.operation_id.as_deref(),
            Some("release_hook" | "set_user_limit")
        )
    {
        body.required = Some(Required::False);
    }
    let responses = operation.responses.responses.values_mut();
    responses.for_each(refer_to_headers);
}

/// Replaces headers by references: attributes only name them, and their descriptions are the same
/// everywhere.
fn refer_to_headers(response: &mut RefOr<Response>) {
    if let RefOr::T(response) = response {
        let named = response.headers.keys().map(String::as_str);
        let all: Vec<String> = named.chain([REQUEST_ID]).map(str::to_owned).collect();
        let place = |name: &String| RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
        response.headers = all
            .into_iter()
            .map(|name| (name.clone(), place(&name)))
            .collect();
    }
}

/// See this document
#[utoipa::path(
    get,
    operation_id = "openapi",
    path = "/openapi.json",
    tag = "probes",
    responses((status = 200, description = "The document.", body = serde_json::Value, content_type = "application/json"), TooMuch),
)]
pub(in crate::http) async fn serve() -> impl IntoResponse {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, super::document())
}
