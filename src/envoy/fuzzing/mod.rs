//! Properties of the decoders of everything that clients send through Envoy. See
//! [`crate::fuzzing`].
//!
//! Messages are protobuf, or a text that mutates well: an `HTTP`-like head, in which lines that
//! begin with `!` hold what isn't HTTP.

mod cookie;
mod log;
mod request;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, Metadata};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{self, AttributeContext};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Duration, Struct, Timestamp, UInt32Value, Value};
use prost::Message;

use crate::config::{Changeable, Leases};
use crate::envoy::access_log::entry;
use crate::envoy::check::claim::{self, CheckContext};
use crate::envoy::fuzzing::cookie::{NEW, WithCookie};
use crate::envoy::fuzzing::request::read;
use crate::envoy::wire::attributes::CheckAttributes;
use crate::envoy::wire::entry::{LogEntry, OUR_NAMESPACE};
use crate::fuzzing::{assert_are_names, assert_is_name, cut, text};
use crate::http::fuzzing::basic_credentials;
use crate::identity::claim::{CheckKind, ClaimError};
use crate::identity::cmcd::{self, CmcdError};
use crate::identity::find::{Flaw, JWT_NAMESPACE, find};
use crate::identity::{
    ContentId, DeviceId, Fact, FactLoss, FactName, Facts, Identity, Kind, PlanName, RouteLists,
    Source, Takeover,
};
use crate::outbox::Notice;
use crate::session::Ending;
use crate::telemetry::metrics::{EntryOutcome, EntryType};

/// The lists of sources that messages are read with: for users, and for sessions.
const LISTS: [(&str, &str); 6] = [
    (
        "header:x-user-id",
        "header:x-playback-session-id,cmcd:sid,query:session,request",
    ),
    ("cookie:uid", "cookie:sid,request"),
    ("basic", "path:^/vod/([^/]+),request"),
    (
        "jwt:realm.sub,principal",
        "header:x-device-id+path:^/vod/([^/]+),cmcd:sid",
    ),
    (
        "context:user,query:user",
        "cookie:sid+query:session+header:x-device-id,request",
    ),
    ("basic+cookie:uid", "query:session+cmcd:sid,request"),
];

/// The same, parsed; the other facts have their default sources.
pub(in crate::envoy) static IDENTITIES: LazyLock<Vec<Identity>> = LazyLock::new(|| {
    let list = |text| Source::parse_list(text).unwrap_or_default();
    let identity = |(user, session)| Identity {
        user: list(user),
        session: list(session),
        ..Identity::default()
    };
    LISTS.map(identity).into()
});

/// The maximum length of an error: it may repeat the operator's text, not the client's.
const MAX_WORDS: usize = 400;

// === messages out of bytes ===

/// A message written as lines of text.
#[derive(Debug, Default)]
struct Written<'a> {
    /// The text after the names of `!`-lines, in order.
    special: Vec<(&'a str, &'a [u8])>,
    /// The text before and after the first colon of the other lines.
    headers: Vec<(String, &'a [u8])>,
    /// The first line's words.
    words: [String; 2],
}

impl<'a> Written<'a> {
    /// Parses such a text.
    fn read(data: &'a [u8]) -> Self {
        let mut written = Self::default();
        for (number, line) in data.split(|byte| *byte == b'\n').enumerate() {
            let (name, value) = match line.strip_prefix(b"!") {
                _ if number == 0 => {
                    let (first, second) = cut(line, b' ');
                    written.words = [text(first), text(second)];
                    continue;
                }
                Some(line) => {
                    let (name, value) = cut(line, b' ');
                    written
                        .special
                        .extend(std::str::from_utf8(name).map(|name| (name, value)));
                    continue;
                }
                None => cut(line, b':'),
            };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let is_header = !name.is_empty() && name.is_ascii();
            written
                .headers
                .extend(is_header.then(|| (text(name).to_ascii_lowercase(), value)));
        }
        written
    }

