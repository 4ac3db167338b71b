//! The OpenAPI document, derived from the handlers; its head, and how it is served.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, OpenApi, RefOr, Required};
use utoipa::{Modify, OpenApi as _};

use crate::problem::Problem;

/// The head of the document.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "streamgate",
        description = "Who watches what, and who may watch more: the count of streams that the gateway goes by, for everybody who is not behind it.\n\n\
            Errors are `application/problem+json` (RFC 9457) with a `reason`, a word that never changes. A method that an address does not know is \
            405 `method_not_allowed` with `Allow`; `OPTIONS` is 204 with `Allow`. Names are opaque: up to 256 bytes of UTF-8 without control \
            characters, percent-encoded in addresses. Every answer bears `x-request-id`, the client's own or one made here. A gateway that lets viewers \
            through says in `x-streamgate-user` who they are: then they may act for themselves alone.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "sessions", description = "Start, renew, see and release streams."),
        (name = "small", description = "The small API: a user's name, a video's id, four methods. One video on two devices counts once."),
        (name = "operator", description = "For whoever runs the service."),
        (name = "probes", description = "For load balancers and Prometheus."),
    ),
    components(schemas(Problem)),
    modifiers(&Credentials),
)]
struct Head;

/// How clients say who they are.
struct Credentials;

impl Modify for Credentials {
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
        let schemes = ComponentsBuilder::from(openapi.components.take().unwrap_or_default())
            .security_scheme("token", SecurityScheme::Http(token))
            .security_scheme("user", SecurityScheme::Http(user));
        openapi.components = Some(schemes.build());
    }
}

/// The head, to which routes add themselves.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// The document as it is sent.
pub(super) fn as_json(mut document: OpenApi) -> String {
    for item in document.paths.paths.values_mut() {
        // Whoever has nothing to tell of a start or heartbeat sends no body. A release without one says nothing.
        for operation in [&mut item.put, &mut item.patch].into_iter().flatten() {
            make_body_optional(operation);
        }
        if let Some(operation) = &mut item.post
            && operation.operation_id.as_deref() != Some("release_sessions")
        {
            make_body_optional(operation);
        }
    }
    // Strings and maps of strings can always be written.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn make_body_optional(operation: &mut Operation) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::False);
    }
}

/// `GET /openapi.json`
pub(super) fn serve(document: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document)
}
