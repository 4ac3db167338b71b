//! The one form of refusals and errors over HTTP, at every door: `application/problem+json` (RFC
//! 9457).
//!
//! Pure functions. The doors add status lines, headers and framing.

pub mod guide;
mod reason;

pub use reason::Reason;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Ref, SchemaFormat, Type};

use crate::clock::Timestamp;
use crate::config::Shown;
use crate::session::{EndCause, Refusal, Session};

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The name of our only quota in the `RateLimit` header fields
/// (draft-ietf-httpapi-ratelimit-headers).
const POLICY: &str = "streams";

/// The problem type of that draft for an exhausted quota.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Where an instance serves the guide to problems.
pub const GUIDE: &str = "/v1/problems";

/// A refusal or an error, for machines (`reason`) and people (`detail`).
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// A URI for the kind of problem. For an exhausted quota it is the one registered with IANA;
    /// otherwise it is the section about `reason` in the guide to problems, at `/v1/problems`
    /// unless `refusal.problems` sets another address.
    #[serde(rename = "type")]
    #[schema(schema_with = kinds)]
    pub kind: Cow<'static, str>,
    /// The kind of problem in a few words.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened and what to do about it, in sentences fit for a viewer; or for a developer, if
    /// no viewer can have caused it.
    pub detail: String,
    /// The same as a word that never changes.
    pub reason: Reason,
    /// The names of the exhausted quotas.
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub violated_policies: Option<[&'static str; 1]>,
    /// How many streams the user may watch at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit: Option<u32>,
    /// How many sessions are live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub active: Option<usize>,
    /// The live sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sessions: Option<Vec<Holder>>,
    /// The session that took this one's slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub displaced_by: Option<Taker>,
    /// What whoever ended the session says to its viewer; `detail` is the same text. Escape it like
    /// any other text from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 200)]
    pub message: Option<String>,
    /// What is wrong with the name of the user or the session, for the developers of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub flaw: Option<String>,
}

/// A session that took another one's slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Taker {
    /// Its id.
    session: String,
    /// Its kind of stream.
    #[schema(schema_with = stream_kind)]
    kind: &'static str,
}

/// A session that holds a slot, as far as the refused client may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Holder {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    session: Option<String>,
    /// The device it plays on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    device: Option<String>,
    /// What it plays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content: Option<String>,
    /// When it started, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    started_at: Option<String>,
}

impl Problem {
    /// A problem with only a status, a reason and a detail.
    #[must_use]
    pub fn plain(status: u16, reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: reason.kind().into(),
            title: reason.title(),
            status,
            detail: detail.into(),
            reason,
            violated_policies: None,
            limit: None,
            active: None,
            sessions: None,
            displaced_by: None,
            message: None,
            flaw: None,
        }
    }

    /// The problem for a refused start. `show` says which facts of other sessions it may include.
    #[must_use]
    pub fn refusal(refusal: &Refusal, show: &BTreeSet<Shown>) -> Self {
        match refusal {
            Refusal::Full { limit, holders, .. } => Self {
                kind: QUOTA_EXCEEDED.into(),
                violated_policies: Some([POLICY]),
                limit: Some(*limit),
                active: Some(holders.len()),
                sessions: Some(
                    holders
                        .iter()
                        .map(|session| Holder::of(session, show))
                        .collect(),
                ),
                ..Self::plain(429, Reason::Full, full_detail(*limit, holders.len()))
            },
            Refusal::Ended(cause, _, message) => {
                let (reason, detail) = ended(cause);
                let message = message.as_ref().map(|message| message.as_str().to_owned());
                Self {
                    displaced_by: Taker::of(cause, show),
                    message: message.clone(),
                    ..Self::plain(429, reason, message.unwrap_or_else(|| detail.to_owned()))
                }
            }
            Refusal::NotStoppable => Self::plain(409, Reason::NotStoppable, NOT_STOPPABLE),
        }
    }

    /// The same, with its type at that guide to problems instead of this instance's own.
    #[must_use]
    pub fn explained_at(mut self, guide: &str) -> Self {
        if self.kind == self.reason.kind() {
            self.kind = format!("{guide}#{}", self.reason.as_str()).into();
        }
        self
    }

    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialization fails only for maps with unusual keys, and there is no map here.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Holder {
    /// The parts of a session that may be shown.
    fn of(session: &Session, show: &BTreeSet<Shown>) -> Self {
        let if_shown = |what: Shown, text: Option<String>| text.filter(|_| show.contains(&what));
        Self {
            session: if_shown(Shown::Session, Some(session.key.id.to_string())),
            device: if_shown(
                Shown::Device,
                session.facts.device.as_ref().map(ToString::to_string),
            ),
            content: if_shown(
                Shown::Content,
                session.facts.content.as_ref().map(ToString::to_string),
            ),
            started_at: if_shown(Shown::StartedAt, Some(rfc3339(session.started_at))),
        }
    }
}

