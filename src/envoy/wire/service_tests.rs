//! A check is answered the same, however its call arrives: at once, or through tonic.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::{BoxError, Router};
use bytes::Bytes;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::service::Service;
use prost::Message;
use tonic::server::Grpc;
use tower::service_fn;

use super::service::{Arrived, CHECK, CheckCodec, Services};
use crate::envoy::check::tests::door;
use crate::envoy::tests::fixtures::Check;
use crate::store::faulty::FaultyStore;

/// A body that arrives in these pieces; between them it may have to be waited for.
#[derive(Clone)]
struct Pieces(VecDeque<Option<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.pop_front() {
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// A message with its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A call with that body.
fn call(pieces: &[Option<&[u8]>], encoding: Option<&'static str>) -> Request<Pieces> {
    let copied = |piece: &Option<&[u8]>| piece.map(Bytes::copy_from_slice);
    let mut call = Request::post(format!("http://streamgate{CHECK}"))
        .header("content-type", "application/grpc")
        .body(Pieces(pieces.iter().map(copied).collect()))
        .unwrap();
    if let Some(encoding) = encoding {
        let encoding = HeaderValue::from_static(encoding);
        call.headers_mut().insert("grpc-encoding", encoding);
    }
    call
}

/// All of an answer: its status and headers, its message and its trailers. Without a message there
/// is only a status of gRPC.
async fn whole<B>(answer: Response<B>) -> (String, Option<CheckResponse>)
where
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let rest = format!("{} {:?} {:?}", head.status, head.headers, body.trailers());
    let data = body.to_bytes();
    let message = data.split_first_chunk::<5>();
    let message = message.map(|(_, message)| CheckResponse::decode(message).unwrap());
    (rest, message)
}

#[tokio::test]
async fn a_check_is_answered_the_same_however_it_arrives() {
    let door = Arc::new(door(&FaultyStore::new()));
    let services = Services {
        checks: Arc::clone(&door),
        others: Router::new(),
    };
    let headers = [("x-user-id", "anna"), ("x-playback-session-id", "p1")];
    let check = Check::on("GET", "/live/1").headers(&headers);
    let good = framed(&check.message());
    let (begin, end) = good.split_at(20);
    let twice = [&good[..], &good].concat();
    let more = [&good[..], b"more"].concat();
    let compressed = [&[1], &good[1..]].concat();
    let too_long = [&[0, 0xff, 0xff, 0xff, 0xff][..], b"abc"].concat();
    let [broken, not_text] =
        [&b"\x0a\x05"[..], b"\x0a\x07\x22\x05\x12\x03\x12\x01\xff"].map(framed);
    let pass = framed(&Check::on("OPTIONS", "/").message());
    let nobody = framed(&Check::on("GET", "/").message());
    for (pieces, encoding, at_once) in [
        (&[Some(&good[..])][..], None, true),
        (&[Some(&pass)], None, true),
        (&[Some(&nobody)], None, true),
        (&[Some(&broken)], None, true),
        (&[Some(&not_text)], None, true),
        (&[Some(&framed(b""))], None, true),
        (&[None, Some(&good)], None, false),
        (&[Some(&good), None], None, false),
        (&[Some(begin), Some(end)], None, false),
        (&[Some(begin), None, Some(end), None], None, false),
        (&[Some(begin)], None, false),
        (&[], None, false),
        (&[None], None, false),
        (&[Some(b"\0\0")], None, false),
        (&[Some(&twice)], None, false),
        (&[Some(&more)], None, false),
        (&[Some(&compressed)], None, false),
        (&[Some(&too_long)], None, false),
        (&[Some(&good)], Some("gzip"), false),
        (&[Some(&good)], Some("identity"), false),
    ] {
        let case = format!("{pieces:?} {encoding:?}");
        let mut arriving = call(pieces, encoding);
        let arrived = Arrived::of(arriving.body_mut());
        let is_at_once = arrived.message(arriving.headers()).is_some();
        assert_eq!(is_at_once, at_once, "{case}");
        let Ok(answer) = services.call(call(pieces, encoding)).await;
        let check = service_fn(|request| door.check(request));
        let mut tonic = Grpc::new(CheckCodec);
        let expected = tonic.unary(check, call(pieces, encoding));
        assert_eq!(whole(answer).await, whole(expected.await).await, "{case}");
    }
}