    /// The text after that name.
    fn said(&self, name: &str) -> Option<&'a [u8]> {
        let mut lines = self.special.iter();
        lines
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    }

    /// The number after that name.
    fn number(&self, name: &str) -> Option<i64> {
        text(self.said(name)?).parse().ok()
    }

    /// Names and values in lines with that name, as `name: value`.
    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let lines = self.special.iter().filter(|(other, _)| *other == name);
        let pair = |value| {
            let (key, value) = cut(value, b':');
            (text(key), text(value.strip_prefix(b" ").unwrap_or(value)))
        };
        lines.map(|(_, value)| pair(value)).collect()
    }

    /// The headers as Envoy joins them.
    fn joined_headers(&self) -> HashMap<String, String> {
        let mut joined: HashMap<String, String> = HashMap::new();
        for (name, value) in &self.headers {
            let value = text(value);
            joined
                .entry(name.clone())
                .and_modify(|earlier| *earlier = format!("{earlier},{value}"))
                .or_insert(value);
        }
        joined
    }

    /// A check.
    fn check(&self) -> v3::CheckRequest {
        let header = |(name, value): &(String, &[u8])| HeaderValue {
            key: name.clone(),
            raw_value: (*value).into(),
            ..HeaderValue::default()
        };
        let is_raw = self.said("raw").is_some();
        let [method, path] = self.words.clone();
        let http = HttpRequest {
            method,
            path,
            header_map: is_raw.then(|| HeaderMap {
                headers: self.headers.iter().map(header).collect(),
            }),
            headers: if is_raw {
                HashMap::new()
            } else {
                self.joined_headers()
            },
            ..HttpRequest::default()
        };
        let request = Request {
            http: Some(http),
            ..Request::default()
        };
        let jwt = text_fields(&self.pairs("jwt"));
        let principal = self.said("principal").map(|principal| Peer {
            principal: text(principal),
            ..Peer::default()
        });
        let attributes = AttributeContext {
            source: principal,
            request: Some(request),
            context_extensions: self.pairs("context").into_iter().collect(),
            metadata_context: Some(metadata(JWT_NAMESPACE, fields(&[("realm", object(jwt))]))),
            ..AttributeContext::default()
        };
        v3::CheckRequest {
            attributes: Some(attributes),
        }
    }

    /// An access log entry.
    fn entry(&self) -> HttpAccessLogEntry {
        let kind = match self.words[0].as_str() {
            "periodic" => AccessLogType::DownstreamPeriodic,
            "end" => AccessLogType::DownstreamEnd,
            _ => AccessLogType::NotSet,
        };
        let ours = text_fields(&self.pairs("ours"));
        let common = AccessLogCommon {
            access_log_type: kind.into(),
            metadata: (!ours.fields.is_empty()).then(|| metadata(OUR_NAMESPACE, ours)),
            upstream_remote_address: self.said("upstream").map(|_| Address::default()),
            start_time: self.number("time").map(|seconds| Timestamp {
                seconds,
                nanos: i32::MIN,
            }),
            duration: self
                .number("seconds")
                .map(|seconds| Duration { seconds, nanos: 0 }),
            ..AccessLogCommon::default()
        };
        let request = HttpRequestProperties {
            request_id: self.said("id").map(text).unwrap_or_default(),
            path: self.words[1].clone(),
            request_headers: self.joined_headers(),
            ..HttpRequestProperties::default()
        };
        let code = self
            .number("code")
            .and_then(|code| u32::try_from(code).ok());
        let response = HttpResponseProperties {
            response_code: code.map(|value| UInt32Value { value }),
            response_code_details: self.said("details").map(text).unwrap_or_default(),
            ..HttpResponseProperties::default()
        };
        HttpAccessLogEntry {
            common_properties: Some(common),
            request: Some(request),
            response: Some(response),
            ..HttpAccessLogEntry::default()
        }
    }
}

