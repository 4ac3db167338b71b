//! How much memory each request takes; [`Peers`](super::peer::Peers) bounds the sum. A request's
//! headers and tasks count until it is answered. So does the largest of its gRPC messages, whose
//! buffer lives as long as the request, and at the HTTP port its whole body. Large data of an
//! answer counts until it has been written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::peer::{MemoryShare, Peer};

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

/// The body of a request. Its memory counts until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedBody {
    /// The body itself.
    body: Incoming,
    /// The progress of its messages.
    message: Message,
    /// The longest message that the gRPC port accepts; none at the HTTP port.
    max_message_bytes: Option<usize>,
    /// The memory that it takes.
    share: MemoryShare,
}

/// Data of an answer, counted until dropped: the connection keeps it as long as the client doesn't
/// read.
struct UnreadData {
    /// The data itself.
    data: Bytes,
    /// The memory it takes.
    _share: MemoryShare,
}

impl AsRef<[u8]> for UnreadData {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Counts a peer's request and its body; returns the memory it takes until it is answered.
///
/// `max_message_bytes`: the longest message that the gRPC port accepts. The HTTP port has no
/// messages, and counts the whole body.
pub(super) fn counted(
    peer: &Arc<Peer>,
    max_message_bytes: Option<usize>,
    request: Request<Incoming>,
) -> (Request<CountedBody>, MemoryShare) {
    let path = request.uri().path();
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len())
        .sum();
    let is_reflection = max_message_bytes.is_some() && path.starts_with(REFLECTION);
    let base = if is_reflection {
        REFLECTION_BYTES
    } else {
        REQUEST_BYTES
    };
    let share = peer.asks(base + path.len() + headers);
    let request = request.map(|body| CountedBody {
        body,
        message: Message::default(),
        max_message_bytes,
        share: peer.share(),
    });
    (request, share)
}

/// The body of an answer, with its request's memory, which is released when all of the body has
/// been handed to the connection. Large data of the answer counts until it has been written.
pub(super) fn answered<B>(body: B, share: MemoryShare) -> impl Body<Data = Bytes, Error = B::Error>
where
    B: Body<Data = Bytes>,
{
    body.map_frame(move |frame| {
        frame.map_data(|data| {
            if data.len() > SMALL_DATA {
                let share = share.of_unread(data.len());
                Bytes::from_owner(UnreadData {
                    data,
                    _share: share,
                })
            } else {
                data
            }
        })
    })
}

// === impl CountedBody ===

impl CountedBody {
    /// Counts data of the body.
    fn count(&mut self, data: &[u8]) {
        let Some(longest_read) = self.max_message_bytes else {
            return self.share.grow_by(data.len());
        };
        let longest = self.message.follow(data);
        // A message that is too long is refused before it is buffered; a small one is part of
        // REQUEST_BYTES.
        if longest > REQUEST_BYTES && longest <= longest_read {
            self.share.grow_to(longest);
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.count(data);
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Buf;

    use super::super::peer::Peers;
    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::metrics::Port;

    #[test]
    fn large_data_of_an_answer_counts_until_it_is_dropped() {
        let peers = Peers::new(Port::Grpc, Arc::new(Metrics::new()));
        let peer = peers.join();
        for (bytes, counted) in [(SMALL_DATA, 0), (SMALL_DATA + 1, SMALL_DATA + 1)] {
            let whole = axum::body::Body::from(vec![7; bytes]);
            let mut answer = answered(whole, peer.share());
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
