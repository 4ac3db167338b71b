//! `/v1/users/{user}/limit`: the limit that an operator sets for one user, above every configured
//! one.
//!
//! It is kept in the store beside the user's sessions, and always expires. It applies to starts
//! from then on: who is watching already continues.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use super::json::{UserLimitBody, WantedLimitBody};
use super::start_service::detached;
use crate::clock::Timestamp;
use crate::http::openapi::responses::{BadBody, Detached, Failures, NoName};
use crate::http::request::body;
use crate::http::request::path::{OfUser, OfUserOnPlan};
use crate::identity::{PlanName, UserId};
use crate::ledger::Ledger;
use crate::problem::rfc3339;
use crate::session::LimitOverride;

/// When an override is to expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// So long from now on.
    In(Duration),
    /// At that time.
    At(Timestamp),
}

/// See a user's limit
///
/// `source` says where the limit comes from: `override` (an operator has set it here), `user`
/// (`limits.users` or `limits.users_file`), `plan` or `default`. Only requests name a plan, so this
/// call considers one only if you name it.
#[utoipa::path(
    get,
    operation_id = "get_user_limit",
    path = "/v1/users/{user}/limit",
    tag = "operator",
    params(
        ("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"),
        ("plan" = inline(Option<String>), Query, example = "premium", description = "The user's plan; none by default.", max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"),
    ),
    responses((status = 200, description = "The limit in force.", body = UserLimitBody), NoName, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    OfUserOnPlan { caller, user, plan }: OfUserOnPlan,
) -> Result<Json<UserLimitBody>, ApiError> {
    caller.may_set_limits()?;
    let listing = door.ledger.list(&user).await.map_err(ApiError::Outage)?;
    let told = told(&door.ledger, &user, plan.as_ref(), listing.limit_override);
    Ok(Json(told))
}

/// Set a user's limit
///
/// It applies to every start from then on, above every configured limit; 0 refuses all starts. Who
/// is watching already continues. It expires after 30 days unless you say otherwise, and after 90
/// days at most. Setting it again replaces it.
#[utoipa::path(
    put,
    operation_id = "set_user_limit",
    path = "/v1/users/{user}/limit",
    tag = "operator",
    params(("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")),
    request_body(content = WantedLimitBody, content_type = "application/json", example = json!({"limit": 5, "expires_in_seconds": 86400})),
    responses(
        (status = 201, description = "The user had no such limit; now it is in force.", body = UserLimitBody),
        (status = 200, description = "It takes the place of an earlier one.", body = UserLimitBody),
        NoName, BadBody, Detached, Failures,
    ),
    security(("token" = []), ()),
)]
pub(super) async fn put(
    State(door): State<ApiState>,
    OfUser { caller, user }: OfUser,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    caller.may_set_limits()?;
    let wanted: WantedLimitBody = body::object_or_nothing(&headers, body)?;
    let (limit, expiry) = asked(&wanted)?;
    let ledger = Arc::clone(&door.ledger);
    detached(
        &door,
        async move { set(&ledger, &user, limit, expiry).await },
    )
    .await
}