impl Taker {
    /// The parts that may be shown of the session that took the slot, if one did.
    fn of(cause: &EndCause, show: &BTreeSet<Shown>) -> Option<Self> {
        match cause {
            EndCause::Displaced { by } if show.contains(&Shown::Session) => Some(Self {
                session: by.id.to_string(),
                kind: by.kind.as_str(),
            }),
            EndCause::Displaced { .. } | EndCause::Released | EndCause::Operator => None,
        }
    }
}

/// The `RateLimit-Policy` header for that limit of concurrent streams.
#[must_use]
pub fn rate_limit_policy(limit: u32) -> String {
    format!("\"{POLICY}\";q={limit};qu=\"concurrent-requests\"")
}

/// The `RateLimit` header for that number of remaining streams.
#[must_use]
pub fn rate_limit(remaining: u32) -> String {
    format!("\"{POLICY}\";r={remaining}")
}

/// The reason for a session that has ended.
#[must_use]
pub const fn ended_reason(cause: &EndCause) -> Reason {
    match cause {
        EndCause::Released => Reason::Ended,
        EndCause::Displaced { .. } => Reason::Displaced,
        EndCause::Operator => Reason::Operator,
    }
}

/// The reason for a refused start.
#[must_use]
pub const fn refusal_reason(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::Full { .. } => Reason::Full,
        Refusal::Ended(cause, ..) => ended_reason(cause),
        Refusal::NotStoppable => Reason::NotStoppable,
    }
}

/// The end of the year 9999, the last that RFC 3339 can express, in milliseconds since 1970.
const LAST_MILLISECOND: u64 = 253_402_300_799_999;

/// A timestamp in RFC 3339, to the millisecond.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let since_1970 = Duration::from_millis(at.as_millis().min(LAST_MILLISECOND));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970).to_string()
}

/// The detail for a stream that runs inside the gateway.
pub const NOT_STOPPABLE: &str =
    "That stream can't be stopped from here. Close it on the device that is playing it.";

/// The detail during an outage of the store.
pub const OUTAGE: &str =
    "The streams of this account can't be counted right now. Try again in a moment.";

/// Why a start at a full limit was refused, and how to proceed.
fn full_detail(limit: u32, active: usize) -> String {
    match limit {
        0 => "This account can't watch anything right now. Contact support to find out why."
            .to_owned(),
        1 => "This account can watch 1 stream at once, and it is in use. Stop it to watch here."
            .to_owned(),
        _ => format!(
            "This account can watch {limit} streams at once, and {active} are in use. Stop one of them to watch here."
        ),
    }
}

/// The schema of the problem types.
fn kinds() -> Object {
    ObjectBuilder::new()
        .description(Some("A URI for the kind of problem. For an exhausted quota it is the one registered with IANA; otherwise it is the section about `reason` in the guide to problems, at `/v1/problems` unless `refusal.problems` sets another address. Decide by `reason`."))
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
        .pattern(Some("#[a-z_-]+$"))
        .build()
}

/// A kind of stream, whose schema the HTTP API defines.
fn stream_kind() -> Ref {
    Ref::from_schema_name("Kind")
}

