//! Every rule about access log entries.

use std::cell::RefCell;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, ResponseFlags};
use envoy_types::pb::google::protobuf::Timestamp as WireTimestamp;
use serde_json::json;

use super::entry::{Reading, read_all};
use crate::clock::Timestamp;
use crate::config::Leases;
use crate::envoy::tests::fixtures::Entry;
use crate::envoy::wire::entry::LogEntry;
use crate::identity::{Fact, FactLoss, Identity, PlanName};
use crate::outbox::Notice;
use crate::session::{Ending, Sighting};
use crate::telemetry::metrics::{EntryOutcome, EntryType};

fn read(entries: Vec<Entry>) -> Vec<Reading> {
    let entries: Vec<LogEntry<'_>> = entries.iter().map(Entry::sent).collect();
    read_all(
        &entries,
        &Identity::default(),
        &Leases::default(),
        &|_, _| {},
    )
}

/// The result of an entry, such as `release anna request:r1` or an outcome's name.
fn shown(reading: &Reading) -> String {
    let Some((user, notice)) = &reading.notice else {
        return format!("{:?}", reading.outcome).to_lowercase();
    };
    match notice {
        Notice::Renew(sighting, _, _) => format!("renew {user} {}", sighting.key),
        Notice::Release(key, Ending::Failed) => format!("failed {user} {key}"),
        Notice::Release(_, Ending::Undone(_)) => "undo".to_owned(),
        Notice::Release(key, _) => format!("release {user} {key}"),
        Notice::Played(key) => format!("played {user} {key}"),
    }
}

fn one(entry: Entry) -> String {
    shown(&read(vec![entry])[0])
}

