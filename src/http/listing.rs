//! `GET /v1/sessions`: all users' sessions, page by page, for an operator.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use super::json::{ListedBody, PageBody, SessionBody};
use crate::http::openapi::responses::Failures;
use crate::http::request::caller::Caller;
use crate::http::request::path::parameters;
use crate::store::{Cursor, CursorError, Page};

/// The default number of sessions on a page, approximately.
const DEFAULT_SIZE: usize = 100;

/// The largest page size.
const MAX_SIZE: usize = 1000;

/// See all users' sessions, page by page
///
/// Follow `next` (or the `Link` header) until there is none. You have then seen every session that
/// was live all the while, perhaps some of them twice. A page holds about `limit` sessions; it may
/// hold more, fewer, or none, because the cost of a page at the store is bounded.
#[utoipa::path(
    get,
    operation_id = "list_sessions",
    path = "/v1/sessions",
    tag = "operator",
    params(
        ("limit" = inline(Option<u16>), Query, example = 100, description = "Approximate number of sessions; 100 by default.", minimum = 1, maximum = 1000),
        ("cursor" = inline(Option<String>), Query, example = "0", description = "The previous page's `next`, unchanged; the first page by default."),
    ),
    responses(
        (status = 200, description = "A page.", body = PageBody, headers(("link"))),
        Failures,
    ),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may_see_all()?;
    let (from, size) = asked(uri.query().unwrap_or_default())?;
    let page = door.ledger.page(&from, size).await;
    Ok(told(&page.map_err(ApiError::Outage)?, size))
}

/// The requested page.
fn asked(query: &str) -> Result<(Cursor, usize), ApiError> {
    let (mut from, mut size) = (Cursor::default(), DEFAULT_SIZE);
    for (name, value) in parameters(query, &["limit", "cursor"])? {
        if name == "limit" {
            let number = value.parse().ok();
            size = number
                .filter(|number| (1..=MAX_SIZE).contains(number))
                .ok_or_else(|| {
                    ApiError::BadRequest(format!(
                        "The limit is {value:?}; it must be a whole number from 1 to {MAX_SIZE}."
                    ))
                })?;
        } else {
            from = value
                .parse()
                .map_err(|flaw: CursorError| ApiError::BadRequest(format!("The cursor {flaw}.")))?;
        }
    }
    Ok((from, size))
}

/// The response with a page.
fn told(page: &Page, size: usize) -> Response {
    let next = page.next.as_ref().map(ToString::to_string);
    let link = next
        .as_ref()
        .map(|next| format!("</v1/sessions?limit={size}&cursor={next}>; rel=\"next\""));
    let sessions = page.entries.iter().map(|(user, session)| ListedBody {
        user: user.to_string(),
        session: SessionBody::of(session),
    });
    let body = PageBody {
        sessions: sessions.collect(),
        next,
        may_miss: page.may_miss,
    };
    let mut response = Json(body).into_response();
    if let Some(Ok(link)) = link.map(|link| HeaderValue::from_str(&link)) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}