/// A structure of texts.
fn text_fields(pairs: &[(String, String)]) -> Struct {
    let value = |text: &String| Value {
        kind: Some(ValueKind::StringValue(text.clone())),
    };
    Struct {
        fields: pairs
            .iter()
            .map(|(name, text)| (name.clone(), value(text)))
            .collect(),
    }
}

/// A structure of structures.
fn fields(pairs: &[(&str, Value)]) -> Struct {
    let pairs = pairs.iter();
    Struct {
        fields: pairs
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }
}

/// A structure as a value, nested under the name that operators give to payloads.
fn object(inner: Struct) -> Value {
    Value {
        kind: Some(ValueKind::StructValue(inner)),
    }
}

/// The metadata of one of Envoy's filters.
fn metadata(namespace: &str, left: Struct) -> Metadata {
    Metadata {
        filter_metadata: HashMap::from([(namespace.to_owned(), left)]),
        ..Metadata::default()
    }
}

// === checks ===

/// The message of a check, out of protobuf or text.
pub(in crate::envoy) fn check(data: &[u8]) -> Option<Vec<u8>> {
    let (&first, rest) = data.split_first()?;
    Some(if first == b'p' {
        rest.to_vec()
    } else {
        Written::read(rest).check().encode_to_vec()
    })
}

/// A check: an accepted name is valid, the result is the same twice, and errors repeat nothing of
/// the input.
pub(crate) fn claim(data: &[u8]) {
    let Some(message) = check(data) else {
        return;
    };
    let request = read(&message);
    let routes = RouteLists::default();
    for identity in IDENTITIES.iter() {
        let losses = RefCell::default();
        let lost = |fact, loss| Vec::push(&mut losses.borrow_mut(), (fact, loss));
        let decoded = claim::decode(&request, identity, &routes, || NEW, lost);
        let again = claim::decode(&request, identity, &routes, || NEW, |_, _| {});
        assert_eq!(format!("{decoded:?}"), format!("{again:?}"));
        match decoded {
            Ok(CheckKind::Stream(claim, cookie, _)) => {
                if let Some(cookie) = &cookie {
                    let with_cookie = WithCookie {
                        request: &request,
                        identity,
                        routes: &routes,
                        claim: &claim,
                        cookie,
                    };
                    with_cookie.assert();
                }
                assert_is_name(claim.user.as_str());
                assert_is_name(claim.key.id.as_str());
                assert_facts_are_names(&claim.facts);
                assert_losses(&claim.facts, &losses.into_inner());
                assert_are_names(claim.plan.as_ref().map(PlanName::as_str));
                if let Some(Takeover::Session(id)) = &claim.takeover {
                    assert_is_name(id.as_str());
                }
                assert_eq!(claim::user_of(&request, identity), Some(claim.user));
                assert!(matches!(claim.key.kind, Kind::Request | Kind::Playback));
                assert!(claim.takeover.is_none() || claim.key.kind == Kind::Playback);
                if claim.key.kind == Kind::Request {
                    let settings = Arc::<Changeable>::default();
                    let context = CheckContext::of(&request, None, settings, None);
                    assert_eq!(context.request.request_id, claim.key.id.as_str());
                }
            }
            Ok(CheckKind::Head) => assert!(claim::user_of(&request, identity).is_some()),
            Err(ClaimError::NoUser) => assert_eq!(claim::user_of(&request, identity), None),
            // A route's text is the operator's, of any length.
            Ok(CheckKind::Preflight) | Err(ClaimError::Misconfigured(..)) => {}
            Err(unclaimed) => {
                let of_operator = match &unclaimed {
                    ClaimError::Malformed { source_name, .. } => source_name.len(),
                    _ => 0,
                };
                assert!(unclaimed.to_string().len() - of_operator <= MAX_WORDS);
            }
        }
    }
}

/// The facts in addition to a session's key are valid names too.
fn assert_facts_are_names(facts: &Facts) {
    assert_are_names(facts.device.as_ref().map(DeviceId::as_str));
    assert_are_names(facts.content.as_ref().map(ContentId::as_str));
}

