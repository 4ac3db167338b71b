//! Decodes an access log entry: has a session ended, is it running, or is it not ours? Pure
//! functions.

use std::collections::HashSet;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry,
};
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;

use crate::config::Leases;
use crate::envoy::wire::attributes::{EntryAttributes, OUR_NAMESPACE};
use crate::identity::Identity;
use crate::identity::claim::{facts, named};
use crate::outbox::Notice;
use crate::session::{
    Door, Ending, Fact, FactLoss, Kind, Provenance, SessionId, SessionKey, Sighting, Timestamp,
    UserId,
};
use crate::telemetry::metrics::{EntryOutcome, EntryType, ReleaseCause};

/// How Envoy reports the end of the first part of a request that it redirects internally: the
/// stream continues under the same id.
const INTERNAL_REDIRECT: &str = "internal_redirect";

/// How many reports about a running stream should fall into the lease of a `request`: three, as
/// documented, plus one as a margin. A response shorter than the time between two of them was not
/// reported while it ran.
const REPORTS_IN_A_LEASE: u32 = 4;

/// The meaning of an entry.
#[derive(Debug)]
pub(in crate::envoy) struct Reading {
    /// What kind of entry it is.
    pub(in crate::envoy) entry: EntryType,
    /// Whether it has our mark: we have answered a check about its request.
    pub(in crate::envoy) is_marked: bool,
    /// What follows from it.
    pub(in crate::envoy) news: Result<News, EntryOutcome>,
    /// The end of a long response of a playback, which may have continued after the playback's own
    /// end and been counted separately.
    pub(in crate::envoy) response_end: Option<News>,
}

/// A notice for the store.
#[derive(Debug)]
pub(in crate::envoy) struct News {
    /// The session's user.
    pub(in crate::envoy) user: UserId,
    /// What has happened to it.
    pub(in crate::envoy) notice: Notice,
}

impl News {
    /// Whether it matters only while nothing of the playback has played yet.
    pub(in crate::envoy) const fn is_of_first_request(&self) -> bool {
        matches!(
            self.notice,
            Notice::Played(_) | Notice::Release(_, Ending::Failed, _)
        )
    }
}

