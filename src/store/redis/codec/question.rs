//! What a script is asked, packed.

use std::time::Duration;

use super::script;

/// The most streams one user can have: what a roster's head has room to count. A higher limit is as good as this one.
const MOST_SESSIONS: u16 = 65_000;

/// The arguments of a script: the session's key, and everything else it has to be told packed into one string, since arguments are what a
/// call costs. The key is an argument of its own because scripts use it as it is.
pub(in crate::store::redis) struct Question {
    /// The session's key, if one is asked about.
    pub(in crate::store::redis) key: Vec<u8>,
    /// All the rest.
    pub(in crate::store::redis) rest: Vec<u8>,
}

impl Question {
    /// Adds a time or a span in milliseconds, in six bytes; what does not fit becomes the most that does.
    pub(in crate::store::redis) fn millis(mut self, millis: u64) -> Self {
        let [_, _, bytes @ ..] = millis.min((1 << 48) - 1).to_be_bytes();
        self.rest.extend(bytes);
        self
    }

    /// Adds for how long a session is to count.
    pub(in crate::store::redis) fn lease(self, lease: Duration) -> Self {
        self.millis(script::millis(lease))
    }

    /// Adds a span that is shorter than a month, in four bytes.
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

    /// Adds bytes, behind their number.
    pub(in crate::store::redis) fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.rest.extend(length.to_be_bytes());
        self.rest.extend(bytes);
        self
    }
}
