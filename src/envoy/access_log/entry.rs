//! Decodes an access log entry: has a session ended, is it running, or is it not ours? Pure
//! functions.

use std::collections::HashSet;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;

use crate::clock::Timestamp;
use crate::config::Leases;
use crate::envoy::wire::attributes::EntryAttributes;
use crate::envoy::wire::entry::{LogEntry, OurAnswer};
use crate::identity::claim::{facts, named};
use crate::identity::{Door, Fact, FactLoss, Identity, Kind, SessionId, SessionKey, UserId};
use crate::outbox::Notice;
use crate::session::{Ending, Provenance, Sighting};
use crate::telemetry::metrics::{EntryOutcome, EntryType};

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
    /// What the metric counts it as.
    pub(in crate::envoy) outcome: EntryOutcome,
    /// What the store needs to hear, and of whose session.
    pub(in crate::envoy) notice: Option<(UserId, Notice)>,
    /// The long response of a playback that ended here. It may have run on after the playback's own
    /// end, and then it counts as a `request`.
    pub(in crate::envoy) response_end: Option<SessionKey>,
}

/// What an entry counts as, and what the store needs to hear.
type EntryMeaning = (EntryOutcome, Option<(UserId, Notice)>);

/// The meaning of an entry that says nothing about a session.
const IGNORED: EntryMeaning = (EntryOutcome::Ignored, None);

