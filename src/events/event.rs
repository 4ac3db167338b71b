//! One event, and its form on every wire: a JSON object, and a frame of Server-Sent Events.

use std::fmt::Write as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::identity::{Facts, SessionKey, UserId};
use crate::problem::rfc3339;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A session took a slot.
    Started,
    /// A session ended before its lease ran out; `cause` says why.
    Ended,
    /// A stream was refused; `reason` says why.
    Refused,
    /// A session lost its slot to the one in `by`.
    Displaced,
    /// The store, or the shard in `shard`, doesn't answer any more.
    OutageBegun,
    /// It answers again.
    OutageOver,
    /// An instance follows a changed configuration.
    ConfigurationChanged,
    /// An operator has changed something; `by` is the label of the token.
    OperatorCall,
    /// Events are missing before the next one; `detail` says why.
    Gap,
    /// The last event: this listener was too slow.
    Dropped,
}

impl EventType {
    /// Its name on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Displaced => "displaced",
            Self::OutageBegun => "outage_begun",
            Self::OutageOver => "outage_over",
            Self::ConfigurationChanged => "configuration_changed",
            Self::OperatorCall => "operator_call",
            Self::Gap => "gap",
            Self::Dropped => "dropped",
        }
    }
}

/// One event. What doesn't apply to it is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its id, unique in the installation; it continues the stream after a break. `gap` and `dropped`
    /// have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(required = false, example = "1796000405000-5f0c9a7e21b34d68-17")]
    pub id: String,
    /// When it happened, by the store's clock.
    #[serde(serialize_with = "as_rfc3339", deserialize_with = "of_rfc3339")]
    #[schema(value_type = String, format = "date-time", example = "2026-11-30T21:00:05.000Z")]
    pub at: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user: Option<String>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub session: Option<String>,
    /// Its kind: `playback`, `request` or `video`.
    #[serde(default, rename = "kind", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stream: Option<String>,
    /// What it plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub content: Option<String>,
    /// The device it plays on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device: Option<String>,
    /// The gateway's address that the viewer connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub gateway: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cause: Option<String>,
    /// Who did it: the session that took the slot, or the label of an operator's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub by: Option<String>,
    /// The id of the instance that tells it, as in `/v1/instance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub instance: Option<String>,
    /// The shard of the store, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub shard: Option<String>,
    /// More, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// A time as text.
fn as_rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// A time from text.
fn of_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let at = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
    let since_1970 = at
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(serde::de::Error::custom)?;
    Ok(Timestamp::default().after(since_1970))
}

impl Event {
    /// An event of that type about nothing in particular. Who tells it sets its time.
    #[must_use]
    pub const fn new(kind: EventType) -> Self {
        Self {
            id: String::new(),
            at: Timestamp::from_millis(0),
            kind,
            user: None,
            session: None,
            stream: None,
            content: None,
            device: None,
            gateway: None,
            reason: None,
            cause: None,
            by: None,
            instance: None,
            shard: None,
            detail: None,
        }
    }

    /// An event about that user's session.
    #[must_use]
    pub fn about(kind: EventType, user: &UserId, key: &SessionKey) -> Self {
        Self {
            user: Some(user.to_string()),
            session: Some(key.id.to_string()),
            stream: Some(key.kind.as_str().to_owned()),
            ..Self::new(kind)
        }
    }

    /// Adds what the session plays, and where.
    #[must_use]
    pub fn with_facts(mut self, facts: &Facts) -> Self {
        self.content = facts.content.as_ref().map(ToString::to_string);
        self.device = facts.device.as_ref().map(ToString::to_string);
        self
    }

    /// An event that only says something.
    #[must_use]
    pub fn saying(kind: EventType, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(kind)
        }
    }

    /// Its JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Text and numbers always have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Appends its frame of Server-Sent Events. JSON has no line breaks, and so neither has a field.
    pub(super) fn write_frame(&self, frame: &mut String) {
        // An id with a line break would begin another field; only a foreign one could have it.
        let id = self.id.split(char::is_control).next().unwrap_or_default();
        // To write to a string can't fail. An empty id would make clients forget the last one.
        if !id.is_empty() {
            let _ = writeln!(frame, "id: {id}");
        }
        let _ = write!(
            frame,
            "event: {}\ndata: {}\n\n",
            self.kind.as_str(),
            self.to_json()
        );
    }
}
