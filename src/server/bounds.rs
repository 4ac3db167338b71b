//! How much memory each request takes; [`Peers`](super::peer::Peers) bounds the sum. A request's
//! headers and tasks count until it is answered. So does the largest of its gRPC messages, whose
//! buffer lives as long as the request, and at the HTTP port its whole body. Large data of an
//! answer counts until it has been written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::peer::{MemoryShare, Peer};
use crate::telemetry::metrics::Port;

/// What a request takes in addition to its headers and messages: its stream, its tasks, their
/// buffers, and a small message.
const REQUEST_BYTES: usize = 4 * 1024;

/// What a header takes in addition to its text: its entry in the table of headers.
const HEADER_BYTES: usize = 128;

/// The amount of an answer's data that isn't counted, because it is part of the request's cost.
const SMALL_DATA: usize = 1024;

/// What a call of the reflection services takes: its answers are large, and only people read them.
const REFLECTION_BYTES: usize = 1024 * 1024;

/// The path prefix of the reflection services.
const REFLECTION: &str = "/grpc.reflection.";

/// The length of the prefix of each gRPC message: one byte of flags and four for the length.
const PREFIX: usize = 5;

/// The body of a request.
#[derive(Debug)]
pub(super) struct Asked {
    /// The body itself.
    body: Incoming,
    /// The memory it takes.
    share: MemoryShare,
    /// The incoming message, at the gRPC port.
    message: Option<Message>,
    /// The longest message that is accepted.
    max_message_bytes: usize,
}

/// The body of an answer, with its request's memory.
#[derive(Debug)]
pub(super) struct Answer<B> {
    /// The body itself.
    body: B,
    /// Released when all of the body has been handed to the connection.
    share: MemoryShare,
}

/// Data of an answer, counted until dropped: the connection keeps it as long as the client doesn't
/// read.
#[derive(Debug)]
pub(super) struct Counted<D> {
    /// The data itself.
    data: D,
    /// The memory it takes, unless it is small.
    _share: Option<MemoryShare>,
}

/// The progress of the messages in a body.
#[derive(Debug, Default)]
struct Message {
    /// The prefix of the next message.
    prefix: [u8; PREFIX],
    /// How much of the prefix has arrived.
    filled: usize,
    /// How many bytes of the current message are missing.
    missing: usize,
}

/// Counts a peer's request and its body; returns the memory it takes until it is answered.
///
/// `max_message_bytes`: the longest message that the gRPC port accepts.
pub(super) fn counted(
    peer: &Arc<Peer>,
    max_message_bytes: usize,
    request: Request<Incoming>,
) -> (Request<Asked>, MemoryShare) {
    let path = request.uri().path();
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len())
        .sum();
    let is_reflection = peer.port() == Port::Grpc && path.starts_with(REFLECTION);
    let base = if is_reflection {
        REFLECTION_BYTES
    } else {
        REQUEST_BYTES
    };
    let share = peer.asks(base + path.len() + headers);
    let request = request.map(|body| Asked {
        body,
        share: peer.share(),
        message: (peer.port() == Port::Grpc).then(Message::default),
        max_message_bytes,
    });
    (request, share)
}

// === impl Message ===

impl Message {
    /// Processes these bytes; returns the length of the longest message that begins in them.
    fn follow(&mut self, mut bytes: &[u8]) -> usize {
        let mut longest = 0;
        loop {
            let skipped = self.missing.min(bytes.len());
            self.missing -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let free = self.prefix.get_mut(self.filled..).unwrap_or_default();
            for (free, byte) in free.iter_mut().zip(bytes) {
                *free = *byte;
            }
            let taken = free.len().min(bytes.len());
            bytes = bytes.get(taken..).unwrap_or_default();
            self.filled += taken;
            if self.filled < PREFIX || self.missing > 0 {
                return longest;
            }
            let [_, length @ ..] = self.prefix;
            self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.filled = 0;
            longest = longest.max(self.missing);
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Counts these incoming bytes.
    fn count(&mut self, bytes: &[u8]) {
        let Some(message) = &mut self.message else {
            return self.share.grow_by(bytes.len());
        };
        let longest = message.follow(bytes);
        // A message that is too long is refused before it is buffered; a small one is part of
        // REQUEST_BYTES.
        if longest > REQUEST_BYTES && longest <= self.max_message_bytes {
            self.share.grow_to(longest);
        }
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            this.count(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Answer ===

impl<B> Answer<B> {
    /// An answer to a request that takes that share.
    pub(super) fn new(body: B, share: MemoryShare) -> Self {
        Self { body, share }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = Counted<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Counted<B::Data>>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let counted = |data: B::Data| {
            let bytes = data.remaining();
            let share = (bytes > SMALL_DATA).then(|| this.share.of_unread(bytes));
            Counted {
                data,
                _share: share,
            }
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Counted ===

impl<D: Buf> Buf for Counted<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.data.copy_to_bytes(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Peers;
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn large_data_of_an_answer_counts_until_it_is_dropped() {
        let peers = Peers::new(Port::Grpc, Arc::new(Metrics::new().unwrap()));
        let peer = peers.join();
        for (bytes, counted) in [(SMALL_DATA, 0), (SMALL_DATA + 1, SMALL_DATA + 1)] {
            let whole = axum::body::Body::from(vec![7; bytes]);
            let mut answer = Answer::new(whole, peer.share());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut answer).poll_frame(&mut cx) else {
                panic!("a frame")
            };
            drop(answer);
            let mut data = frame.into_data().unwrap();
            assert_eq!(peer.taken(), counted, "handed over, and not written yet");
            assert_eq!((data.remaining(), data.get_u8()), (bytes, 7));
            drop(data);
            assert_eq!(peer.taken(), 0);
        }
    }

    #[test]
    fn a_message_is_known_by_its_prefix_however_the_bytes_are_cut() {
        let of = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
        let sent = [
            of(7),
            vec![9; 7],
            of(0),
            of(300),
            vec![9; 300],
            of(2),
            vec![9; 2],
        ]
        .concat();
        for at_one_time in 1..=sent.len() {
            let mut message = Message::default();
            let begun: Vec<usize> = sent
                .chunks(at_one_time)
                .map(|bytes| message.follow(bytes))
                .collect();
            assert_eq!(begun.iter().max(), Some(&300), "{at_one_time}");
            assert_eq!((message.missing, message.filled), (0, 0), "{at_one_time}");
        }
        let mut message = Message::default();
        assert_eq!(message.follow(&of(16 << 20)), 16 << 20);
        assert_eq!(message.follow(&[9; 100]), 0);
        assert_eq!(message.missing, (16 << 20) - 100);
    }
}
