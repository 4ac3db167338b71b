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
        description = "Who watches what, and who may watch more: the count of streams that the gateway goes by, for everybody who is not behind it.\n\n\
            Errors are `application/problem+json` (RFC 9457) with a `reason`, a word that never changes. What is not described here is 404 `not_found`. \
            A method that an address does not know is 405 `method_not_allowed` with `Allow`; `OPTIONS` is 204 with `Allow`; `HEAD` is `GET` without the body.\n\n\
            Names (of users, sessions, videos, devices, contents, plans) are opaque: up to 256 bytes of UTF-8 without control characters, \
            percent-encoded in addresses. (A schema counts characters, so `maxLength` allows more than that for a name that is not ASCII. Many clients can't send \
            `.` and `..` as a part of a path.) A field of an answer that has no value is left out, and never `null`; in a request both say the same. Ignore fields that you \
            do not know; more may come.\n\n\
            On every address a request without exactly one `Host` is 400, and one that announces a body of more than 512 KiB is 413. Every answer bears `x-request-id`, the client's own (up to 128 visible ASCII characters) or one made here. A gateway that lets viewers through \
            says in `x-streamgate-user` who they are: then they may act for themselves alone.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "sessions", description = "Start, renew, see and release streams."),
        (name = "small", description = "The small API: a user's name, a video's id, four methods. One video on two devices counts once."),
        (name = "operator", description = "For whoever runs the service."),
        (name = "probes", description = "For load balancers, Prometheus and makers of clients."),
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
            "A token of `http.tokens_file`. Without such a file none is asked for.".to_owned(),
        );
        let mut user = Http::new(HttpAuthScheme::Basic);
        user.description = Some(
            "The user's name; the password is a token that is good for that user, or anything without a tokens file."
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
        (REQUEST_ID, "The client's own id of the request, or one made here.", true, text().min_length(Some(1)).max_length(Some(128)).build(), json!("000000000000000000000000000c0ffe")),
        ("location", "Where the session is; send its heartbeats there.", true, text().build(), json!("/v1/users/anna/sessions/00000000000000000000000000005eed")),
        ("link", "The next page; not there on the last one.", false, text().build(), json!("</v1/sessions?limit=100&cursor=7>; rel=\"next\"")),
        ("retry-after", "In how many seconds it is worth asking again; not there where no stream is allowed at all. With 410 only where the same id may start again after that long without a request.", false, seconds().build(), json!(10)),
        ("ratelimit-policy", "How many streams at once (draft-ietf-httpapi-ratelimit-headers).", true, text().build(), json!("\"streams\";q=3;qu=\"concurrent-requests\"")),
        ("ratelimit", "How many more may start now.", true, text().build(), json!("\"streams\";r=2")),
        ("www-authenticate", "How to say who asks: `Bearer`, or `Basic` for the small API.", true, text().build(), json!("Bearer realm=\"streamgate\"")),
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
    // A start or heartbeat without facts needs no body. A release needs one.
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && operation.operation_id.as_deref() != Some("release_hook")
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
