//! What the API says and hears, as JSON.

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::path::named;
use crate::problem::rfc3339;
use crate::session::{
    ContentId, DeviceId, Door, Facts, IdError, Kind, PlanName, Session, SessionId, SessionKey,
    WhenFull,
};

/// A live session.
#[derive(Debug, Serialize)]
pub(super) struct SessionBody {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    kind: &'static str,
    /// The device it plays on.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// What it plays.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Where in the content the viewer is, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
    /// When it started.
    started_at: String,
    /// Until when it counts without another sign of life.
    expires_at: String,
}

/// The answer to a start or heartbeat.
#[derive(Debug, Serialize)]
pub(super) struct StartedBody {
    /// The session as it stands now.
    #[serde(flatten)]
    pub(super) session: SessionBody,
    /// When its next heartbeat is due.
    pub(super) renew_after_seconds: u64,
    /// The user's live sessions, this one included.
    pub(super) active: usize,
    /// How many the user may watch at once.
    pub(super) limit: u32,
}

/// A user's sessions.
#[derive(Debug, Serialize)]
pub(super) struct UserBody {
    /// Whose they are.
    pub(super) user: String,
    /// How many the user may watch at once.
    pub(super) limit: u32,
    /// How many are live.
    pub(super) active: usize,
    /// Whether one more could start now.
    pub(super) can_start: bool,
    /// The live ones.
    pub(super) sessions: Vec<SessionBody>,
}

/// What has come of the end of all of a user's sessions.
#[derive(Debug, Serialize)]
pub(super) struct EndedBody {
    /// Those that have ended.
    pub(super) ended: Vec<NamedBody>,
    /// Those that run inside Envoy, and can't be ended from here.
    pub(super) not_stoppable: Vec<NamedBody>,
}

/// Which session.
#[derive(Debug, Serialize)]
pub(super) struct NamedBody {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    kind: &'static str,
}

/// What a start or heartbeat may tell.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartBody {
    /// The device it plays on.
    pub(super) device: Option<String>,
    /// What it plays.
    pub(super) content: Option<String>,
    /// The plan its user is on.
    pub(super) plan: Option<String>,
    /// Where in the content the viewer is, in seconds.
    pub(super) position: Option<u32>,
    /// The id of the session whose slot it wants if all are taken, or `oldest`.
    pub(super) takeover: Option<String>,
}

impl SessionBody {
    /// That session.
    pub(super) fn of(session: &Session) -> Self {
        let facts = &session.facts;
        Self {
            session: session.key.id.to_string(),
            kind: session.key.kind.as_str(),
            device: facts.device.as_ref().map(ToString::to_string),
            content: facts.content.as_ref().map(ToString::to_string),
            position: facts.position_seconds,
            started_at: rfc3339(session.started_at),
            expires_at: rfc3339(session.expires_at),
        }
    }
}

impl NamedBody {
    /// That session.
    pub(super) fn of(key: &SessionKey) -> Self {
        Self {
            session: key.id.to_string(),
            kind: key.kind.as_str(),
        }
    }
}

impl StartBody {
    /// What is known of the session.
    pub(super) fn facts(&self) -> Result<Facts, ApiError> {
        Ok(Facts {
            device: optional("device", self.device.as_deref(), DeviceId::parse)?,
            content: optional("content", self.content.as_deref(), ContentId::parse)?,
            door: Some(Door::Http),
            position_seconds: self.position,
        })
    }

    /// The plan that its user is on.
    pub(super) fn plan(&self) -> Result<Option<PlanName>, ApiError> {
        optional("plan", self.plan.as_deref(), PlanName::parse)
    }

    /// What happens if all slots are taken. An id is taken for a playback's, which is most likely.
    pub(super) fn when_full(&self) -> Result<WhenFull, ApiError> {
        let takeover = self.takeover.as_deref();
        if takeover == Some("oldest") {
            return Ok(WhenFull::DisplaceOldest);
        }
        let named = optional("takeover", takeover, SessionId::parse)?;
        Ok(named.map_or(WhenFull::Refuse, |id| {
            let kind = Kind::Playback;
            WhenFull::TakeOver(SessionKey { kind, id })
        }))
    }
}

/// A name that may be left out, or empty.
fn optional<T>(
    what: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, IdError>,
) -> Result<Option<T>, ApiError> {
    let text = text.filter(|text| !text.is_empty());
    named(what, text.map(parse).transpose())
}
