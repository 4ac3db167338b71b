//! The parts of a check, one by one, for the counts of instructions in `benches/checks`. Not part
//! of the library.

use axum::Router;
use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::service::Service;

use super::CheckDoor;
use super::wire::request::CheckRequest;
use super::wire::response::EncodedResponse;
use super::wire::service::Services;
use crate::identity::{SessionKey, UserId};

/// Answers calls as the gRPC port does, without a connection.
#[derive(Debug)]
pub struct Calls(Services);

impl Calls {
    /// Calls to that door.
    #[must_use]
    pub fn new(door: CheckDoor) -> Self {
        Self(Services::new(door, Router::new()))
    }

    /// Answers a check, whose message has the prefix of gRPC, to the end of the answer's body.
    /// Returns the answer's size in bytes; none if it must be waited for or can't be made.
    #[must_use]
    pub fn check(&self, message: Bytes) -> Option<usize> {
        let call = Request::post("/envoy.service.auth.v3.Authorization/Check");
        let call = call.body(Full::new(message)).ok()?;
        let answer = self.0.call(call).now_or_never()?.ok()?;
        let body = answer.into_body().collect().now_or_never()?.ok()?;
        Some(body.to_bytes().len())
    }
}

/// Decodes a check. Returns whether it is one of an HTTP request.
#[must_use]
pub fn read(message: &[u8]) -> bool {
    CheckRequest::read(message).is_ok_and(|request| request.http.is_some())
}

/// Encodes the answer that lets a stream through. Returns its size in bytes.
#[must_use]
pub fn write(user: &UserId, key: &SessionKey) -> usize {
    EncodedResponse::allow(user, key, None).message().len()
}
