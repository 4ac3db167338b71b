//! A script's question, packed.

use std::time::Duration;

use super::script;

/// The highest limit that fits in a roster's head. Higher limits are treated as this one.
const MOST_SESSIONS: u16 = 65_000;

/// The arguments of a script. The session's key is an argument of its own because scripts use it
/// unchanged; everything else is packed into one string, because each argument adds to the cost of
/// a call.
pub(in crate::store::redis) struct Question {
    /// The session's key, if the question is about one.
    pub(in crate::store::redis) key: Vec<u8>,
    /// Everything else.
    pub(in crate::store::redis) rest: Vec<u8>,
}

impl Question {
    /// Adds a time or a span in milliseconds, in six bytes; larger values are capped.
    pub(in crate::store::redis) fn millis(mut self, millis: u64) -> Self {
        let [_, _, bytes @ ..] = millis.min((1 << 48) - 1).to_be_bytes();
        self.rest.extend(bytes);
        self
    }

    /// Adds the requested lease.
    pub(in crate::store::redis) fn lease(self, lease: Duration) -> Self {
        self.millis(script::millis(lease))
    }

    /// Adds a span of less than a month, in four bytes.
    pub(in crate::store::redis) fn short_span(mut self, span: Duration) -> Self {
        let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        self.rest.extend(millis.to_be_bytes());
        self
    }

    /// Adds a number of sessions.
    pub(in crate::store::redis) fn count(mut self, count: u32) -> Self {
        let count = u16::try_from(count).unwrap_or(u16::MAX).min(MOST_SESSIONS);
        self.rest.extend(count.to_be_bytes());
        self
    }

    /// Adds one byte.
    pub(in crate::store::redis) fn byte(mut self, byte: u8) -> Self {
        self.rest.push(byte);
        self
    }

    /// Adds bytes, preceded by their number.
    pub(in crate::store::redis) fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.rest.extend(length.to_be_bytes());
        self.rest.extend(bytes);
        self
    }
}