/// Remove a user's limit
///
/// The configured limit applies again. You can safely repeat it.
#[utoipa::path(
    delete,
    operation_id = "remove_user_limit",
    path = "/v1/users/{user}/limit",
    tag = "operator",
    params(("user" = String, Path, example = "anna", description = "The user.", min_length = 1, max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")),
    responses((status = 204, description = "The user has no such limit any more."), NoName, Detached, Failures),
    security(("token" = []), ()),
)]
pub(super) async fn delete(
    State(door): State<ApiState>,
    OfUser { caller, user }: OfUser,
) -> Result<StatusCode, ApiError> {
    caller.may_set_limits()?;
    let ledger = Arc::clone(&door.ledger);
    detached(&door, async move {
        let removed = ledger.override_limit(&user, None).await;
        removed.map_err(ApiError::Outage)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// Sets the limit, by the store's clock.
async fn set(
    ledger: &Ledger,
    user: &UserId,
    limit: u32,
    expiry: Expiry,
) -> Result<Response, ApiError> {
    let now = ledger.list(user).await.map_err(ApiError::Outage)?.taken_at;
    let until = match expiry {
        Expiry::In(span) => now.after(span),
        Expiry::At(until) => check(until, now)?,
    };
    let set = LimitOverride { limit, until };
    let before = ledger.override_limit(user, Some(set)).await;
    let status = match before.map_err(ApiError::Outage)? {
        None => StatusCode::CREATED,
        Some(_) => StatusCode::OK,
    };
    Ok((status, Json(told(ledger, user, None, Some(set)))).into_response())
}

/// The limit that is in force, and where it comes from.
fn told(
    ledger: &Ledger,
    user: &UserId,
    plan: Option<&PlanName>,
    set: Option<LimitOverride>,
) -> UserLimitBody {
    let (configured, source) = ledger.configured_limit(user, plan);
    UserLimitBody {
        user: user.to_string(),
        limit: set.map_or(configured, |set| set.limit),
        source: set.map_or(source.as_str(), |_| "override"),
        expires_at: set.map(|set| rfc3339(set.until)),
        configured,
    }
}

/// The requested limit, and when it is to expire.
fn asked(wanted: &WantedLimitBody) -> Result<(u32, Expiry), ApiError> {
    let wrong = |text: String| Err(ApiError::BadRequest(text));
    let limit = match wanted.limit {
        Some(limit) if limit <= LimitOverride::MOST => limit,
        Some(limit) => {
            return wrong(format!(
                "The field \"limit\" is {limit}; it must be a whole number from 0 to {}.",
                LimitOverride::MOST
            ));
        }
        None => {
            return wrong(format!(
                "The field \"limit\" is missing; it must be a whole number from 0 to {}.",
                LimitOverride::MOST
            ));
        }
    };
    let longest = LimitOverride::LONGEST.as_secs();
    let expiry = match (&wanted.expires_at, wanted.expires_in_seconds) {
        (None, None) => Expiry::In(LimitOverride::DEFAULT),
        (None, Some(seconds)) if (1..=longest).contains(&seconds.into()) => {
            Expiry::In(Duration::from_secs(seconds.into()))
        }
        (None, Some(seconds)) => {
            return wrong(format!(
                "The field \"expires_in_seconds\" is {seconds}; it must be a whole number from 1 to {longest}, which is 90 days."
            ));
        }
        (Some(text), None) => Expiry::At(time(text)?),
        (Some(_), Some(_)) => {
            return wrong(
                "Both \"expires_at\" and \"expires_in_seconds\" are set; send one of them."
                    .to_owned(),
            );
        }
    };
    Ok((limit, expiry))
}

/// A time in RFC 3339.
fn time(text: &str) -> Result<Timestamp, ApiError> {
    let time = humantime::parse_rfc3339(text).ok();
    let since_1970 = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let millis = since_1970.and_then(|since| u64::try_from(since.as_millis()).ok());
    millis.map(Timestamp::from_millis).ok_or_else(|| {
        ApiError::BadRequest(format!(
            "The field \"expires_at\" is {text:?}; it must be a time in UTC, such as 2027-01-15T08:00:00Z."
        ))
    })
}

/// Checks that a limit may last until then.
fn check(until: Timestamp, now: Timestamp) -> Result<Timestamp, ApiError> {
    let latest = now.after(LimitOverride::LONGEST);
    if until > now && until <= latest {
        return Ok(until);
    }
    Err(ApiError::BadRequest(format!(
        "The field \"expires_at\" is {}; it must be later than now ({}) and at most 90 days ahead ({}).",
        rfc3339(until),
        rfc3339(now),
        rfc3339(latest)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(u32, Expiry), String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let wanted = body::object_or_nothing(&HeaderMap::new(), Ok(body));
        wanted
            .and_then(|wanted| asked(&wanted))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_limit_has_an_expiry_in_any_case() {
        let days = |days: u64| Expiry::In(Duration::from_secs(days * 86_400));
        for (body, expected) in [
            (r#"{"limit": 5}"#, (5, days(30))),
            (
                r#"{"limit": 0, "expires_in_seconds": 7776000}"#,
                (0, days(90)),
            ),
            (
                r#"{"limit": 1000, "expires_at": "2027-01-15T08:00:00Z"}"#,
                (1000, Expiry::At(Timestamp::from_millis(1_800_000_000_000))),
            ),
        ] {
            assert_eq!(read(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn a_bad_limit_says_what_is_wrong() {
        for (body, expected) in [
            ("", "\"limit\" is missing"),
            ("{}", "\"limit\" is missing"),
            (r#"{"limit": null}"#, "\"limit\" is missing"),
            (
                r#"{"limit": 1001}"#,
                "\"limit\" is 1001; it must be a whole number from 0 to 1000",
            ),
            (r#"{"limit": -1}"#, "\"limit\" is invalid: got -1"),
            (r#"{"limit": "5"}"#, "\"limit\" is invalid: got a string"),
            (r#"{"limit": 1.5}"#, "\"limit\" is invalid: got 1.5"),
            (
                r#"{"limit": 1, "expires_in_seconds": 0}"#,
                "is 0; it must be a whole number from 1",
            ),
            (
                r#"{"limit": 1, "expires_in_seconds": 7776001}"#,
                "from 1 to 7776000",
            ),
            (
                r#"{"limit": 1, "expires_at": "tomorrow"}"#,
                "\"tomorrow\"; it must be a time in UTC",
            ),
            (
                r#"{"limit": 1, "expires_at": "1969-01-15T08:00:00Z"}"#,
                "it must be a time in UTC",
            ),
            (
                r#"{"limit": 1, "expires_at": 5}"#,
                "\"expires_at\" is invalid",
            ),
            (
                r#"{"limit": 1, "expires_at": "2027-01-15T08:00:00Z", "expires_in_seconds": 5}"#,
                "send one of them",
            ),
            (r#"{"limit": 1, "until": 5}"#, "unknown field `until`"),
        ] {
            let told = read(body).unwrap_err();
            assert!(told.contains(expected), "{body} gave {told}");
        }
    }

    #[test]
    fn a_limit_expires_in_the_future_and_within_ninety_days() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let day = |days: u64| now.after(Duration::from_secs(days * 86_400));
        assert!(check(day(1), now).is_ok() && check(day(90), now).is_ok());
        for until in [now, day(91), Timestamp::from_millis(1)] {
            let told = check(until, now).unwrap_err().to_string();
            assert!(told.contains("at most 90 days ahead"), "{told}");
        }
    }
}
