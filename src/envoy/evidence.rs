//! Where the names of users and sessions are looked for, in a check and in an access log entry alike.
//!
//! [`Evidence`] is what a message has to show; [`find`] goes through a list of sources until one has something. What is there but
//! can't be a name is an error, never a reason to look further: otherwise a client could choose which source counts.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use envoy_types::pb::google::protobuf::Struct;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::request::{self, Attributes, CheckRequest, HeaderMap, HttpRequest, RawHeader};
use super::{cmcd, jwt};
use crate::config::{PathPattern, Source};
use crate::session::JoinedOrigin;

/// Where Envoy's JWT filter leaves the claims of a verified token.
pub(super) const JWT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// Where Envoy leaves what we answered to a check.
pub(super) const OUR_NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// The header that carries Envoy's id of the request.
const REQUEST_ID: &str = "x-request-id";

/// Why what a source has can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// It isn't text.
    #[error("is not UTF-8")]
    NotText,
    /// It is there more than once, and not the same.
    #[error("is given more than once, with different values")]
    Repeated,
    /// It is a list, an object, or a number with a fraction.
    #[error("is neither a text nor a whole number")]
    NotAName,
    /// It is no name and password.
    #[error("is not a name and a password as HTTP Basic has them")]
    NotBasic,
    /// It stands in a CMCD payload that can't be read.
    #[error("stands in a CMCD payload that {0}")]
    Cmcd(#[from] cmcd::CmcdError),
}

/// What a message has to show of the request it is about.
pub(super) trait Evidence {
    /// A request header, by its lower-case name. Repeated ones are joined by commas, as HTTP has it.
    fn header(&self, name: &str) -> Found<'_>;
    /// A request header that names somebody or something. Where repetitions can be told apart, they must agree: of two names in one
    /// request neither is to be believed.
    fn name_header(&self, name: &str) -> Found<'_> {
        self.header(name)
    }
    /// Each line of a request header, byte for byte. Where they can't be told apart, they are joined by commas.
    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// The name in the client's certificate: the first of its addresses, or else of its hosts, or else its subject.
    fn principal(&self) -> Option<&str>;
    /// The path with its query.
    fn path(&self) -> &str;
    /// The metadata that Envoy's filters have left.
    fn metadata(&self, namespace: &str) -> Option<&Struct>;
    /// What the route says to us.
    fn context(&self, key: &str) -> Option<&str>;
    /// Envoy's id of the request.
    fn request_id(&self) -> Found<'_>;
}

/// What a source has: nothing, a text, or something that can't be one.
pub(super) type Found<'e> = Result<Option<Cow<'e, str>>, Flaw>;

/// Something, and the source that has it.
pub(super) type With<'s, T> = (&'s Source, T);

/// What a list of sources has.
pub(super) type Finding<'s, 'e> = Result<Option<With<'s, Cow<'e, str>>>, With<'s, Flaw>>;

/// The first source that has something, and what it has. An empty value is absent.
pub(super) fn find<'s, 'e>(
    sources: impl IntoIterator<Item = &'s Source>,
    evidence: &'e impl Evidence,
) -> Finding<'s, 'e> {
    for source in sources {
        match look(source, evidence) {
            Ok(Some(text)) if !text.is_empty() => return Ok(Some((source, text))),
            Ok(_) => {}
            Err(flaw) => return Err((source, flaw)),
        }
    }
    Ok(None)
}

/// What one source has.
fn look<'e>(source: &Source, evidence: &'e impl Evidence) -> Found<'e> {
    match source {
        Source::Header(name) => evidence.name_header(name.as_str()),
        Source::Query(name) => query(evidence.path(), name),
        Source::Cmcd(key) => cmcd_value(evidence, key),
        Source::Jwt(path) => evidence
            .metadata(JWT_NAMESPACE)
            .map_or(Ok(None), |payloads| jwt::claim(payloads, path)),
        Source::Context(key) => Ok(evidence.context(key).map(Cow::from)),
        Source::Cookie(name) => cookie(evidence, name),
        Source::Path(pattern) => in_path(evidence.path(), pattern),
        Source::Basic => basic_name(evidence),
        Source::Principal => Ok(evidence.principal().map(Cow::from)),
        Source::Joined(parts) => joined(parts, evidence),
        Source::Request => evidence.request_id(),
    }
}

/// A digest of what the parts of a joined source have, but for the path: what one device's playbacks of different content have in common.
/// `None` where there is no other part, or one has nothing.
pub(super) fn joined_origin(source: &Source, evidence: &impl Evidence) -> Option<JoinedOrigin> {
    let Source::Joined(parts) = source else {
        return None;
    };
    let mut hash = Sha256::new();
    let mut is_empty = true;
    for part in parts {
        if !matches!(part, Source::Path(_)) {
            let text = look(part, evidence).ok().flatten()?;
            hash.update(text.as_bytes());
            // No name has a control character, so where a part ends is plain.
            hash.update([0]);
            is_empty = false;
        }
    }
    let digest = hash.finalize();
    let number = digest.iter().take(8);
    let number = number.fold(0, |number, byte| number << 8 | u64::from(*byte));
    (!is_empty).then_some(JoinedOrigin(number))
}