/// Decodes all entries of one message. An end cancels the same stream's earlier periodic entries:
/// they have waited in Envoy's buffer, and the stream they describe no longer runs. `lost` is
/// called for facts that can't be kept unchanged.
pub(in crate::envoy) fn read_all(
    entries: &[LogEntry<'_>],
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> Vec<Reading> {
    let mut ended = HashSet::new();
    let mut readings: Vec<Reading> = Vec::with_capacity(entries.len());
    for entry in entries.iter().rev() {
        let mut reading = read(entry, identity, leases, lost);
        let stream = entry.request_id;
        match reading.entry {
            EntryType::End if !is_redirect(entry) && !stream.is_empty() => {
                ended.insert(stream);
            }
            EntryType::Periodic if reading.notice.is_some() && ended.contains(stream) => {
                (reading.outcome, reading.notice) = (EntryOutcome::Superseded, None);
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
    entry: &LogEntry<'_>,
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> Reading {
    let kind = entry_type(entry);
    let decision = entry.ours.and_then(|ours| ours.decision);
    let (outcome, notice) = match (kind, entry.ours, decision) {
        (EntryType::End, _, Some("allow")) if is_redirect(entry) => IGNORED,
        (EntryType::Periodic, Some(ours), Some("allow")) => with_session(ours, |user, key| {
            seen(user, key, entry, identity, leases, lost)
        }),
        (EntryType::End, Some(ours), Some("allow")) => {
            with_session(ours, |user, key| ended(user, key, entry))
        }
        (EntryType::End, _, None) => unanswered(entry, identity),
        (EntryType::Periodic | EntryType::End | EntryType::Other, ..) => IGNORED,
    };
    Reading {
        entry: kind,
        is_marked: decision.is_some(),
        outcome,
        notice,
        response_end: response_end(outcome, entry, leases),
    }
}

/// What follows for the session that our own answer named. A request that was let through without
/// one (a `HEAD`) is not ours.
fn with_session(
    ours: OurAnswer<'_>,
    read: impl FnOnce(UserId, SessionKey) -> EntryMeaning,
) -> EntryMeaning {
    let (Some(user), Some(kind), Some(id)) = (ours.user, ours.kind, ours.session) else {
        return IGNORED;
    };
    let parsed = (
        UserId::parse(user),
        Kind::from_name(kind),
        SessionId::parse(id),
    );
    match parsed {
        (Ok(user), Some(kind), Ok(id)) => read(user, SessionKey { kind, id }),
        _ => (EntryOutcome::Malformed, None),
    }
}

/// A stream that was seen running, also for a playback: an endless response may carry a playback
/// id.
fn seen(
    user: UserId,
    key: SessionKey,
    entry: &LogEntry<'_>,
    identity: &Identity,
    leases: &Leases,
    lost: &impl Fn(Fact, FactLoss),
) -> EntryMeaning {
    let attributes = EntryAttributes::of(entry);
    // The plan matters only if the session has to be put back. A malformed one is not worth losing
    // the stream over.
    let plan = named("plan", &identity.plan, &attributes).unwrap_or_default();
    let sighting = Sighting {
        lease: leases.of(key.kind),
        key,
        facts: facts(identity, &attributes, Door::AccessLog, lost),
        started_at: entry.start_time.and_then(started_at),
        provenance: Provenance::Counted,
        derived: false,
    };
    let notice = Notice::Renew(sighting, plan, response_id(entry));
    (EntryOutcome::Renewal, Some((user, notice)))
}

/// The end of a request: the end of the stream if the request is the stream, otherwise whether the
/// playback has played.
fn ended(user: UserId, key: SessionKey, entry: &LogEntry<'_>) -> EntryMeaning {
    let (outcome, notice) = match key.kind {
        Kind::Request => (EntryOutcome::Release, Notice::Release(key, Ending::Stream)),
        Kind::Playback if succeeded(entry) => (EntryOutcome::Played, Notice::Played(key)),
        Kind::Playback => (EntryOutcome::Failed, Notice::Release(key, Ending::Failed)),
        Kind::Video => return IGNORED,
    };
    (outcome, Some((user, notice)))
}

/// Whether the headers of a success reached the viewer, whatever happened afterwards: a switch of
/// protocols, 2xx, or 3xx.
fn succeeded(entry: &LogEntry<'_>) -> bool {
    let code = entry.response_code;
    code.is_some_and(|code| matches!(code, 101 | 200..=399))
}

/// The response of a playback that took so long that Envoy may have reported it while it ran.
fn response_end(
    outcome: EntryOutcome,
    entry: &LogEntry<'_>,
    leases: &Leases,
) -> Option<SessionKey> {
    if !matches!(outcome, EntryOutcome::Played | EntryOutcome::Failed) {
        return None;
    }
    if entry.duration? < leases.request / REPORTS_IN_A_LEASE {
        return None;
    }
    Some(SessionKey {
        kind: Kind::Request,
        id: response_id(entry)?,
    })
}

/// Identifies the one response that an entry is about.
fn response_id(entry: &LogEntry<'_>) -> Option<SessionId> {
    SessionId::parse(entry.request_id).ok()
}

/// The end of a request that never got our answer: its client left during the check, which may have
/// taken a slot nevertheless. If it has an upstream, it was let through without us
/// (`failure_mode_allow`), and there is nothing to release.
fn unanswered(entry: &LogEntry<'_>, identity: &Identity) -> EntryMeaning {
    if entry.has_upstream {
        return IGNORED;
    }
    let user = named("user", &identity.user, &EntryAttributes::of(entry));
    match (user, SessionId::parse(entry.request_id)) {
        (Ok(Some(user)), Ok(id)) => {
            let kind = Kind::Request;
            let notice = Notice::Release(SessionKey { kind, id }, Ending::Abandoned);
            (EntryOutcome::Release, Some((user, notice)))
        }
        (Ok(None), _) => (EntryOutcome::Unattributed, None),
        (Ok(Some(_)), Err(_)) if entry.request_id.is_empty() => (EntryOutcome::Unattributed, None),
        _ => (EntryOutcome::Malformed, None),
    }
}

/// The type of the entry.
fn entry_type(entry: &LogEntry<'_>) -> EntryType {
    match AccessLogType::try_from(entry.log_type) {
        Ok(AccessLogType::DownstreamPeriodic) => EntryType::Periodic,
        Ok(AccessLogType::DownstreamEnd) => EntryType::End,
        _ => EntryType::Other,
    }
}

/// Whether Envoy itself has redirected this request.
fn is_redirect(entry: &LogEntry<'_>) -> bool {
    entry.response_code_details == INTERNAL_REDIRECT
}

/// When Envoy saw the request begin, by its own clock.
fn started_at(began: Duration) -> Option<Timestamp> {
    u64::try_from(began.as_millis())
        .ok()
        .map(Timestamp::from_millis)
}
