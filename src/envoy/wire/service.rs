//! The gRPC service `envoy.service.auth.v3.Authorization`. It decodes our own [`CheckRequest`], not
//! the generated one.

use std::sync::Arc;

use axum::body::Body;
use axum::routing::{MethodRouter, any};
use bytes::{Buf, BufMut};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tower::service_fn;

use super::request::CheckRequest;
use super::response::EncodedResponse;
use crate::envoy::check::CheckDoor;

/// The path of its only method.
pub(in crate::envoy) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The initial size of the buffers for each check and each answer; most need no more.
const BUFFER_BYTES: usize = 1024;

/// How much is buffered before it is sent; an answer is one message, and always shorter.
const YIELD_BYTES: usize = 32 * 1024;

/// Decodes checks and encodes answers.
#[derive(Debug, Clone, Copy, Default)]
struct CheckCodec;

/// A route for [`CHECK`] whose calls that door answers.
pub(in crate::envoy) fn checks(door: CheckDoor) -> MethodRouter {
    let door = Arc::new(door);
    any(move |call: http::Request<Body>| {
        let door = Arc::clone(&door);
        async move {
            let check = service_fn(|request| door.check(request));
            Grpc::new(CheckCodec).unary(check, call).await
        }
    })
}

impl Codec for CheckCodec {
    type Encode = EncodedResponse;
    type Decode = CheckRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for CheckCodec {
    type Item = CheckRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<CheckRequest>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        let read = CheckRequest::read(message).map(Some);
        read.map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Encoder for CheckCodec {
    type Item = EncodedResponse;
    type Error = Status;

    fn encode(
        &mut self,
        answer: EncodedResponse,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        buffer.put_slice(&answer.0);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