/// What several sources have together. A plus within a part is escaped, so that no two lists of parts are joined alike.
fn joined<'e>(parts: &[Source], evidence: &'e impl Evidence) -> Found<'e> {
    let mut whole = String::new();
    for (index, part) in parts.iter().enumerate() {
        let Some(text) = look(part, evidence)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if index > 0 {
            whole.push('+');
        }
        for character in text.chars() {
            match character {
                '%' => whole.push_str("%25"),
                '+' => whole.push_str("%2B"),
                other => whole.push(other),
            }
        }
    }
    Ok(Some(whole.into()))
}

/// A cookie, without the quotes that may stand around it.
fn cookie<'e>(evidence: &'e impl Evidence, name: &str) -> Found<'e> {
    let mut found = None;
    for line in evidence.raw_lines("cookie") {
        for pair in line.split(|byte| *byte == b';') {
            let Some(value) = value_in(pair, name) else {
                continue;
            };
            // Other sites' cookies may be no text.
            let value = std::str::from_utf8(value).map_err(|_| Flaw::NotText)?;
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            keep_one(&mut found, bare.unwrap_or(value).to_owned().into())?;
        }
    }
    Ok(found)
}

/// What follows the `=` in a cookie of that name.
fn value_in<'c>(cookie: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let named = cookie.trim_ascii_start().strip_prefix(name.as_bytes())?;
    named.trim_ascii_start().strip_prefix(b"=")
}

/// What a pattern finds in the path, decoded.
fn in_path<'e>(path: &'e str, pattern: &PathPattern) -> Found<'e> {
    let path = path.split('?').next().unwrap_or_default();
    let Some(found) = pattern.find(path) else {
        return Ok(None);
    };
    let decoded = percent_decode_str(found).decode_utf8();
    decoded.map(Some).map_err(|_| Flaw::NotText)
}

/// The name in an `Authorization` header of the scheme `Basic` (RFC 7617). Another scheme's header names nobody here.
fn basic_name<'e>(evidence: &'e impl Evidence) -> Found<'e> {
    let Some(header) = evidence.name_header("authorization")? else {
        return Ok(None);
    };
    let Some((scheme, credentials)) = header.split_once(' ') else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = BASE64_STANDARD.decode(credentials.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let name = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (name, _password) = name.ok_or(Flaw::NotBasic)?;
    Ok(Some(name.to_owned().into()))
}

/// A parameter of the query, decoded.
fn query<'a>(path: &'a str, name: &str) -> Found<'a> {
    let mut found = None;
    for value in parameters(path, name) {
        keep_one(&mut found, decode(value)?)?;
    }
    Ok(found)
}

/// All parameters of the query that have that name, not decoded.
fn parameters<'a>(path: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (_, query) = path.split_once('?').unwrap_or_default();
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A name that isn't text is nobody's.
        decode(key).is_ok_and(|key| key == name).then_some(value)
    })
}

/// Undoes percent-encoding, and the plus that forms write for a space.
fn decode(text: &str) -> Result<Cow<'_, str>, Flaw> {
    match decode_bytes(text) {
        Cow::Borrowed(_) => Ok(text.into()),
        Cow::Owned(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| Flaw::NotText)?;
            Ok(text.into())
        }
    }
}

/// The same of what may be no text.
fn decode_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return text.as_bytes().into();
    }
    let spaced = text.replace('+', " ");
    Cow::<[u8]>::from(percent_decode_str(&spaced))
        .into_owned()
        .into()
}

/// A key of the CMCD payloads in headers and query. There may be several: a manifest's addresses have one, and the player adds its own.
fn cmcd_value<'e>(evidence: &'e impl Evidence, key: &str) -> Found<'e> {
    let mut found = None;
    for name in cmcd::HEADERS {
        for line in evidence.raw_lines(name) {
            keep_cmcd(&mut found, line, key)?;
        }
    }
    for payload in parameters(evidence.path(), cmcd::QUERY) {
        keep_cmcd(&mut found, &decode_bytes(payload), key)?;
    }
    Ok(found)
}

/// Keeps a key's value of one payload. Another key's value may be no text.
fn keep_cmcd(found: &mut Option<Cow<'_, str>>, payload: &[u8], key: &str) -> Result<(), Flaw> {
    let text = String::from_utf8_lossy(payload);
    let is_lossy = matches!(text, Cow::Owned(_));
    let Some(value) = cmcd::value(&text, key)? else {
        return Ok(());
    };
    if is_lossy && value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Flaw::NotText);
    }
    keep_one(found, value.into_owned().into())
}

/// Keeps the first value, and objects to a second that differs. An empty one is none.
pub(super) fn keep_one<'a>(
    found: &mut Option<Cow<'a, str>>,
    value: Cow<'a, str>,
) -> Result<(), Flaw> {
    match found {
        _ if value.is_empty() => Ok(()),
        Some(earlier) if *earlier != value => Err(Flaw::Repeated),
        Some(_) => Ok(()),
        None => {
            *found = Some(value);
            Ok(())
        }
    }
}