/// A shortened fact is a prefix, one that was left out is absent, and each loss is reported once.
fn assert_losses(facts: &Facts, losses: &[(Fact, FactLoss)]) {
    let device = facts.device.as_ref().map(FactName::is_shortened);
    let content = facts.content.as_ref().map(FactName::is_shortened);
    for (fact, is_shortened) in [(Fact::Device, device), (Fact::Content, content)] {
        let mut told = losses.iter().filter(|(lost, _)| *lost == fact);
        match told.next() {
            None => assert_ne!(is_shortened, Some(true), "{fact:?}"),
            Some((_, FactLoss::Shortened)) => assert_eq!(is_shortened, Some(true), "{fact:?}"),
            Some((_, FactLoss::LeftOut)) => assert_eq!(is_shortened, None, "{fact:?}"),
        }
        assert_eq!(told.next(), None);
    }
}

// === CMCD ===

/// A CMCD payload: a text survives a round trip; a second id that differs is never ignored,
/// wherever it is; and an unreadable value doesn't affect others.
pub(crate) fn cmcd(data: &[u8]) {
    let payload = text(data);
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let round = format!("bl=21300,sid=\"{}\",su", quoted(&payload));
    assert_eq!(
        cmcd::value(&round, "sid"),
        Ok(Some(payload.as_str().into()))
    );
    for key in ["sid", "cid"] {
        let found = cmcd::value(&payload, key);
        let other = |value: &str| format!("{payload},{key}=\"{}\"", quoted(value));
        match found {
            Ok(Some(value)) => {
                assert!(value.len() <= payload.len());
                // What is open at the end of a payload may be closed by a quoted value, but not by
                // a plain one.
                let differs = if cmcd::is_readable(&payload) {
                    assert_eq!(
                        cmcd::value(&other(&value), key),
                        Ok(Some(value.clone())),
                        "the same twice"
                    );
                    format!("{value}x")
                } else {
                    format!("x{}", value.len())
                };
                let expected = if differs == value {
                    Ok(Some(value))
                } else {
                    Err(CmcdError::Repeated)
                };
                assert_eq!(cmcd::value(&other(&differs), key), expected);
            }
            Ok(None) => assert_eq!(cmcd::value(&other("x"), key), Ok(Some("x".into()))),
            Err(flaw) => {
                let earlier = format!("{key}=x,{payload}");
                assert!(cmcd::value(&earlier, key).is_err(), "{flaw}");
            }
        }
        if !payload.contains(key) {
            let neighbour = format!("xx={payload},{key}=\"x\"");
            match cmcd::value(&neighbour, key) {
                Err(CmcdError::Unreadable) => assert!(payload.matches(',').count() >= 16),
                found => assert_eq!(found, Ok(Some("x".into()))),
            }
        }
    }
}

// === entries ===

/// An access log message, as protobuf or text: each entry has one meaning, names are valid, an
/// entry ends a `request` or reports that a playback failed, and nothing that has ended within the
/// message is seen running.
pub(crate) fn entry(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let entries = if first == b'p' {
        log::read(rest);
        let message = StreamAccessLogsMessage::decode(rest).unwrap_or_default();
        match message.log_entries {
            Some(LogEntries::HttpLogs(http)) => http.log_entry,
            Some(LogEntries::TcpLogs(_)) | None => return,
        }
    } else {
        let blocks = rest.split(|byte| *byte == b'~');
        blocks
            .map(|block| Written::read(block.trim_ascii_start()).entry())
            .collect()
    };
    let leases = Leases::default();
    let sent: Vec<Vec<u8>> = entries.iter().map(Message::encode_to_vec).collect();
    let sent: Vec<_> = sent
        .iter()
        .map(|sent| LogEntry::read(sent).unwrap_or_default())
        .collect();
    for identity in IDENTITIES.iter() {
        let readings = entry::read_all(&sent, identity, &leases, &|_, _| {});
        let again = entry::read_all(&sent, identity, &leases, &|_, _| {});
        assert_eq!(format!("{readings:?}"), format!("{again:?}"));
        assert_eq!(readings.len(), entries.len());
        let mut ended = HashSet::new();
        for (reading, entry) in readings.iter().zip(&entries).rev() {
            let id = entry.request.as_ref().map_or("", |it| &it.request_id);
            let redirected = entry
                .response
                .as_ref()
                .is_some_and(|it| it.response_code_details == "internal_redirect");
            if let Some((user, notice)) = &reading.notice {
                assert_is_name(user.as_str());
                assert_notice(notice, reading.entry, &leases);
                if let Some(key) = &reading.response_end {
                    assert_eq!((reading.entry, key.kind), (EntryType::End, Kind::Request));
                    assert_is_name(key.id.as_str());
                }
                assert!(!redirected || reading.entry == EntryType::Periodic || !is_let_in(entry));
                assert!(reading.entry != EntryType::Periodic || !ended.contains(id));
            } else {
                assert!(reading.response_end.is_none());
                assert!(reading.outcome != EntryOutcome::Superseded || ended.contains(id));
            }
            if reading.entry == EntryType::End && !redirected && !id.is_empty() {
                ended.insert(id.to_owned());
            }
        }
    }
}

