//! The JSON of the API's requests and answers.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::http::request::path::named;
use crate::identity::{
    Door, EndMessage, Fact, FactLoss, FactName, Facts, IdError, PlanName, SessionKey, Takeover,
};
use crate::problem::rfc3339;
use crate::session::Session;

/// The kind of stream that a session is.
#[derive(Debug, ToSchema)]
#[schema(as = Kind, rename_all = "lowercase")]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) enum KindName {
    /// One HTTP request through the gateway.
    Request,
    /// Many requests, or an API client's heartbeats.
    Playback,
    /// A video of the small API.
    Video,
}

/// The kinds of stream that can be started here.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only for the OpenAPI document")]
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
    /// The kind of stream.
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
    /// When it expires without another sign of life.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// The answer to a start or heartbeat.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedSession)]
pub(super) struct StartedBody {
    /// The session after the call.
    #[serde(flatten)]
    pub(super) session: SessionBody,
    /// When its next heartbeat is due.
    pub(super) renew_after_seconds: u64,
    /// The number of the user's live sessions, including this one.
    pub(super) active: usize,
    /// How many the user may watch at once.
    pub(super) limit: u32,
}

/// A user's sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserSessions)]
pub(super) struct UserBody {
    /// The user.
    pub(super) user: String,
    /// How many the user may watch at once.
    pub(super) limit: u32,
    /// How many sessions are live.
    pub(super) active: usize,
    /// Whether another stream could start now.
    pub(super) can_start: bool,
    /// The live sessions.
    pub(super) sessions: Vec<SessionBody>,
}

/// A limit to set for one user.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Limit)]
pub(super) struct WantedLimitBody {
    /// How many streams the user may watch at once; 0 refuses every start.
    #[schema(value_type = u32, required = true, maximum = 1000)]
    #[serde(default, deserialize_with = "whole_number")]
    pub(super) limit: Option<u32>,
    /// When it expires, in UTC and at most 90 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) expires_at: Option<String>,
    /// Instead of `expires_at`: in how many seconds it expires. With neither, in 30 days.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 7_776_000)]
    #[serde(default, deserialize_with = "whole_number")]
    pub(super) expires_in_seconds: Option<u32>,
}

/// A user's limit, and where it comes from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserLimit)]
pub(super) struct UserLimitBody {
    /// The user.
    pub(super) user: String,
    /// How many streams the user may watch at once.
    pub(super) limit: u32,
    /// Where that comes from.
    #[schema(value_type = LimitSourceName)]
    pub(super) source: &'static str,
    /// When the override expires; absent unless `source` is `override`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub(super) expires_at: Option<String>,
    /// What applies without the override.
    pub(super) configured: u32,
}

/// Where a limit comes from.
#[derive(Debug, ToSchema)]
#[schema(as = LimitSource, rename_all = "lowercase")]
#[expect(dead_code, reason = "only for the OpenAPI document")]
pub(super) enum LimitSourceName {
    /// An operator has set it for this user.
    Override,
    /// The configuration, for this user.
    User,
    /// The configuration, for the plan.
    Plan,
    /// The configuration, for everybody else.
    Default,
}

/// The result of ending all of a user's sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ended)]
pub(super) struct EndedBody {
    /// The sessions that have ended.
    pub(super) ended: Vec<NamedBody>,
    /// The sessions that run inside Envoy and can't be ended from here.
    pub(super) not_stoppable: Vec<NamedBody>,
}

/// A session's name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionKey)]
pub(super) struct NamedBody {
    /// Its id.
    session: String,
    /// The kind of stream.
    #[schema(value_type = KindName)]
    kind: &'static str,
}

/// The body of a start or heartbeat.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = Start)]
pub(super) struct StartBody {
    /// The device it plays on. It is only displayed: text longer than 256 bytes is shortened, and
    /// text with control characters is left out.
    #[schema(value_type = Option<String>, default = json!(null))]
    pub(super) device: Option<FactText>,
    /// What it plays. It is only displayed: text longer than 256 bytes is shortened, and text with
    /// control characters is left out.
    #[schema(value_type = Option<String>, default = json!(null))]
    pub(super) content: Option<FactText>,
    /// The user's plan.
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(super) plan: Option<String>,
    /// Where in the content the viewer is, in seconds.
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295u64)]
    #[serde(deserialize_with = "whole_number")]
    pub(super) position: Option<u32>,
    /// The id of the session whose slot it wants if all are taken, or `oldest`.
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub(super) takeover: Option<String>,
    /// What the viewers of the sessions that it displaces are told, from a back end that acts for
    /// all users.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub(super) message: Option<String>,
}

