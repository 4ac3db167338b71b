//! Answers the calls to the gRPC port.
//!
//! Checks, `envoy.service.auth.v3.Authorization/Check`, are nearly all of them, so they have a way
//! of their own: if a call has arrived completely, as Envoy's do, its message is decoded where it
//! lies, and a check that the lease cache answers is answered at once. Whatever is unusual about a
//! call goes through tonic, which knows all of the protocol, to the same door.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::body::Body as AnyBody;
use axum::{BoxError, Router};
use bytes::{Buf, BufMut, Bytes};
use futures_util::future::Either;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use hyper::service::Service;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::Grpc;
use tower::service_fn;

use super::response::{EncodedResponse, PREFIX_BYTES};
use crate::envoy::check::{CheckDoor, CheckStep};

/// The path of a check.
pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The initial size of tonic's buffers for a check and an answer; most need no more.
const BUFFER_BYTES: usize = 1024;

/// How much is buffered before it is sent; an answer is one message, and always shorter.
const YIELD_BYTES: usize = 32 * 1024;

/// All services of the gRPC port.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    /// Answers checks.
    pub(super) checks: Arc<CheckDoor>,
    /// Answers all other calls.
    pub(super) others: Router,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The answer to a check, with the prefix of gRPC.
    Check(Bytes),
    /// What follows it: the status.
    Trailers,
    /// Nothing more.
    Ended,
    /// Any other.
    Other(AnyBody),
}

/// An answer.
type Answered = Result<Response<Answer>, Infallible>;

/// An answer that may take a while.
type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

// === impl Services ===

impl Services {
    /// Checks are answered by that door, and all other calls by that router.
    pub(in crate::envoy) fn new(checks: CheckDoor, others: Router) -> Self {
        Self {
            checks: Arc::new(checks),
            others,
        }
    }

    /// Answers a check.
    fn check<B>(&self, mut call: Request<B>) -> Either<Ready<Answered>, Answering>
    where
        B: Body<Data = Bytes, Error: Into<BoxError> + Send + Unpin> + Send + Unpin + 'static,
    {
        let arrived = Arrived::of(call.body_mut());
        let Some(message) = arrived.message(call.headers()) else {
            let door = Arc::clone(&self.checks);
            let call = call.map(|body| ReadAhead { arrived, body });
            return Either::Right(Box::pin(async move {
                let check = service_fn(|request| door.check(request));
                let answer = Grpc::new(CheckCodec).unary(check, call).await;
                Ok(answer.map(|body| Answer::Other(AnyBody::new(body))))
            }));
        };
        match self.checks.begin(call.headers(), message) {
            Ok(CheckStep::Answered(answer)) => Either::Left(ready(Ok(answer.into()))),
            Ok(CheckStep::Start(start)) => {
                let door = Arc::clone(&self.checks);
                Either::Right(Box::pin(async move {
                    let answer = door.finish(*start).await;
                    Ok(answer.map_or_else(failed, Response::from))
                }))
            }
            Err(status) => Either::Left(ready(Ok(failed(status)))),
        }
    }
}

impl<B> Service<Request<B>> for Services
where
    B: Body<Data = Bytes, Error: Into<BoxError> + Send + Unpin> + Send + Unpin + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, Answering>;

    fn call(&self, call: Request<B>) -> Self::Future {
        if call.uri().path() == CHECK {
            return self.check(call);
        }
        let answer = tower::Service::call(&mut self.others.clone(), call);
        Either::Right(Box::pin(async move {
            answer.await.map(|answer| answer.map(Answer::Other))
        }))
    }
}

/// The answer to a call that has failed.
fn failed(status: Status) -> Response<Answer> {
    status.into_http().map(Answer::Other)
}

impl From<EncodedResponse> for Response<Answer> {
    fn from(response: EncodedResponse) -> Self {
        let mut answer = Self::new(Answer::Check(response.0));
        let media_type = HeaderValue::from_static("application/grpc");
        answer.headers_mut().insert(CONTENT_TYPE, media_type);
        answer
    }
}

// === impl Answer ===

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Check(message) => {
                let message = std::mem::take(message);
                *this = Self::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Trailers => {
                *this = Self::Ended;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Self::Ended => Poll::Ready(None),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Check(_) | Self::Trailers => false,
            Self::Ended => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Other(body) => body.size_hint(),
            // The length of a gRPC answer isn't announced.
            Self::Check(_) | Self::Trailers | Self::Ended => SizeHint::default(),
        }
    }
}

// === impl Arrived, ReadAhead ===

/// What has arrived of a body: its first data, and what comes after it as far as that is known.
pub(super) struct Arrived<E> {
    /// The first data.
    first: Option<Frame<Bytes>>,
    /// What comes after it.
    next: Poll<Option<Result<Frame<Bytes>, E>>>,
}

/// A body of which something has been read.
struct ReadAhead<B: Body> {
    /// What was read.
    arrived: Arrived<B::Error>,
    /// The rest.
    body: B,
}

impl<E> Arrived<E> {
    /// Reads what has arrived of a body, up to the end of its first data.
    pub(super) fn of<B: Body<Data = Bytes, Error = E> + Unpin>(body: &mut B) -> Self {
        // If there is more to come, tonic waits for it.
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = |body: &mut B| Pin::new(body).poll_frame(&mut cx);
        match poll(body) {
            Poll::Ready(Some(Ok(first))) if first.is_data() => Self {
                first: Some(first),
                next: if body.is_end_stream() {
                    Poll::Ready(None)
                } else {
                    poll(body)
                },
            },
            next => Self { first: None, next },
        }
    }

    /// The message, if it is the only one, is complete and not compressed, and nothing follows it.
    /// The client may be answered only then: HTTP/2 resets the stream of one that is still sending.
    pub(super) fn message(&self, headers: &HeaderMap) -> Option<&[u8]> {
        let data = self.first.as_ref()?.data_ref()?;
        let (prefix, message) = data.split_first_chunk::<PREFIX_BYTES>()?;
        let [0, length @ ..] = *prefix else {
            return None;
        };
        let is_whole = usize::try_from(u32::from_be_bytes(length)) == Ok(message.len());
        let is_end = matches!(self.next, Poll::Ready(None));
        (is_whole && is_end && !headers.contains_key("grpc-encoding")).then_some(message)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadAhead<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(first) = self.arrived.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match std::mem::replace(&mut self.arrived.next, Poll::Pending) {
            Poll::Pending => Pin::new(&mut self.body).poll_frame(cx),
            next @ Poll::Ready(_) => next,
        }
    }
}

// === impl CheckCodec ===

/// Leaves a check's message to the door, and takes the door's encoded answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = EncodedResponse;
    type Decode = Bytes;
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
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
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
        buffer.put_slice(answer.message());
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
