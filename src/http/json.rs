//! What the API says and hears, as JSON.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::http::request::path::named;
use crate::identity::{
    Door, Fact, FactLoss, FactName, Facts, IdError, PlanName, SessionKey, Takeover,
};
use crate::problem::rfc3339;
use crate::session::Session;

/// What kind of stream a session is.
#[derive(Debug, ToSchema)]
#[schema(as = Kind, rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) enum KindName {
    /// One HTTP request through the gateway.
    Request,
    /// Many requests, or an API client's heartbeats.
    Playback,
    /// A video of the small API.
    Video,
}

/// What kind of stream can be started here.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) enum Startable {
    /// A playback.
    Playback,
}

/// A live session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionBody {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    #[schema(value_type = KindName)]
    kind: &'static str,
    /// The device it plays on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    device: Option<String>,
    /// What it plays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content: Option<String>,
    /// Where in the content the viewer is, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64, nullable = false)]
    position: Option<u32>,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: String,
    /// Until when it counts without another sign of life.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// The answer to a start or heartbeat.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedSession)]
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
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSessions)]
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
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ended)]
pub(super) struct EndedBody {
    /// Those that have ended.
    pub(super) ended: Vec<NamedBody>,
    /// Those that run inside Envoy, and can't be ended from here.
    pub(super) not_stoppable: Vec<NamedBody>,
}

/// Which session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionKey)]
pub(super) struct NamedBody {
    /// Its id.
    session: String,
    /// What kind of stream it is.
    #[schema(value_type = KindName)]
    kind: &'static str,
}

/// What a start or heartbeat may tell.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = Start)]
pub(super) struct StartBody {
    /// The device it plays on. It is only shown: what is longer than 256 bytes is shortened, and left out if it has control characters.
    #[schema(value_type = Option<String>, default = json!(null))]
    pub(super) device: Option<FactText>,
    /// What it plays; likewise.
    #[schema(value_type = Option<String>, default = json!(null))]
    pub(super) content: Option<FactText>,
    /// The plan its user is on.
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(super) plan: Option<String>,
    /// Where in the content the viewer is, in seconds.
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64)]
    #[serde(deserialize_with = "whole_number")]
    pub(super) position: Option<u32>,
    /// The id of the session whose slot it wants if all are taken, or `oldest`.
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(super) takeover: Option<String>,
}

/// A JSON string that is only shown, and so may be anything: scripts that cut a text by length cut characters in half, and JSON can write them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FactText(Vec<u8>);

/// A session of somebody's, in a list of everybody's.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsersSession)]
pub(super) struct ListedBody {
    /// Whose it is.
    pub(super) user: String,
    /// The session.
    #[serde(flatten)]
    pub(super) session: SessionBody,
}

/// A page of everybody's sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody {
    /// The sessions; there may be none though more pages follow.
    pub(super) sessions: Vec<ListedBody>,
    /// The `cursor` of the next page; not there on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) next: Option<String>,
}

/// What the small API answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Watch)]
pub(super) struct WatchBody {
    /// Whether the user may watch this video now: it is live already, or a slot is free.
    pub(super) can_watch: bool,
    /// Where the video is; null unless `http.endpoint` is set.
    #[schema(required = true)]
    pub(super) endpoint: Option<String>,
    /// The user's live streams.
    pub(super) count: usize,
}

/// What a heartbeat of the small API may tell.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Time)]
pub(super) struct TimeBody {
    /// Where in the video the viewer is: `seconds`, `minutes:seconds` or `hours:minutes:seconds`, the first of up to six digits.
    #[schema(pattern = r"^[0-9]{1,6}(:[0-5]?[0-9]){0,2}$", example = "1:00")]
    pub(super) time: Option<String>,
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

impl FactText {
    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl<'de> Deserialize<'de> for FactText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyString;

        impl Visitor<'_> for AnyString {
            type Value = FactText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<FactText, E> {
                Ok(FactText(bytes.to_vec()))
            }
        }

        // As bytes, since for a text the whole body would be refused.
        deserializer.deserialize_bytes(AnyString)
    }
}

impl StartBody {
    /// What is known of the session. `lost` hears of what can't be kept as it came.
    pub(super) fn facts(&self, lost: &impl Fn(Fact, FactLoss)) -> Facts {
        Facts {
            device: fact(self.device.as_ref(), lost),
            content: fact(self.content.as_ref(), lost),
            door: Some(Door::Http),
            position_seconds: self.position,
            ..Facts::default()
        }
    }

    /// The plan that its user is on.
    pub(super) fn plan(&self) -> Result<Option<PlanName>, ApiError> {
        optional("plan", self.plan.as_deref(), PlanName::parse)
    }

    /// Whose slot is wanted, should all be taken.
    pub(super) fn takeover(&self) -> Result<Option<Takeover>, ApiError> {
        optional("takeover", self.takeover.as_deref(), Takeover::parse)
    }
}

impl TimeBody {
    /// The position in seconds. Below the first part each counts to 59.
    pub(super) fn seconds(&self) -> Result<Option<u32>, ApiError> {
        let Some(text) = &self.time else {
            return Ok(None);
        };
        let wrong = || {
            ApiError::BadRequest(format!(
                "The field \"time\" is {text:?}; allowed are seconds, minutes:seconds and hours:minutes:seconds, such as 1:00."
            ))
        };
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() > 3 {
            return Err(wrong());
        }
        let mut seconds: u32 = 0;
        for (index, part) in parts.iter().enumerate() {
            // The first one counts on, those below it as a clock does. So the sum has room.
            let (digits, most) = if index == 0 { (6, 999_999) } else { (2, 59) };
            let is_number = (1..=digits).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_digit());
            let number: u32 = part.parse().map_err(|_| wrong())?;
            if !is_number || number > most {
                return Err(wrong());
            }
            seconds = seconds * 60 + number;
        }
        Ok(Some(seconds))
    }
}

/// A whole number that may be null. JSON knows one kind of number: 60.0 is 60, and there are languages that can't write it otherwise.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Null => return Ok(None),
        // Displayed, a whole number has no point, and -0 a sign that the sum with 0 has not; and where it has too many digits, no u32 is
        // read from them.
        Value::Number(number) => number
            .as_f64()
            .and_then(|number| (number + 0.0).to_string().parse().ok()),
        _ => None,
    };
    // Anything else may be as long as the body.
    let got = || match &value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let wrong = || {
        D::Error::custom(format_args!(
            "got {}, expected a whole number from 0 to {}",
            got(),
            u32::MAX
        ))
    };
    number.map(Some).ok_or_else(wrong)
}

/// A fact that may be left out.
fn fact<T: FactName>(text: Option<&FactText>, lost: &impl Fn(Fact, FactLoss)) -> Option<T> {
    T::keep(text?.as_str(), lost)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_as_a_clock_shows_it() {
        for (time, expected) in [
            ("0", Some(0)),
            ("75", Some(75)),
            ("1:00", Some(60)),
            ("01:02:03", Some(3723)),
            ("90:00", Some(5400)),
            ("1:60", None),
            ("1:00:60", None),
            ("1:0:0:0", None),
            ("", None),
            (":30", None),
            ("1:", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1.5", None),
            ("999999:59:59", Some(3_599_999_999)),
            ("0000001", None),
            ("1:000", None),
            ("1:+1", None),
            ("99999999999", None),
        ] {
            let told = TimeBody {
                time: Some(time.to_owned()),
            };
            assert_eq!(told.seconds().ok().flatten(), expected, "{time:?}");
        }
        assert_eq!(TimeBody::default().seconds().unwrap(), None);
    }
}
