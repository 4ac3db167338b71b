//! Recognises, among the bytes that a connection sends, the HTTP/2 errors that h2 sends without
//! reporting them to us: it refuses a malformed request before any of our code sees it.

use crate::telemetry::metrics::Http2Error;

/// The length of a frame's header, and how many of its bytes hold the length of the payload.
const HEADER: usize = 9;

const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Follows the frames in one direction of a connection. Reads 9 bytes of each frame, and 8 more of
/// those that may report an error.
#[derive(Debug)]
pub(super) struct Frames {
    /// The beginning of the frame, up to the error code.
    head: [u8; HEADER + 8],
    /// How much of that has arrived.
    filled: usize,
    /// How much of that we need to read: the header, and then the error code if there is one.
    wanted: usize,
    /// How many bytes of the frame to skip.
    skip: usize,
    /// How the connection began.
    began: Began,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Began {
    #[default]
    NotYet,
    /// With settings, as in HTTP/2.
    Http2,
    /// In another way.
    Otherwise,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            head: Default::default(),
            filled: 0,
            wanted: HEADER,
            skip: 0,
            began: Began::default(),
        }
    }
}

impl Frames {
    /// Processes these bytes and reports each error in them.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Http2Error)) {
        while !bytes.is_empty() && self.began != Began::Otherwise {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let free = self.head.get_mut(self.filled..self.wanted);
            let free = free.unwrap_or_default();
            let taken = free.len().min(bytes.len());
            for (free, byte) in free.iter_mut().zip(bytes) {
                *free = *byte;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            self.filled += taken;
            if self.filled == self.wanted
                && let Some(error) = self.finish()
            {
                tell(error);
            }
        }
    }

    /// Called when the wanted bytes have arrived. Waits for the error code, if there is one, or
    /// continues with the next frame. Returns the error that the code means.
    fn finish(&mut self) -> Option<Http2Error> {
        let [
            high,
            middle,
            low,
            kind,
            _,
            _,
            _,
            _,
            _,
            first @ ..,
            a,
            b,
            c,
            d,
        ] = self.head;
        let payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let until_code = match kind {
            RST_STREAM => payload.min(4),
            GOAWAY => payload.min(8),
            _ => 0,
        };
        if self.filled < HEADER + until_code {
            self.wanted = HEADER + until_code;
            return None;
        }
        if self.began == Began::NotYet {
            self.began = match kind {
                SETTINGS => Began::Http2,
                _ => Began::Otherwise,
            };
        }
        self.skip = payload - until_code;
        (self.filled, self.wanted, self.head) = (0, HEADER, Default::default());
        match (
            kind,
            u32::from_be_bytes(first),
            u32::from_be_bytes([a, b, c, d]),
        ) {
            _ if self.began != Began::Http2 => None,
            (RST_STREAM, PROTOCOL_ERROR, _) => Some(Http2Error::ResetProtocol),
            (RST_STREAM, ENHANCE_YOUR_CALM, _) => Some(Http2Error::ResetCalm),
            (GOAWAY, _, PROTOCOL_ERROR) => Some(Http2Error::GoAwayProtocol),
            (GOAWAY, _, ENHANCE_YOUR_CALM) => Some(Http2Error::GoAwayCalm),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let header = [0, 0, length, kind, 0, 0, 0, 0, 1];
        [&header[..], payload].concat()
    }

    fn told(bytes: &[u8], at_one_time: usize) -> Vec<Http2Error> {
        let (mut frames, mut told) = (Frames::default(), Vec::new());
        for bytes in bytes.chunks(at_one_time) {
            frames.follow(bytes, |error| told.push(error));
        }
        told
    }

    #[test]
    fn errors_are_recognised_however_the_bytes_are_cut() {
        let sent = [
            frame(SETTINGS, &[3; 12]),
            // The payload of this frame looks like a reset.
            frame(0, &frame(RST_STREAM, &[0, 0, 0, 1])),
            frame(RST_STREAM, &[0, 0, 0, 1]),
            frame(RST_STREAM, &[0, 0, 0, 8]),
            frame(SETTINGS, &[]),
            frame(RST_STREAM, &[0, 0, 0, 11]),
            frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0]),
            frame(GOAWAY, &[[0, 0, 0, 9, 0, 0, 0, 11], [1; 8]].concat()),
            frame(GOAWAY, &[0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        let sent = sent.concat();
        for at_one_time in 1..=sent.len() {
            let expected = [
                Http2Error::ResetProtocol,
                Http2Error::ResetCalm,
                Http2Error::GoAwayCalm,
                Http2Error::GoAwayProtocol,
            ];
            assert_eq!(told(&sent, at_one_time), expected, "{at_one_time}");
        }
    }

    #[test]
    fn other_protocols_than_http_2_are_ignored() {
        let reset = frame(RST_STREAM, &[0, 0, 0, 1]);
        let sent = [b"HTTP/1.1 200 OK\r\n\r\n", &*reset].concat();
        for at_one_time in 1..=sent.len() {
            assert_eq!(told(&sent, at_one_time), []);
        }
    }

    #[test]
    fn frames_too_short_for_their_kind_end_nothing() {
        let sent = [
            frame(SETTINGS, &[]),
            frame(RST_STREAM, &[]),
            frame(GOAWAY, &[0, 0]),
            frame(RST_STREAM, &[0, 0, 0, 1]),
        ];
        assert_eq!(
            told(&sent.concat(), 7).last(),
            Some(&Http2Error::ResetProtocol)
        );
    }
}
