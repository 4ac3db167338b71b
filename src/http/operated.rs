//! Tells the log, and operators who listen, what operators change: by their tokens' labels.

use std::borrow::Cow;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use percent_encoding::percent_decode_str;
use tracing::info;

use super::ApiState;
use super::layers::RequestId;
use crate::events::{Event, EventType};
use crate::http::request::caller::operator;
use crate::identity::UserId;

/// What an operator changes by a call; none if the call changes nothing, or is a stream's own.
fn change(method: &Method, path: &str) -> Option<&'static str> {
    match (method.as_str(), path) {
        ("DELETE", "/v1/users/{user}/sessions") => Some("ended all sessions"),
        ("DELETE", "/v1/users/{user}/sessions/{session}") => Some("released a session"),
        ("PUT", "/v1/users/{user}/limit") => Some("set a limit"),
        ("DELETE", "/v1/users/{user}/limit") => Some("removed a limit"),
        _ => None,
    }
}

/// The user and the session in a path.
fn named_in(path: &str) -> (Option<UserId>, Option<String>) {
    let decoded = |part: &str| {
        let text = percent_decode_str(part).decode_utf8().ok();
        text.map(Cow::into_owned)
    };
    let mut parts = path.split('/').skip(3);
    let user = parts.next().and_then(decoded);
    let session = parts.nth(1).and_then(decoded);
    (user.and_then(|user| UserId::parse(&user).ok()), session)
}

/// Tells of a call if it is an operator's and has changed something.
pub(super) async fn told(State(door): State<ApiState>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let Some(what) = change(request.method(), path.map_or("", MatchedPath::as_str)) else {
        return next.run(request).await;
    };
    let Some(operator) = operator(request.headers(), &door) else {
        return next.run(request).await;
    };
    let (user, session) = named_in(request.uri().path());
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    // Without tokens, nobody knows whether a viewer releases a session or an operator does.
    if session.is_some() && door.tokens.is_none() {
        return response;
    }
    if let (true, Some(user)) = (response.status().is_success(), user) {
        // A back end with an operator's token releases many sessions.
        if session.is_none() {
            info!(
                request.id = id.as_ref().map_or("", RequestId::as_str),
                operator.label = operator.label.as_deref(),
                user.id = user.as_str(),
                "an operator {what}"
            );
        }
        door.events.tell(None, || {
            [Event {
                user: Some(user.to_string()),
                session,
                by: operator.label.as_deref().map(str::to_owned),
                ..Event::saying(EventType::OperatorCall, what)
            }]
        });
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_user_and_session() {
        let user = |name| Some(UserId::parse(name).unwrap());
        let all = "/v1/users/a%2Fb%20c/sessions";
        assert_eq!(named_in(all), (user("a/b c"), None));
        let one = "/v1/users/anna/sessions/p%251";
        assert_eq!(named_in(one), (user("anna"), Some("p%1".to_owned())));
        assert_eq!(named_in("/v1/users/%ff/limit"), (None, None));
    }
}