/// The body of an end by an operator.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = End)]
pub(super) struct EndBody {
    /// What the viewer is told.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    pub(super) message: Option<String>,
}

/// A JSON string that is only displayed, so it may contain anything: scripts that truncate a text
/// may cut a character in half, and JSON can express the result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FactText(Vec<u8>);

/// A session in a list of all users' sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsersSession)]
pub(super) struct ListedBody {
    /// The user.
    pub(super) user: String,
    /// The session.
    #[serde(flatten)]
    pub(super) session: SessionBody,
}

/// A page of all users' sessions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody {
    /// The sessions; may be empty even if more pages follow.
    pub(super) sessions: Vec<ListedBody>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) next: Option<String>,
    /// Why this page may lack sessions that were live all the while; absent if it doesn't. Only a
    /// cluster of Redis has such pages, and only if its servers forbid a command or hold very many
    /// keys of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) may_miss: Option<&'static str>,
}

/// The answer of the small API.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Watch)]
pub(super) struct WatchBody {
    /// Whether the user may watch this video now: it is live already, or a slot is free.
    pub(super) can_watch: bool,
    /// The video's address; null unless `http.endpoint` is set.
    #[schema(required = true)]
    pub(super) endpoint: Option<String>,
    /// The number of the user's live streams.
    pub(super) count: usize,
}

/// The body of a heartbeat of the small API.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Time)]
pub(super) struct TimeBody {
    /// Where in the video the viewer is: `seconds`, `minutes:seconds` or `hours:minutes:seconds`.
    /// The first number has up to six digits.
    #[schema(pattern = r"^[0-9]{1,6}(:[0-5]?[0-9]){0,2}$", example = "1:00")]
    pub(super) time: Option<String>,
}

impl SessionBody {
    /// The JSON form of that session.
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
    /// The JSON form of that key.
    pub(super) fn of(key: &SessionKey) -> Self {
        Self {
            session: key.id.to_string(),
            kind: key.kind.as_str(),
        }
    }
}

impl FactText {
    /// The text, if it is valid.
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

        // As bytes, because deserializing a string would refuse the whole body.
        deserializer.deserialize_bytes(AnyString)
    }
}

impl StartBody {
    /// The session's facts. `lost` is called for those that can't be kept unchanged.
    pub(super) fn facts(&self, lost: &impl Fn(Fact, FactLoss)) -> Facts {
        Facts {
            device: fact(self.device.as_ref(), lost),
            content: fact(self.content.as_ref(), lost),
            door: Some(Door::Http),
            position_seconds: self.position,
            ..Facts::default()
        }
    }

    /// The user's plan.
    pub(super) fn plan(&self) -> Result<Option<PlanName>, ApiError> {
        optional("plan", self.plan.as_deref(), PlanName::parse)
    }

    /// Whose slot is wanted if all are taken.
    pub(super) fn takeover(&self) -> Result<Option<Takeover>, ApiError> {
        optional("takeover", self.takeover.as_deref(), Takeover::parse)
    }

    /// What the viewers of the sessions that it displaces are told.
    pub(super) fn message(&self) -> Result<Option<EndMessage>, ApiError> {
        message(self.message.as_deref())
    }
}

impl EndBody {
    /// What the viewer is told.
    pub(super) fn message(&self) -> Result<Option<EndMessage>, ApiError> {
        message(self.message.as_deref())
    }
}

impl TimeBody {
    /// The position in seconds. All parts but the first go up to 59.
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
            // The first part is unbounded, the others count like a clock. So the sum fits.
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

/// A whole number that may be null. JSON has only one type of number: 60.0 is 60, and some
/// languages can't write it otherwise.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let number = match &value {
        Value::Null => return Ok(None),
        // The display of a whole number has no point; adding 0 removes the sign of -0; and a number
        // with too many digits doesn't parse as a u32.
        Value::Number(number) => number
            .as_f64()
            .and_then(|number| (number + 0.0).to_string().parse().ok()),
        _ => None,
    };
    // Any other value may be as long as the body.
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

/// A fact that may be absent.
fn fact<T: FactName>(text: Option<&FactText>, lost: &impl Fn(Fact, FactLoss)) -> Option<T> {
    T::keep(text?.as_str(), lost)
}

/// A message that may be absent. One that is empty is a mistake.
fn message(text: Option<&str>) -> Result<Option<EndMessage>, ApiError> {
    let message = text.map(EndMessage::parse).transpose();
    message.map_err(|flaw| ApiError::BadRequest(format!("The field \"message\" {flaw}.")))
}

/// A name that may be absent or empty.
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
    fn a_position_is_parsed_like_a_clock_time() {
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