/// Decodes all entries of one message. An end cancels the same stream's earlier periodic entries:
/// they have waited in Envoy's buffer, and the stream they describe no longer runs. `lost` is
/// called for facts that can't be kept unchanged.
pub(in crate::envoy) fn read_all(
    entries: &[HttpAccessLogEntry],
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> Vec<Reading> {
    let mut ended = HashSet::new();
    let mut readings: Vec<Reading> = Vec::with_capacity(entries.len());
    for entry in entries.iter().rev() {
        let mut reading = read(entry, identity, leases, lost);
        let stream = entry
            .request
            .as_ref()
            .map_or("", |request| &request.request_id);
        match reading.entry {
            EntryType::End if !is_redirect(entry) && !stream.is_empty() => {
                ended.insert(stream);
            }
            EntryType::Periodic if reading.news.is_ok() && ended.contains(stream) => {
                reading.news = Err(EntryOutcome::Superseded);
            }
            EntryType::Periodic | EntryType::End | EntryType::Other => {}
        }
        readings.push(reading);
    }
    readings.reverse();
    readings
}

/// Decodes one entry.
fn read(
    entry: &HttpAccessLogEntry,
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> Reading {
    let attributes = EntryAttributes(entry);
    let kind = entry_type(entry.common_properties.as_ref());
    let ours = attributes.namespace(OUR_NAMESPACE);
    let decision = ours.and_then(|ours| text(ours, "decision"));
    let news = match (kind, decision) {
        (EntryType::Periodic, Some("allow")) => {
            let ours = ours_in(ours);
            ours.map(|ours| seen(ours, entry, identity, leases, lost))
        }
        (EntryType::End, Some("allow")) if is_redirect(entry) => Err(EntryOutcome::Ignored),
        (EntryType::End, Some("allow")) => ours_in(ours).and_then(|ours| ended(ours, entry)),
        (EntryType::End, None) => unanswered(entry, identity),
        (EntryType::Periodic | EntryType::End | EntryType::Other, _) => Err(EntryOutcome::Ignored),
    };
    let response_end = news
        .as_ref()
        .ok()
        .and_then(|news| response_end(news, entry, leases));
    Reading {
        entry: kind,
        is_marked: decision.is_some(),
        news,
        response_end,
    }
}

/// The session that our own answer named.
struct Ours {
    /// The user.
    user: UserId,
    /// The session's key.
    key: SessionKey,
}

/// The session in our metadata. A request that was let through without one (a `HEAD`) is not ours.
fn ours_in(ours: Option<&Struct>) -> Result<Ours, EntryOutcome> {
    let field = |name| ours.and_then(|ours| text(ours, name));
    let (Some(user), Some(kind), Some(id)) = (field("user"), field("kind"), field("session"))
    else {
        return Err(EntryOutcome::Ignored);
    };
    let parsed = (
        UserId::parse(user),
        Kind::from_name(kind),
        SessionId::parse(id),
    );
    let (Ok(user), Some(kind), Ok(id)) = parsed else {
        return Err(EntryOutcome::Malformed);
    };
    Ok(Ours {
        user,
        key: SessionKey { kind, id },
    })
}

/// A stream that was seen running, also for a playback: an endless response may carry a playback
/// id.
fn seen(
    ours: Ours,
    entry: &HttpAccessLogEntry,
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> News {
    let facts = facts(identity, &EntryAttributes(entry), Door::AccessLog, lost);
    // It matters only if the session has to be put back; a malformed plan is not worth losing the
    // stream over.
    let plan = named("plan", &identity.plan, &EntryAttributes(entry)).unwrap_or_default();
    let lease = leases.of(ours.key.kind);
    let started_at = entry.common_properties.as_ref().and_then(started_at);
    let sighting = Sighting {
        key: ours.key,
        facts,
        lease,
        started_at,
        provenance: Provenance::Counted,
        derived: false,
    };
    News {
        user: ours.user,
        notice: Notice::Renew(sighting, plan, response_id(entry)),
    }
}

/// The end of a request: the end of the stream if the request is the stream, otherwise whether the
/// playback has played.
fn ended(ours: Ours, entry: &HttpAccessLogEntry) -> Result<News, EntryOutcome> {
    let notice = match ours.key.kind {
        Kind::Request => end(ours.key, ReleaseCause::AccessLog),
        Kind::Playback if succeeded(entry) => Notice::Played(ours.key),
        Kind::Playback => Notice::Release(ours.key, Ending::Failed, ReleaseCause::Failed),
        Kind::Video => return Err(EntryOutcome::Ignored),
    };
    Ok(News {
        user: ours.user,
        notice,
    })
}

/// Whether the headers of a success reached the viewer, whatever happened afterwards: a switch of
/// protocols, 2xx, or 3xx.
fn succeeded(entry: &HttpAccessLogEntry) -> bool {
    let response = entry.response.as_ref();
    let code = response.and_then(|response| response.response_code);
    code.is_some_and(|code| matches!(code.value, 101 | 200..=399))
}

/// The end of a playback's response that took so long that Envoy may have reported it while it ran.
fn response_end(news: &News, entry: &HttpAccessLogEntry, leases: &Leases) -> Option<News> {
    if !news.is_of_first_request() {
        return None;
    }
    let duration = entry.common_properties.as_ref()?.duration.as_ref()?;
    let seconds = u64::try_from(duration.seconds).ok()?;
    let took = Duration::from_secs(seconds)
        .saturating_add(Duration::from_nanos(u64::try_from(duration.nanos).ok()?));
    if took < leases.request / REPORTS_IN_A_LEASE {
        return None;
    }
    let key = SessionKey {
        kind: Kind::Request,
        id: response_id(entry)?,
    };
    Some(News {
        user: news.user.clone(),
        notice: end(key, ReleaseCause::Outlived),
    })
}

/// Identifies the one response that an entry is about.
fn response_id(entry: &HttpAccessLogEntry) -> Option<SessionId> {
    let request = entry.request.as_ref()?;
    SessionId::parse(&request.request_id).ok()
}

/// The end of a request that never got our answer: its client left during the check, which may have
/// taken a slot nevertheless. If it has an upstream, it was let through without us
/// (`failure_mode_allow`), and there is nothing to release.
fn unanswered(entry: &HttpAccessLogEntry, identity: &Identity) -> Result<News, EntryOutcome> {
    let attributes = EntryAttributes(entry);
    let common = entry
        .common_properties
        .as_ref()
        .ok_or(EntryOutcome::Unattributed)?;
    if common.upstream_remote_address.is_some() {
        return Err(EntryOutcome::Ignored);
    }
    let request_id = entry
        .request
        .as_ref()
        .map_or("", |request| &request.request_id);
    let user = named("user", &identity.user, &attributes).map_err(|_| EntryOutcome::Malformed)?;
    let (Some(user), false) = (user, request_id.is_empty()) else {
        return Err(EntryOutcome::Unattributed);
    };
    let id = SessionId::parse(request_id).map_err(|_| EntryOutcome::Malformed)?;
    Ok(News {
        user,
        notice: end(
            SessionKey {
                kind: Kind::Request,
                id,
            },
            ReleaseCause::Abandoned,
        ),
    })
}

/// The notice that a stream has ended by itself.
const fn end(key: SessionKey, cause: ReleaseCause) -> Notice {
    Notice::Release(key, Ending::Stream, cause)
}

/// The type of the entry.
fn entry_type(common: Option<&AccessLogCommon>) -> EntryType {
    match common.map_or(AccessLogType::NotSet, AccessLogCommon::access_log_type) {
        AccessLogType::DownstreamPeriodic => EntryType::Periodic,
        AccessLogType::DownstreamEnd => EntryType::End,
        _ => EntryType::Other,
    }
}

/// Whether Envoy itself has redirected this request.
fn is_redirect(entry: &HttpAccessLogEntry) -> bool {
    entry
        .response
        .as_ref()
        .is_some_and(|response| response.response_code_details == INTERNAL_REDIRECT)
}

/// When Envoy saw the request begin, by its own clock.
fn started_at(common: &AccessLogCommon) -> Option<Timestamp> {
    let began = common.start_time.as_ref()?;
    let millis = began
        .seconds
        .checked_mul(1000)?
        .checked_add(i64::from(began.nanos) / 1_000_000)?;
    u64::try_from(millis).ok().map(Timestamp::from_millis)
}

/// A text field of our metadata.
fn text<'a>(fields: &'a Struct, name: &str) -> Option<&'a str> {
    match fields.fields.get(name)?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text),
        _ => None,
    }
}
