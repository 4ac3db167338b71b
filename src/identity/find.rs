//! Finds the names of users and sessions in a request.
//!
//! [`find`] tries a list of sources until one has a value. A value that can't be a name is an error
//! and never a reason to continue: otherwise a client could choose which source counts.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::attributes::{Found, MetadataValue, RequestAttributes};
use super::cmcd;
use super::facts::JoinedOrigin;
use super::source::{PathPattern, Source};
use crate::util::{authorization, percent};

/// The namespace in which Envoy's JWT filter stores the claims of a verified token.
pub(crate) const JWT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// Why a source's value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// It isn't text.
    #[error("is not UTF-8")]
    NotText,
    /// It occurs more than once, with different values.
    #[error("is given more than once, with different values")]
    Repeated,
    /// It is a list, an object, or a number with a fraction.
    #[error("is neither a text nor a whole number")]
    NotAName,
    /// It is not a user name and password.
    #[error("is not a valid HTTP Basic name and password")]
    NotBasic,
    /// It is in a CMCD payload that can't be read.
    #[error("is in a CMCD payload that {0}")]
    Cmcd(#[from] cmcd::CmcdError),
}

/// A value, and its source.
pub(crate) type With<'s, T> = (&'s Source, T);

/// The result of trying a list of sources.
pub(crate) type Finding<'s, 'e> = Result<Option<With<'s, Cow<'e, str>>>, With<'s, Flaw>>;

/// The first source that has a value, and the value. An empty value counts as absent.
pub(crate) fn find<'s, 'e>(
    sources: impl IntoIterator<Item = &'s Source>,
    request: &'e impl RequestAttributes,
) -> Finding<'s, 'e> {
    for source in sources {
        match look(source, request) {
            Ok(Some(text)) if !text.is_empty() => return Ok(Some((source, text))),
            Ok(_) => {}
            Err(flaw) => return Err((source, flaw)),
        }
    }
    Ok(None)
}

/// The value of one source.
fn look<'e>(source: &Source, request: &'e impl RequestAttributes) -> Found<'e> {
    match source {
        Source::Header(name) => request.name_header(name.as_str()),
        Source::Query(name) => query(request.path(), name),
        Source::Cmcd(key) => cmcd_value(request, key),
        Source::Jwt(path) => claim(request.metadata(JWT_NAMESPACE, path)),
        Source::Context(key) => Ok(request.context(key).map(Cow::from)),
        Source::Cookie(name) => cookie(request, name),
        Source::Path(pattern) => in_path(request.path(), pattern),
        Source::Basic => basic_name(request),
        Source::Principal => Ok(request.principal().map(Cow::from)),
        Source::Joined(parts) => joined(parts, request),
        Source::Request => request.request_id(),
    }
}

/// A digest of the values of a joined source's parts, except the path: what one device's playbacks
/// of different content have in common. `None` if there is no other part, or one is absent.
pub(crate) fn joined_origin(
    source: &Source,
    request: &impl RequestAttributes,
) -> Option<JoinedOrigin> {
    let Source::Joined(parts) = source else {
        return None;
    };
    let mut hash = Sha256::new();
    let mut is_empty = true;
    for part in parts {
        if !matches!(part, Source::Path(_)) {
            let text = look(part, request).ok().flatten()?;
            hash.update(text.as_bytes());
            // No name has a control character, so this marks the end of a part.
            hash.update([0]);
            is_empty = false;
        }
    }
    let digest = hash.finalize();
    let number = digest.iter().take(8);
    let number = number.fold(0, |number, byte| number << 8 | u64::from(*byte));
    (!is_empty).then_some(JoinedOrigin(number))
}

/// The joined value of several sources. A plus within a part is escaped, so that different lists of
/// parts never give the same value.
fn joined<'e>(parts: &[Source], request: &'e impl RequestAttributes) -> Found<'e> {
    let mut whole = String::new();
    for (index, part) in parts.iter().enumerate() {
        let Some(text) = look(part, request)?.filter(|text| !text.is_empty()) else {
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

/// A claim of verified tokens. If several payloads have it, they must agree.
fn claim<'e>(values: impl Iterator<Item = MetadataValue<'e>>) -> Found<'e> {
    let mut found = None;
    for value in values {
        if let Some(text) = name(value)? {
            keep_one(&mut found, text)?;
        }
    }
    Ok(found)
}