/// The details of a sign of life.
fn sighting(entry: Entry) -> (Sighting, Option<PlanName>) {
    match read(vec![entry]).remove(0).notice {
        Some((_, Notice::Renew(sighting, plan, _))) => (sighting, plan),
        other => panic!("{other:?}"),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, one line a case")]
fn an_entry_renews_releases_or_means_nothing() {
    let anna = &[("x-user-id", "anna")];
    let long = "x".repeat(257);
    let (periodic, end) = (|| Entry::periodic("r1"), || Entry::end("r1"));
    let deny = json!({"decision": "deny", "reason": "full"});
    for (name, entry, expected) in [
        (
            "seen",
            periodic().allowed("anna", "request", "r1"),
            "renew anna request:r1",
        ),
        (
            "seen playing",
            periodic().allowed("anna", "playback", "p1"),
            "renew anna playback:p1",
        ),
        (
            "seen before the answer",
            periodic().headers(anna),
            "ignored",
        ),
        ("seen, denied", periodic().ours(&deny), "ignored"),
        (
            "ended",
            end().allowed("anna", "request", "r1").upstream(),
            "release anna request:r1",
        ),
        (
            "ended, without upstream",
            end().allowed("anna", "request", "r1"),
            "release anna request:r1",
        ),
        (
            "a request of a playback ended without a response",
            end().allowed("anna", "playback", "p1"),
            "failed anna playback:p1",
        ),
        (
            "a request of a playback was redirected inside Envoy",
            end()
                .allowed("anna", "playback", "p1")
                .details("internal_redirect")
                .answered(302),
            "ignored",
        ),
        ("a video's", end().allowed("anna", "video", "v1"), "ignored"),
        (
            "redirected",
            end()
                .allowed("anna", "request", "r1")
                .details("internal_redirect"),
            "ignored",
        ),
        (
            "other details",
            end()
                .allowed("anna", "request", "r1")
                .details("via_upstream"),
            "release anna request:r1",
        ),
        ("denied", end().ours(&deny).headers(anna), "ignored"),
        (
            "a HEAD",
            end().ours(&json!({"decision": "allow"})),
            "ignored",
        ),
        (
            "left during the check",
            end().headers(anna),
            "release anna request:r1",
        ),
        (
            "other metadata",
            end()
                .headers(anna)
                .metadata(&json!({"x": {"decision": "allow"}})),
            "release anna request:r1",
        ),
        (
            "somebody's own metadata",
            end().headers(anna).ours(&json!({"n": 3})),
            "release anna request:r1",
        ),
        (
            "decision is a number",
            end().headers(anna).ours(&json!({"decision": 1})),
            "release anna request:r1",
        ),
        (
            "let through without us",
            end().headers(anna).upstream(),
            "ignored",
        ),
        ("whose?", end(), "unattributed"),
        (
            "an empty user",
            end().headers(&[("x-user-id", "")]),
            "unattributed",
        ),
        (
            "a user too long",
            end().headers(&[("x-user-id", &long)]),
            "malformed",
        ),
        ("which?", Entry::end("").headers(anna), "unattributed"),
        (
            "an id too long",
            Entry::end(&long).headers(anna),
            "malformed",
        ),
        (
            "bad user in ours",
            end().allowed("", "request", "r1"),
            "malformed",
        ),
        (
            "bad kind in ours",
            end().allowed("anna", "film", "r1"),
            "malformed",
        ),
        (
            "bad session in ours",
            periodic().allowed("anna", "request", &long),
            "malformed",
        ),
        (
            "half of ours",
            end().ours(&json!({"decision": "allow", "user": "anna"})),
            "ignored",
        ),
        (
            "not text in ours",
            end()
                .ours(&json!({"decision": "allow", "user": 1, "kind": "request", "session": "r1"})),
            "ignored",
        ),
        (
            "a start",
            Entry::of(AccessLogType::DownstreamStart, "r1").allowed("anna", "request", "r1"),
            "ignored",
        ),
        (
            "upstream's",
            Entry::of(AccessLogType::UpstreamEnd, "r1").allowed("anna", "request", "r1"),
            "ignored",
        ),
        (
            "of no type",
            Entry::of(AccessLogType::NotSet, "r1").headers(anna),
            "ignored",
        ),
        ("nothing at all", Entry(Default::default()), "ignored"),
    ] {
        assert_eq!(one(entry), expected, "{name}");
    }
    let mut unknown = Entry::end("r1").headers(anna);
    unknown.common().access_log_type = 99;
    assert_eq!(one(unknown), "ignored");
    let mut no_request = Entry::end("r1");
    no_request.0.request = None;
    assert_eq!(one(no_request.clone()), "unattributed");
    assert_eq!(
        one(no_request.allowed("anna", "request", "r1")),
        "release anna request:r1"
    );
}

#[test]
fn a_playback_has_played_once_a_success_went_out() {
    let played = "played anna playback:p1";
    let failed = "failed anna playback:p1";
    for code in 0..600 {
        let expected = match code {
            101 | 200..=399 => played,
            _ => failed,
        };
        let entry = Entry::end("r1").allowed("anna", "playback", "p1");
        assert_eq!(one(entry.answered(code)), expected, "{code}");
        // A stream of its own ends, with any status.
        let entry = Entry::end("r1").allowed("anna", "request", "r1");
        assert_eq!(one(entry.answered(code)), "release anna request:r1");
    }
    // Anything after the headers changes nothing: a reset, or a gRPC error.
    let mut reset = Entry::end("r1")
        .allowed("anna", "playback", "p1")
        .answered(206);
    reset.common().response_flags = Some(ResponseFlags {
        upstream_connection_termination: true,
        ..ResponseFlags::default()
    });
    assert_eq!(one(reset), played);
}

#[test]
fn the_end_of_a_long_response_ends_its_separate_session() {
    let lease = Leases::default().request;
    for (kind, entry, seconds, expected) in [
        ("playback", Entry::end("r1"), 2, None),
        ("playback", Entry::end("r1"), 4, Some("request:r1")),
        (
            "playback",
            Entry::end("r1"),
            lease.as_secs(),
            Some("request:r1"),
        ),
        ("playback", Entry::end(""), 60, None),
        ("playback", Entry::periodic("r1"), 60, None),
        ("request", Entry::end("r1"), 60, None),
    ] {
        for code in [0, 200, 404] {
            let entry = entry.clone().allowed("anna", kind, "p1");
            let entry = entry.answered(code).lasting(seconds);
            let end = read(vec![entry]).remove(0).response_end;
            let ended = end.map(|key| key.to_string());
            assert_eq!(ended.as_deref(), expected, "{kind} {seconds} s, {code}");
        }
    }
}

#[test]
fn every_entry_reports_its_type() {
    for (kind, expected) in [
        (AccessLogType::DownstreamPeriodic, EntryType::Periodic),
        (AccessLogType::DownstreamEnd, EntryType::End),
        (AccessLogType::DownstreamStart, EntryType::Other),
        (AccessLogType::NotSet, EntryType::Other),
    ] {
        assert_eq!(read(vec![Entry::of(kind, "r1")])[0].entry, expected);
    }
}

#[test]
fn an_end_cancels_earlier_entries_of_its_stream_in_the_message() {
    let seen = |id: &str| Entry::periodic(id).allowed("anna", "request", id);
    let over = |id: &str| Entry::end(id).allowed("anna", "request", id);
    let redirected = |id: &str| over(id).details("internal_redirect");
    let left = |id: &str| Entry::end(id).headers(&[("x-user-id", "anna")]);
    let nameless = Entry::end("").allowed("anna", "request", "r1");
    let renew = "renew anna request:r1";
    let release = "release anna request:r1";
    for (entries, expected) in [
        (
            vec![seen("r1"), seen("r1"), over("r1")],
            vec!["superseded", "superseded", release],
        ),
        (vec![over("r1"), seen("r1")], vec![release, renew]),
        (
            vec![seen("r1"), over("r1"), seen("r1")],
            vec!["superseded", release, renew],
        ),
        (
            vec![seen("r1"), over("r2")],
            vec![renew, "release anna request:r2"],
        ),
        (vec![seen("r1"), redirected("r1")], vec![renew, "ignored"]),
        (
            vec![seen("r1"), redirected("r1"), over("r1")],
            vec!["superseded", "ignored", release],
        ),
        (vec![seen("r1"), left("r1")], vec!["superseded", release]),
        (
            vec![Entry::periodic("r1"), over("r1")],
            vec!["ignored", release],
        ),
        (
            vec![
                Entry::periodic("").allowed("anna", "request", "r1"),
                nameless,
            ],
            vec![renew, release],
        ),
    ] {
        let outcomes: Vec<_> = read(entries).iter().map(shown).collect();
        assert_eq!(outcomes, expected);
    }
    // The request that ends belonged to a playback: its earlier sign of life is obsolete as well.
    let seen = Entry::periodic("r1").allowed("anna", "playback", "p1");
    let over = Entry::end("r1").allowed("anna", "playback", "p1");
    let outcomes: Vec<_> = read(vec![seen, over]).iter().map(shown).collect();
    assert_eq!(outcomes, ["superseded", "failed anna playback:p1"]);
    assert!(read(Vec::new()).is_empty());
}

#[test]
fn a_sign_of_life_brings_what_is_needed_to_put_the_session_back() {
    let mut entry = Entry::periodic("r1")
        .path("/live?CMCD=cid%3D%22film%22")
        .headers(&[("x-device-id", "tv")])
        .metadata(&json!({
            "envoy.filters.http.ext_authz": {"decision": "allow", "user": "anna", "kind": "playback", "session": "p1"},
            "envoy.filters.http.jwt_authn": {"payload": {"plan": "gold"}},
        }));
    let time = |seconds, nanos| Some(WireTimestamp { seconds, nanos });
    for (start, expected) in [
        (time(1_800_000_000, 123_999_999), Some(1_800_000_000_123)),
        (time(-1, 0), None),
        (time(i64::MAX, 0), None),
        (None, None),
    ] {
        entry.common().start_time = start;
        let (seen, plan) = sighting(entry.clone());
        assert_eq!(seen.started_at, expected.map(Timestamp::from_millis));
        assert_eq!(seen.facts.device.unwrap().as_str(), "tv");
        assert_eq!(seen.facts.content.unwrap().as_str(), "film");
        assert_eq!(plan.unwrap().as_str(), "gold");
        assert_eq!(seen.lease, Duration::from_secs(30), "a playback's");
    }
    // Unreadable parts are not worth losing the stream, or the other parts, over.
    let long = "x".repeat(310);
    for (device, cid, facts, lost) in [
        (
            "\u{0}",
            "film",
            (None, Some("film".to_owned())),
            &["device left_out"][..],
        ),
        (
            &*long,
            "open%22",
            (Some(format!("{}…", "x".repeat(253))), None),
            &["device shortened", "content left_out"],
        ),
    ] {
        let broken = Entry::periodic("r1")
            .path(&format!("/live?CMCD=cid%3D%22{cid}%22"))
            .headers(&[("x-device-id", device)])
            .allowed("anna", "request", "r1");
        let losses = RefCell::new(Vec::new());
        let hear = |fact: Fact, loss: FactLoss| {
            let told = format!("{} {}", fact.as_str(), loss.as_str());
            losses.borrow_mut().push(told);
        };
        let (identity, leases) = (Identity::default(), Leases::default());
        read_all(&[broken.sent()], &identity, &leases, &hear);
        assert_eq!(losses.into_inner(), lost);
        let (seen, plan) = sighting(broken);
        let (device, content) = (seen.facts.device, seen.facts.content);
        let told = (
            device.map(|device| device.to_string()),
            content.map(|content| content.to_string()),
        );
        assert_eq!((told, plan), (facts, None));
        assert_eq!(seen.lease, Duration::from_secs(15), "a request's");
    }
}

#[test]
fn each_entry_result_has_a_label() {
    for (entry, expected) in [
        (
            Entry::periodic("r1").allowed("anna", "request", "r1"),
            EntryOutcome::Renewal,
        ),
        (
            Entry::end("r1").allowed("anna", "request", "r1"),
            EntryOutcome::Release,
        ),
        (
            Entry::end("r1")
                .allowed("anna", "playback", "p1")
                .answered(200),
            EntryOutcome::Played,
        ),
        (
            Entry::end("r1")
                .allowed("anna", "playback", "p1")
                .answered(404),
            EntryOutcome::Failed,
        ),
    ] {
        let reading = read(vec![entry]).remove(0);
        assert_eq!(reading.outcome, expected);
        assert!(reading.notice.is_some(), "{expected:?}");
    }
}
