//! `/?id={video}`: the small API. A user's name and a video's id are enough to query, start, renew
//! and stop.
//!
//! Its sessions are of the kind `video`, and the id is the video's: one video on two devices counts
//! once, and may be watched again as soon as it has been stopped. A browser that opens `/` itself
//! is led to the [console].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use super::json::{TimeBody, WatchBody};
use super::layers::RequestId;
use super::release_hook::release_one;
use super::start_service::{self, Granted, detached, left};
use super::{console, front};
use crate::http::openapi::responses::{
    BadBody, Detached, Done, Failures, Full, NotLive, VideoEnded,
};
use crate::http::request::body;
use crate::http::request::caller::basic_user;
use crate::http::request::path::{escaped, named, only_parameter};
use crate::identity::{Claim, ContentId, Door, Facts, Kind, SessionId, SessionKey, UserId};
use crate::session::AdmissionKind;
use crate::store::Listing;

/// The query that names the video; [`OfVideo`] parses it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) struct VideoQuery {
    /// The video.
    #[param(
        example = "film-7",
        min_length = 1,
        max_length = 256,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"
    )]
    id: String,
}

/// A user, from HTTP Basic, and a video, from the URL.
#[derive(Debug)]
pub(super) struct OfVideo {
    /// The user.
    user: UserId,
    /// The video's id.
    id: SessionId,
}

impl FromRequestParts<ApiState> for OfVideo {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        // A browser without a query is not asked for a password.
        let id = only_parameter("id", parts.uri.query().unwrap_or_default())?;
        let user = basic_user(parts, door)?;
        let id = named("id", SessionId::parse(&id))?;
        Ok(Self { user, id })
    }
}

/// What a `GET` asks for.
#[derive(Debug)]
pub(super) enum VideoGet {
    /// A browser opens the address itself.
    Console,
    /// Whether a video may be watched.
    Video(OfVideo),
}

impl FromRequestParts<ApiState> for VideoGet {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &ApiState) -> Result<Self, ApiError> {
        if front::is_asked_for(parts) {
            return Ok(Self::Console);
        }
        let video = OfVideo::from_request_parts(parts, door).await;
        video.map(Self::Video)
    }
}

impl OfVideo {
    /// The session's key.
    fn key(&self) -> SessionKey {
        SessionKey {
            kind: Kind::Video,
            id: self.id.clone(),
        }
    }

    /// The claim.
    fn claim(self, position_seconds: Option<u32>) -> Claim {
        Claim {
            plan: None,
            key: self.key(),
            facts: Facts {
                // The content is the video itself.
                content: ContentId::parse(self.id.as_str()).ok(),
                door: Some(Door::Http),
                position_seconds,
                ..Facts::default()
            },
            takeover: None,
            message: None,
            derived: false,
            free: false,
            user: self.user,
        }
    }
}

/// Ask whether a video may be watched
///
/// A browser that asks for HTML, without a query, is led to `/console` instead.
#[utoipa::path(
    get,
    operation_id = "get_video",
    path = "/",
    tag = "small",
    params(VideoQuery),
    responses(
        (status = 200, description = "Whether it may, and where it is.", body = WatchBody),
        (status = 303, description = "A browser is led to the console."),
        Failures,
    ),
    security(("user" = [])),
)]
pub(super) async fn get(
    State(door): State<ApiState>,
    asked: VideoGet,
) -> Result<Response, ApiError> {
    let video = match asked {
        VideoGet::Console => return Ok(console::redirect()),
        VideoGet::Video(video) => video,
    };
    let listing = door.ledger.list(&video.user).await;
    let Listing {
        sessions,
        limit_override,
        ..
    } = listing.map_err(ApiError::Outage)?;
    let configured = door.ledger.limit_of(&video.user, None);
    let limit = limit_override.map_or(configured, |set| set.limit);
    let key = video.key();
    let is_live = sessions.iter().any(|session| session.key == key);
    let watch = WatchBody {
        can_watch: is_live || left(limit, sessions.len()) > 0,
        endpoint: endpoint(&door, &video.id),
        count: sessions.len(),
    };
    Ok(Json(watch).into_response())
}

/// Start a video
///
/// Also one that is live already, or has been stopped, so you can safely repeat it.
#[utoipa::path(
    post,
    operation_id = "start_video",
    path = "/",
    tag = "small",
    params(VideoQuery),
    request_body(content = TimeBody, content_type = "application/json", example = json!({"time": "1:00"})),
    responses(
        (status = 201, description = "It has started.", body = WatchBody, headers(("ratelimit-policy"), ("ratelimit"))),
        (status = 200, description = "It was live, and its lease has grown.", body = WatchBody, headers(("ratelimit-policy"), ("ratelimit"))),
        VideoEnded, Full, BadBody, Detached, Failures,
    ),
    security(("user" = [])),
)]
pub(super) async fn post(
    State(door): State<ApiState>,
    request: RequestId,
    video: OfVideo,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let claim = video.claim(position(&headers, body)?);
    let granted = start_service::start(&door, &request, claim).await?;
    Ok(watching(&door, &granted))
}

/// Renew a video
#[utoipa::path(
    patch,
    operation_id = "renew_video",
    path = "/",
    tag = "small",
    params(VideoQuery),
    request_body(content = TimeBody, content_type = "application/json", example = json!({"time": "1:00"})),
    responses(
        (status = 200, description = "Its lease has grown.", body = WatchBody, headers(("ratelimit-policy"), ("ratelimit"))),
        NotLive, VideoEnded, BadBody, Detached, Failures,
    ),
    security(("user" = [])),
)]
pub(super) async fn patch(
    State(door): State<ApiState>,
    request: RequestId,
    video: OfVideo,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let claim = video.claim(position(&headers, body)?);
    let granted = start_service::refresh(&door, &request, claim).await?;
    Ok(watching(&door, &granted))
}

/// Stop a video
#[utoipa::path(
    delete,
    operation_id = "release_video",
    path = "/",
    tag = "small",
    params(VideoQuery),
    responses(Done, Detached, Failures),
    security(("user" = [])),
)]
pub(super) async fn delete(
    State(door): State<ApiState>,
    video: OfVideo,
) -> Result<StatusCode, ApiError> {
    let releasing = Arc::clone(&door);
    let key = video.key();
    detached(&door, async move {
        release_one(&releasing, video.user, key).await
    })
    .await
}

/// Where in the video the viewer is, if the body says so.
fn position(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Option<u32>, ApiError> {
    let told: TimeBody = body::object_or_nothing(headers, body)?;
    told.seconds()
}

/// The response to a video that may continue.
fn watching(door: &ApiState, granted: &Granted) -> Response {
    let status = match granted.entry {
        AdmissionKind::Started => StatusCode::CREATED,
        AdmissionKind::Renewed => StatusCode::OK,
    };
    let body = WatchBody {
        can_watch: true,
        endpoint: endpoint(door, &granted.session.key.id),
        count: granted.active,
    };
    let mut response = (status, Json(body)).into_response();
    granted.tell_quota(&mut response);
    response
}

/// The video's address, from the configured template.
fn endpoint(door: &ApiState, id: &SessionId) -> Option<String> {
    let template = door.http.endpoint.as_ref()?;
    Some(template.of(&escaped(id.as_str()).to_string()))
}
