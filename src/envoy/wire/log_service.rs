//! Accepts access log streams: the service `envoy.service.accesslog.v3.AccessLogService`, whose
//! messages reach the door as they arrived.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::{Status, body};
use tower::service_fn;

use super::service::CheckCodec;
use crate::envoy::access_log::{AccessLogDoor, MAX_MESSAGE_BYTES};

/// The path of its only call.
const STREAM_ACCESS_LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// The service.
#[derive(Debug, Clone)]
pub(in crate::envoy) struct AccessLogService(pub(in crate::envoy) AccessLogDoor);

impl NamedService for AccessLogService {
    const NAME: &'static str = "envoy.service.accesslog.v3.AccessLogService";
}

impl<B> tower::Service<Request<B>> for AccessLogService
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Response = Response<body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<B>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move {
            if call.uri().path() != STREAM_ACCESS_LOGS {
                return Ok(Status::unimplemented("no such call").into_http());
            }
            let mut grpc = Grpc::new(LogCodec).max_decoding_message_size(MAX_MESSAGE_BYTES);
            let receive = service_fn(|messages| door.receive(messages));
            Ok(grpc.client_streaming(receive, call).await)
        })
    }
}

/// Leaves the messages to the door, and answers with an empty one.
#[derive(Debug, Clone, Copy)]
struct LogCodec;

impl Codec for LogCodec {
    type Encode = ();
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = CheckCodec;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> CheckCodec {
        CheckCodec
    }
}

impl Encoder for LogCodec {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}