/// Why a session that has ended can't continue.
fn ended(cause: &EndCause) -> (Reason, &'static str) {
    let detail = match cause {
        EndCause::Released => "This stream has ended. Start it again to keep watching.",
        EndCause::Displaced { .. } => {
            "This stream was stopped because another stream on the same account started. Start it again to watch here."
        }
        EndCause::Operator => {
            "The service stopped this stream. Contact support to find out why, or start it again."
        }
    };
    (ended_reason(cause), detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DeviceId, EndMessage, Facts, Kind, SessionId, SessionKey};

    fn holder() -> Session {
        let at = Timestamp::from_millis(1_800_000_000_123);
        Session {
            key: SessionKey {
                kind: Kind::Playback,
                id: SessionId::parse("p \"1\"").unwrap(),
            },
            facts: Facts {
                device: Some(DeviceId::parse("tv").unwrap()),
                ..Facts::default()
            },
            started_at: at,
            renewed_at: at,
            expires_at: at,
            ticket: None,
            flags: crate::session::Flags::default(),
        }
    }

    #[test]
    fn a_full_refusal_names_the_holders_as_far_as_it_may() {
        let refusal = Refusal::Full {
            limit: 1,
            holders: vec![holder()],
            decided_at: Timestamp::default(),
        };
        let all = BTreeSet::from([
            Shown::Session,
            Shown::Device,
            Shown::Content,
            Shown::StartedAt,
        ]);
        let told: serde_json::Value =
            serde_json::from_str(&Problem::refusal(&refusal, &all).to_json()).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Too many streams at once",
                "status": 429,
                "detail": "This account can watch 1 stream at once, and it is in use. Stop it to watch here.",
                "reason": "full",
                "violated-policies": ["streams"],
                "limit": 1,
                "active": 1,
                "sessions": [{"session": "p \"1\"", "device": "tv", "started_at": "2027-01-15T08:00:00.123Z"}],
            })
        );
        let nothing = Problem::refusal(&refusal, &BTreeSet::new()).to_json();
        assert!(nothing.contains("\"sessions\":[{}]"), "{nothing}");
    }

    #[test]
    fn each_end_has_its_reason() {
        let by = holder().key;
        for (cause, reason) in [
            (EndCause::Released, "ended"),
            (EndCause::Displaced { by }, "displaced"),
            (EndCause::Operator, "operator"),
        ] {
            let problem = Problem::refusal(&Refusal::Ended(cause, None, None), &BTreeSet::new());
            assert_eq!(
                (problem.status, problem.reason.as_str(), problem.limit),
                (429, reason, None)
            );
        }
        let by = holder().key;
        let displaced = Refusal::Ended(EndCause::Displaced { by }, None, None);
        let told = Problem::refusal(&displaced, &[Shown::Session].into()).to_json();
        let taker = r#""displaced_by":{"session":"p \"1\"","kind":"playback"}"#;
        assert!(told.contains(taker), "{told}");
        let told = Problem::refusal(&displaced, &BTreeSet::new()).to_json();
        assert!(!told.contains("displaced_by"), "{told}");
        assert_eq!(
            Problem::refusal(&Refusal::NotStoppable, &BTreeSet::new()).status,
            409
        );
    }

    #[test]
    fn a_message_takes_the_place_of_the_detail_and_is_escaped_as_json() {
        let text = r#"<b>"Stopped"</b> & \ 映画"#;
        let message = EndMessage::parse(text).ok();
        let refusal = Refusal::Ended(EndCause::Operator, None, message);
        let told = Problem::refusal(&refusal, &BTreeSet::new()).to_json();
        let escaped = r#""detail":"<b>\"Stopped\"</b> & \\ 映画","reason":"operator""#;
        assert!(told.contains(escaped), "{told}");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            (&told["detail"], &told["message"]),
            (&text.into(), &text.into())
        );
    }

    #[test]
    fn a_time_has_three_decimals_so_that_texts_sort_as_times_do() {
        let at = Timestamp::from_millis(1_800_000_000_100);
        assert_eq!(rfc3339(at), "2027-01-15T08:00:00.100Z");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_the_last_there_is() {
        assert_eq!(
            rfc3339(Timestamp::from_millis(u64::MAX)),
            "9999-12-31T23:59:59.999Z"
        );
    }
}