/// What a check has to show.
#[derive(Debug)]
pub(super) struct CheckEvidence<'a> {
    /// The whole of it.
    attributes: &'a Attributes,
    /// The request in it.
    http: &'a HttpRequest,
}

impl<'a> CheckEvidence<'a> {
    /// The evidence of a check on an HTTP request; `None` if it is on something else.
    pub(super) fn of(request: &'a CheckRequest) -> Option<Self> {
        let (attributes, http) = (request.attributes.as_ref()?, request.http()?);
        Some(Self { attributes, http })
    }

    /// The request itself.
    pub(super) const fn http(&self) -> &'a HttpRequest {
        self.http
    }
}

impl Evidence for CheckEvidence<'_> {
    fn header(&self, name: &str) -> Found<'_> {
        match &self.http.header_map {
            Some(raw) => {
                let mut joined: Option<Cow<'_, str>> = None;
                for value in raw_values(raw, name) {
                    let value = value?;
                    joined = Some(
                        joined.map_or(value.into(), |earlier| format!("{earlier},{value}").into()),
                    );
                }
                Ok(joined)
            }
            None => Ok(request::text(&self.http.headers, name).map(Cow::from)),
        }
    }

    fn name_header(&self, name: &str) -> Found<'_> {
        let Some(raw) = &self.http.header_map else {
            return self.header(name);
        };
        let mut found = None;
        for value in raw_values(raw, name) {
            keep_one(&mut found, value?.into())?;
        }
        Ok(found)
    }

    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let raw = self.http.header_map.as_ref();
        let joined = match raw {
            Some(_) => None,
            None => request::text(&self.http.headers, name),
        };
        let lines = raw
            .into_iter()
            .flat_map(move |raw| headers_named(raw, name));
        let joined = joined.into_iter().map(str::as_bytes);
        lines.map(RawHeader::bytes).chain(joined)
    }

    fn principal(&self) -> Option<&str> {
        let source = self.attributes.source.as_ref()?;
        Some(&source.principal)
    }

    fn path(&self) -> &str {
        &self.http.path
    }

    fn metadata(&self, namespace: &str) -> Option<&Struct> {
        in_namespace(self.attributes.metadata_context.as_ref(), namespace)
    }

    fn context(&self, key: &str) -> Option<&str> {
        request::text(&self.attributes.context_extensions, key)
    }

    fn request_id(&self) -> Found<'_> {
        self.header(REQUEST_ID)
    }
}

/// The values of a header as they came over the wire (`encode_raw_headers`), each on its own.
fn raw_values<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> impl Iterator<Item = Result<&'a str, Flaw>> {
    headers_named(headers, name)
        .map(|header| std::str::from_utf8(header.bytes()).map_err(|_| Flaw::NotText))
}

/// The headers of that name.
fn headers_named<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a RawHeader> {
    let named = move |header: &&RawHeader| header.key.eq_ignore_ascii_case(name.as_bytes());
    headers.headers.iter().filter(named)
}

/// What an access log entry has to show. The route's words to us are not among it.
#[derive(Debug)]
pub(super) struct EntryEvidence<'a>(pub(super) &'a HttpAccessLogEntry);

impl EntryEvidence<'_> {
    /// The logged request headers.
    fn headers(&self) -> Option<&HashMap<String, String>> {
        self.0
            .request
            .as_ref()
            .map(|request| &request.request_headers)
    }
}

impl Evidence for EntryEvidence<'_> {
    fn header(&self, name: &str) -> Found<'_> {
        Ok(self
            .headers()
            .and_then(|headers| headers.get(name))
            .map(Cow::from))
    }

    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let line = self.headers().and_then(|headers| headers.get(name));
        line.into_iter().map(String::as_bytes)
    }

    fn principal(&self) -> Option<&str> {
        let tls = self.0.common_properties.as_ref()?.tls_properties.as_ref()?;
        let peer = tls.peer_certificate_properties.as_ref()?;
        let names = || {
            peer.subject_alt_name
                .iter()
                .filter_map(|name| name.san.as_ref())
        };
        let address = names().find_map(|name| match name {
            San::Uri(uri) => Some(uri.as_str()),
            San::Dns(_) => None,
        });
        let host = || {
            names().find_map(|name| match name {
                San::Dns(host) => Some(host.as_str()),
                San::Uri(_) => None,
            })
        };
        address.or_else(host).or(Some(&peer.subject))
    }

    fn path(&self) -> &str {
        self.0.request.as_ref().map_or("", |request| &request.path)
    }

    fn metadata(&self, namespace: &str) -> Option<&Struct> {
        in_namespace(
            self.0.common_properties.as_ref()?.metadata.as_ref(),
            namespace,
        )
    }

    fn context(&self, _key: &str) -> Option<&str> {
        None
    }

    fn request_id(&self) -> Found<'_> {
        Ok(self
            .0
            .request
            .as_ref()
            .map(|request| Cow::from(&request.request_id)))
    }
}

/// What lies in one namespace of the metadata.
fn in_namespace<'a>(metadata: Option<&'a Metadata>, namespace: &str) -> Option<&'a Struct> {
    metadata?.filter_metadata.get(namespace)
}
