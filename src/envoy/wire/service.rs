//! The gRPC service `envoy.service.auth.v3.Authorization`, as it would be generated, but for what it reads: [`CheckRequest`] is ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::SERVICE_NAME;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tower::Service;

use super::request::CheckRequest;
use super::response::EncodedResponse;
use crate::envoy::check::CheckDoor;

/// Where its only method is.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// How large the buffers are that each check and each answer is given before it is known how much it takes; most need no more.
const BUFFER_BYTES: usize = 1024;

/// How much is gathered before it is sent on; an answer is one message, and so always less.
const YIELD_BYTES: usize = 32 * 1024;

/// Serves checks.
#[derive(Debug, Clone)]
pub(in crate::envoy) struct CheckService(Arc<CheckDoor>);

/// Reads checks and writes answers.
#[derive(Debug, Clone, Copy, Default)]
struct CheckCodec;

impl CheckService {
    /// Checks are answered by that door.
    pub(in crate::envoy) fn new(door: CheckDoor) -> Self {
        Self(Arc::new(door))
    }
}

impl NamedService for CheckService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for CheckService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != CHECK {
            let unknown = Status::new(Code::Unimplemented, "");
            return std::future::ready(Ok(unknown.into_http())).boxed();
        }
        let service = self.clone();
        async move { Ok(Grpc::new(CheckCodec).unary(service, request).await) }.boxed()
    }
}

impl UnaryService<CheckRequest> for CheckService {
    type Response = EncodedResponse;
    type Future = BoxFuture<'static, Result<Response<EncodedResponse>, Status>>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        let door = Arc::clone(&self.0);
        async move { door.check(request).await }.boxed()
    }
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
        buffer.put_slice(answer.as_bytes());
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