/// The name in a value: a text, or a whole number.
#[expect(clippy::float_cmp, reason = "whole numbers below 2^53 are exact")]
fn name(value: MetadataValue<'_>) -> Found<'_> {
    match value {
        MetadataValue::Null => Ok(None),
        MetadataValue::Text(text) => Ok(Some(text.into())),
        MetadataValue::Number(number)
            if number.trunc() == number && number.abs() < 9_007_199_254_740_992.0 =>
        {
            Ok(Some(format!("{number:.0}").into()))
        }
        MetadataValue::Number(_) | MetadataValue::Other => Err(Flaw::NotAName),
    }
}

/// A cookie's value, without quotes around it.
fn cookie<'e>(request: &'e impl RequestAttributes, name: &str) -> Found<'e> {
    let mut found = None;
    for line in request.raw_lines("cookie") {
        for pair in line.split(|byte| *byte == b';') {
            let Some(value) = value_in(pair, name) else {
                continue;
            };
            // Other sites' cookies may not be text.
            let value = std::str::from_utf8(value).map_err(|_| Flaw::NotText)?;
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            keep_one(&mut found, bare.unwrap_or(value).to_owned().into())?;
        }
    }
    Ok(found)
}

/// The text after the `=` in a cookie with that name.
fn value_in<'c>(cookie: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let named = cookie.trim_ascii_start().strip_prefix(name.as_bytes())?;
    named.trim_ascii_start().strip_prefix(b"=")
}

/// The decoded match of a pattern in the path.
fn in_path<'e>(path: &'e str, pattern: &PathPattern) -> Found<'e> {
    let path = path.split('?').next().unwrap_or_default();
    let Some(found) = pattern.find(path) else {
        return Ok(None);
    };
    let decoded = percent_decode_str(found).decode_utf8();
    decoded.map(Some).map_err(|_| Flaw::NotText)
}

/// The user name in an `Authorization` header with the scheme `Basic` (RFC 7617). Headers with
/// other schemes contain no user name for us.
fn basic_name<'e>(request: &'e impl RequestAttributes) -> Found<'e> {
    let Some(header) = request.name_header("authorization")? else {
        return Ok(None);
    };
    let Some(credentials) = authorization::credentials(&header, "basic") else {
        return Ok(None);
    };
    let (name, _password) = authorization::basic(credentials).ok_or(Flaw::NotBasic)?;
    Ok(Some(name.into()))
}

/// A decoded query parameter.
fn query<'a>(path: &'a str, name: &str) -> Found<'a> {
    let mut found = None;
    for value in parameters(path, name) {
        let value = percent::decode(value).map_err(|_| Flaw::NotText)?;
        keep_one(&mut found, value)?;
    }
    Ok(found)
}

/// The values of all query parameters with that name, not decoded.
fn parameters<'a>(path: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (_, query) = path.split_once('?').unwrap_or_default();
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A name that isn't text matches nothing.
        percent::decode(key)
            .is_ok_and(|key| key == name)
            .then_some(value)
    })
}

/// A key of the CMCD payloads in headers and query. There may be several: a manifest's URLs contain
/// one, and the player adds its own.
fn cmcd_value<'e>(request: &'e impl RequestAttributes, key: &str) -> Found<'e> {
    let mut found = None;
    for name in cmcd::HEADERS {
        for line in request.raw_lines(name) {
            keep_cmcd(&mut found, line, key)?;
        }
    }
    for payload in parameters(request.path(), cmcd::QUERY) {
        keep_cmcd(&mut found, &percent::decode_bytes(payload), key)?;
    }
    Ok(found)
}

/// Keeps a key's value of one payload. Other keys' values may not be text.
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

/// Keeps the first value, and fails on a second that differs. An empty value counts as absent.
pub(crate) fn keep_one<'a>(
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