/// Whether an entry shows that we let its request in.
fn is_let_in(entry: &HttpAccessLogEntry) -> bool {
    let common = entry.common_properties.as_ref();
    let metadata = common.and_then(|common| common.metadata.as_ref());
    let ours = metadata.and_then(|it| it.filter_metadata.get(OUR_NAMESPACE));
    let decision = ours.and_then(|ours| ours.fields.get("decision")?.kind.clone());
    decision == Some(ValueKind::StringValue("allow".to_owned()))
}

/// The notice is possible for an entry of that type.
fn assert_notice(notice: &Notice, entry: EntryType, leases: &Leases) {
    match notice {
        Notice::Renew(sighting, _, _) => {
            assert_eq!(entry, EntryType::Periodic);
            assert_is_name(sighting.key.id.as_str());
            assert_facts_are_names(&sighting.facts);
            assert_eq!(sighting.lease, leases.of(sighting.key.kind));
        }
        Notice::Release(key, ending) => {
            assert_eq!(entry, EntryType::End);
            assert_is_name(key.id.as_str());
            let allowed = [
                (Kind::Request, Ending::Stream),
                (Kind::Request, Ending::Abandoned),
                (Kind::Playback, Ending::Failed),
            ];
            assert!(allowed.contains(&(key.kind, *ending)), "{notice:?}");
        }
        Notice::Played(key) => {
            assert_eq!((entry, key.kind), (EntryType::End, Kind::Playback));
        }
    }
}

// === cookies, Basic, what is joined ===

/// Sources with several values in one text.
pub(crate) fn identity(data: &[u8]) {
    let (first, rest) = cut(data, b'\n');
    let (second, third) = cut(rest, b'\n');
    cookies(first);
    basic(first, second);
    all_joined([&text(first), &text(second), &text(third)]);
}

/// Lists of parts that are easily confused.
fn all_joined([first, second, third]: [&str; 3]) {
    let plus = |one: &str, other: &str| format!("{one}+{other}");
    joined([first, second], [third, first]);
    joined([&plus(first, second), third], [first, &plus(second, third)]);
    for sign in ["+", "%2B", "%25", "%"] {
        let with = |sign: &str| format!("{first}{sign}{second}");
        joined([&with(sign), third], [&with("+"), third]);
        joined([third, &with(sign)], [third, &with("%")]);
        joined([&with(sign), third], [first, &plus(second, third)]);
    }
}

