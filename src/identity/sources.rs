//! The configured sources of each fact about a request.

use super::source::Source;

/// The sources of each fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `identity.user`; at least one.
    pub user: Vec<Source>,
    /// `identity.session`, which a route can replace; at least one. Only this list can contain
    /// [`Source::Request`].
    pub session: Vec<Source>,
    /// `identity.plan`
    pub plan: Vec<Source>,
    /// `identity.device`
    pub device: Vec<Source>,
    /// `identity.content`
    pub content: Vec<Source>,
    /// `identity.takeover`: whose slot a playback asks for if all are taken.
    pub takeover: Vec<Source>,
    /// `identity.fresh`: the sources whose ids a player makes for each playback. A joined id is
    /// fresh if one of its parts is; all others are derived.
    pub fresh: Vec<Source>,
}

impl Identity {
    /// Whether players don't make a new id from that source for each playback, so that the same id
    /// comes again.
    #[must_use]
    pub fn is_derived(&self, source: &Source) -> bool {
        let is_fresh = |source: &Source| *source == Source::Request || self.fresh.contains(source);
        match source {
            Source::Joined(parts) => !is_fresh(source) && !parts.iter().any(is_fresh),
            _ => !is_fresh(source),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        // Each of these is a source, which a test checks; a list with a mistake would be empty.
        let list = |text| Source::parse_list(text).unwrap_or_default();
        Self {
            user: list("header:x-user-id"),
            session: list("header:x-playback-session-id,cmcd:sid,query:session,request"),
            plan: list("jwt:plan"),
            device: list("header:x-device-id"),
            content: list("cmcd:cid"),
            takeover: list("header:x-streamgate-takeover,query:x-streamgate-takeover"),
            fresh: list("header:x-playback-session-id,cmcd:sid,query:session"),
        }
    }
}
