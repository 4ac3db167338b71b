//! The key of a session within its user: its kind and its id.

use std::fmt;

use super::id::{IdError, SessionId};

/// What we consider a stream to be. It is part of a session's key, so that a name in one kind is
/// never a name in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One HTTP request through Envoy *is* the stream. It runs inside Envoy and can't be stopped
    /// from here.
    Request,
    /// Many requests, or an API client's heartbeats, make one playback.
    Playback,
    /// A video of the small API; the id is the video's.
    Video,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Request, Self::Playback, Self::Video];

    /// The kind's name on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Playback => "playback",
            Self::Video => "video",
        }
    }

    /// The kind with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether a session of this kind can be ended against its viewer's will. A displaced playback
    /// is refused at its next request; a `request` continues inside Envoy in any case.
    #[must_use]
    pub const fn is_stoppable(self) -> bool {
        match self {
            Self::Request => false,
            Self::Playback | Self::Video => true,
        }
    }

    /// Whether an end of this kind leaves a tombstone that keeps its id from being used again. A
    /// video's doesn't: its id is the film's, and may be watched again immediately. If it was
    /// displaced or an operator ended it, it is refused with that reason, but may start again if
    /// there is a free slot.
    #[must_use]
    pub const fn leaves_tombstone(self) -> bool {
        match self {
            Self::Request | Self::Playback => true,
            Self::Video => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key of a session within its user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The kind of stream.
    pub kind: Kind,
    /// Its id within that kind.
    pub id: SessionId,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// Whose slot a start asks for if all are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takeover {
    /// The slot of the session that started first, among those that can be stopped from here.
    Oldest,
    /// The slot of the session with this id.
    Session(SessionId),
}

impl Takeover {
    /// The word for [`Self::Oldest`] at every door; a session with that id can't be taken over.
    const OLDEST: &str = "oldest";

    /// A session by its id, or `oldest`.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text == Self::OLDEST {
            return Ok(Self::Oldest);
        }
        SessionId::parse(text).map(Self::Session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::key;

    #[test]
    fn each_kind_has_its_name_and_properties() {
        for (kind, name, is_stoppable, leaves_tombstone) in [
            (Kind::Request, "request", false, true),
            (Kind::Playback, "playback", true, true),
            (Kind::Video, "video", true, false),
        ] {
            assert!(Kind::ALL.contains(&kind));
            assert_eq!((kind.as_str(), kind.to_string().as_str()), (name, name));
            assert_eq!(Kind::from_name(name), Some(kind));
            assert_eq!(kind.is_stoppable(), is_stoppable, "{name}");
            assert_eq!(kind.leaves_tombstone(), leaves_tombstone, "{name}");
        }
        for name in ["", "Request", "requests", "video "] {
            assert_eq!(Kind::from_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_key_shows_its_kind_before_its_id() {
        assert_eq!(key("video:tv:1").to_string(), "video:tv:1");
    }
}