/// What a source finds in a request with those header lines.
fn in_request(source: &str, path: &str, lines: &[(&str, &[u8])]) -> Result<Option<String>, Flaw> {
    let sources = Source::parse_list(source).unwrap_or_default();
    assert!(!sources.is_empty(), "{source} is a source");
    let headers = lines.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: (*value).into(),
        ..HeaderValue::default()
    });
    let http = HttpRequest {
        path: path.to_owned(),
        header_map: Some(HeaderMap {
            headers: headers.collect(),
        }),
        ..HttpRequest::default()
    };
    let request = Request {
        http: Some(http),
        ..Request::default()
    };
    let attributes = AttributeContext {
        request: Some(request),
        ..AttributeContext::default()
    };
    let check = v3::CheckRequest {
        attributes: Some(attributes),
    };
    let message = check.encode_to_vec();
    let check = read(&message);
    let Some(evidence) = CheckAttributes::of(&check) else {
        return Ok(None);
    };
    match find(&sources, &evidence) {
        Ok(found) => Ok(found.map(|(_, text)| Cow::into_owned(text))),
        Err((_, flaw)) => Err(flaw),
    }
}

/// A cookie is a part of its line; a second one that differs is never ignored, in any line.
fn cookies(line: &[u8]) {
    let cookie = |lines: &[&[u8]]| {
        let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
        in_request("cookie:sid", "/", &lines)
    };
    let found = cookie(&[line]);
    match &found {
        Ok(Some(value)) => {
            assert!(text(line).contains(value.as_str()) && !value.contains(';'));
            let other = format!("sid={}x", value.trim());
            for lines in [[line, other.as_bytes()], [other.as_bytes(), line]] {
                assert_eq!(cookie(&lines), Err(Flaw::Repeated), "{value:?}");
            }
            let one = [line, b"; ", other.as_bytes()].concat();
            assert_eq!(cookie(&[&one]), Err(Flaw::Repeated));
        }
        Ok(None) => assert_eq!(cookie(&[line, b"sid=x"]), Ok(Some("x".to_owned()))),
        Err(Flaw::NotText) => assert!(std::str::from_utf8(line).is_err()),
        Err(flaw) => assert_eq!(flaw, &Flaw::Repeated),
    }
    assert_eq!(cookie(&[line, line]), found, "the same twice");
}

/// The name in `Authorization: Basic` survives a round trip with any password; and both doors that
/// read it agree.
fn basic(name: &[u8], password: &[u8]) {
    let header = |password: &[u8]| {
        let encoded = BASE64_STANDARD.encode([name, b":", password].concat());
        format!("Basic {encoded}")
    };
    let found = |header: &str| in_request("basic", "/", &[("authorization", header.as_bytes())]);
    if let (Ok(name), Ok(_)) = (std::str::from_utf8(name), std::str::from_utf8(password)) {
        let expected = name.split(':').next().filter(|name| !name.is_empty());
        for header in [header(password), header(b"")] {
            assert_eq!(found(&header), Ok(expected.map(ToOwned::to_owned)));
        }
    } else {
        assert_eq!(found(&header(password)), Err(Flaw::NotBasic));
    }
    // Unencoded, too.
    for written in [
        text(name),
        format!("Basic {}", text(name)),
        header(password),
    ] {
        if !written.is_ascii() || written.contains(|it: char| it.is_ascii_control()) {
            continue;
        }
        let there = basic_credentials(&written).filter(|(name, _)| !name.is_empty());
        let here = found(&written).ok().flatten();
        assert_eq!(here, there.map(|(name, _)| name), "{written:?}");
    }
}

/// Two lists of parts are joined to the same text only if they are equal.
fn joined(one: [&str; 2], two: [&str; 2]) {
    let join = |[first, second]: [&str; 2]| {
        let lines = [("x-a", first.as_bytes()), ("x-b", second.as_bytes())];
        in_request("header:x-a+header:x-b", "/", &lines)
    };
    let (first, second) = (join(one), join(two));
    for (parts, whole) in [(one, &first), (two, &second)] {
        let is_whole = parts.iter().all(|part| !part.is_empty());
        assert_eq!(whole.as_ref().is_ok_and(Option::is_some), is_whole);
    }
    if let (Ok(Some(first)), Ok(Some(second))) = (first, second) {
        assert_eq!(first == second, one == two, "{one:?} {two:?}");
    }
}
