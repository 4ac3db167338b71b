//! A source of a fact about a request: a header, a query parameter, a claim.
//!
//! This module only has the written form; the doors read the requests.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use http::HeaderName;
use regex::{Regex, RegexBuilder};

/// The longest name of a parameter, key or claim.
const MAX_NAME: usize = 256;

/// The allowed forms.
const ALLOWED: &str = "header:NAME, cookie:NAME, query:NAME, cmcd:KEY, jwt:CLAIM, context:KEY, path:REGEX, basic, principal or request; several joined by +";

/// The longest pattern.
const MAX_PATTERN: usize = 1024;

/// How much memory a compiled pattern may take; nested repetitions take more.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// The prefixes of sources with a name.
pub(crate) const NAMED_KINDS: [&str; 7] = [
    "header:", "cookie:", "query:", "cmcd:", "jwt:", "context:", "path:",
];

/// The sources without a name that any list may have.
pub(crate) const PLAIN_KINDS: [&str; 2] = ["basic", "principal"];

/// The source that only sessions may have.
pub(crate) const REQUEST_KIND: &str = "request";

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// `header:NAME`, a request header; the name is lower case.
    Header(HeaderName),
    /// `query:NAME`, a query parameter, by its decoded name.
    Query(String),
    /// `cmcd:KEY`, a key of CTA-5004, from its headers or its query parameter.
    Cmcd(String),
    /// `jwt:CLAIM`, a claim of a token that Envoy has verified.
    Jwt(ClaimPath),
    /// `context:KEY`, an entry of the route's `context_extensions`.
    Context(String),
    /// `cookie:NAME`, a cookie.
    Cookie(String),
    /// `path:REGEX`, the match of the pattern's first group in the path without its query, or of
    /// the whole pattern if it has no group.
    Path(PathPattern),
    /// `basic`, the user name in an `Authorization: Basic` header. Trustworthy only if something in
    /// front has checked the password.
    Basic,
    /// `principal`, the name in the client's certificate, as Envoy has verified it.
    Principal,
    /// Several of these joined by `+`: together they make one fact, which is absent if any of them
    /// is.
    Joined(Vec<Self>),
    /// `request`, Envoy's id of the request: the request is the stream. Only for session ids.
    Request,
}

/// A pattern that is matched in paths. Two are equal if their texts are.
#[derive(Debug, Clone)]
pub struct PathPattern(Regex);

/// The path to a claim, with names separated by dots: `realm.tier`. No part is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimPath(String);

/// Why a text is not a source: the text, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is not a source.
    #[error("got {0:?}; allowed: {1}")]
    NotASource(String, &'static str),
    /// It is a pattern that can't be used.
    #[error(
        "got {0:?}; allowed: path:REGEX with a regular expression of at most {MAX_PATTERN} bytes ({1})"
    )]
    NotAPattern(String, String),
}

// === impl Source ===

impl Source {
    /// The sources of a comma-separated list, as a route writes it:
    /// `header:x-playback-session-id,cmcd:sid`.
    ///
    /// # Errors
    /// An item is not a source, or the list is empty.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SourceError> {
        let items = Self::split_list(text);
        items.into_iter().map(str::parse).collect()
    }

    /// The items of a comma-separated list. A comma within a pattern belongs to it, unless a source
    /// follows.
    pub(crate) fn split_list(text: &str) -> Vec<&str> {
        split(text, ',').into_iter().map(str::trim).collect()
    }

    /// One source that is not joined.
    fn parse_one(text: &str) -> Result<Self, SourceError> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let wrong = |allowed| SourceError::NotASource(text.to_owned(), allowed);
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| wrong("header:NAME with the name of an HTTP header")),
            "cookie" if is_cookie_name(name) => Ok(Self::Cookie(name.to_owned())),
            "cookie" => Err(wrong("cookie:NAME with the name of a cookie")),
            "query" if is_name(name) => Ok(Self::Query(name.to_owned())),
            "query" => Err(wrong(
                "query:NAME with a name of 1 to 256 bytes without spaces or commas",
            )),
            "cmcd" if is_cmcd_key(name) => Ok(Self::Cmcd(name.to_owned())),
            "cmcd" => Err(wrong(
                "cmcd:KEY with a key of letters, digits, `-` or `.`, such as cmcd:sid",
            )),
            "jwt" if is_name(name) && name.split('.').all(|part| !part.is_empty()) => {
                Ok(Self::Jwt(ClaimPath(name.to_owned())))
            }
            "jwt" => Err(wrong(
                "jwt:CLAIM with a claim, or a path to it such as jwt:realm.tier",
            )),
            "context" if is_name(name) => Ok(Self::Context(name.to_owned())),
            "context" => Err(wrong(
                "context:KEY with a key of 1 to 256 bytes without spaces or commas",
            )),
            "path" => PathPattern::parse(name)
                .map(Self::Path)
                .map_err(|flaw| SourceError::NotAPattern(text.to_owned(), flaw)),
            "basic" if text == kind => Ok(Self::Basic),
            "principal" if text == kind => Ok(Self::Principal),
            "request" if text == kind => Ok(Self::Request),
            _ => Err(wrong(ALLOWED)),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        // `+` is also valid in a header's name, so we look for it first.
        match *split(text, '+') {
            [one] => Self::parse_one(one),
            ref several => {
                let parts: Vec<Self> = several
                    .iter()
                    .map(|part| Self::parse_one(part))
                    .collect::<Result<_, _>>()?;
                if parts.contains(&Self::Request) {
                    let allowed = "sources joined by +, without request: each request would be a stream of its own";
                    return Err(SourceError::NotASource(text.to_owned(), allowed));
                }
                Ok(Self::Joined(parts))
            }
        }
    }
}

/// The parts of a text between these separators. A separator within a pattern belongs to it, unless
/// a source follows.
fn split(text: &str, sign: char) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    let mut from = 0;
    while let Some(found) = rest.get(from..).and_then(|rest| rest.find(sign)) {
        let at = from + found;
        let (part, behind) = (
            rest.get(..at).unwrap_or_default(),
            rest.get(at + 1..).unwrap_or_default(),
        );
        if is_within_pattern(part) && !begins_source(behind.trim_start()) {
            from = at + 1;
            continue;
        }
        parts.push(part);
        (rest, from) = (behind, 0);
    }
    parts.push(rest);
    parts
}

/// Whether a part of a list ends within a pattern.
fn is_within_pattern(part: &str) -> bool {
    part.trim_start().starts_with("path:") || part.contains("+path:")
}

/// Whether a text begins like a source.
fn begins_source(text: &str) -> bool {
    let is_plain = |word: &str| {
        let rest = text.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', '+', ' ']))
    };
    let is_named = NAMED_KINDS.iter().any(|kind| text.starts_with(kind));
    is_named || PLAIN_KINDS.iter().any(|word| is_plain(word)) || is_plain(REQUEST_KIND)
}

/// A comma would end the item in a route's list.
fn is_name(name: &str) -> bool {
    let is_bad =
        |character: char| character == ',' || character.is_whitespace() || character.is_control();
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(is_bad)
}

/// A token, as defined in RFC 6265.
fn is_cookie_name(name: &str) -> bool {
    is_name(name)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"()<>@;:\\\"/[]?={}".contains(&byte))
}

fn is_cmcd_key(name: &str) -> bool {
    is_name(name)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cmcd(key) => write!(f, "cmcd:{key}"),
            Self::Jwt(claim) => write!(f, "jwt:{}", claim.as_str()),
            Self::Context(key) => write!(f, "context:{key}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path(pattern) => write!(f, "path:{}", pattern.as_str()),
            Self::Basic => f.write_str("basic"),
            Self::Principal => f.write_str("principal"),
            Self::Joined(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        f.write_str("+")?;
                    }
                    write!(f, "{part}")?;
                }
                Ok(())
            }
            Self::Request => f.write_str("request"),
        }
    }
}

// === impl PathPattern ===

impl PathPattern {
    /// The pattern, if it is a regular expression.
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("it has {} bytes", text.len()));
        }
        RegexBuilder::new(text)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map(Self)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "it would take too much memory".to_owned(),
                // The last line of the library's text says what is wrong; the lines before it draw
                // where.
                error => error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .replace("error: ", ""),
            })
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The match in a path: the first group, or the whole pattern if it has no group. Takes time
    /// linear in the path's length, for any pattern.
    #[must_use]
    pub fn find<'p>(&self, path: &'p str) -> Option<&'p str> {
        let found = self.0.captures(path)?;
        let group = usize::from(self.0.captures_len() > 1);
        found.get(group).map(|found| found.as_str())
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PathPattern {}

impl Hash for PathPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

// === impl ClaimPath ===

impl ClaimPath {
    /// The whole text. Names may contain dots themselves (`https://example.com/claims.plan`), so
    /// only a payload determines where one ends.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_displays_as_its_text() {
        for text in [
            "header:x-user-id",
            "query:session",
            "query:a[b]",
            "cmcd:sid",
            "cmcd:com.example-key",
            "jwt:sub",
            "jwt:realm_access.tier",
            "jwt:https://example.com/plan",
            "context:streamgate.user",
            "cookie:sid",
            "path:^/vod/([^/]+)/",
            "path:a{1,3}+b",
            "basic",
            "principal",
            "header:x-device-id+path:^/vod/([^/+]+)",
            "path:(a+)+query:b+principal",
            "request",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!(
            "header:X-User-ID".parse::<Source>().unwrap().to_string(),
            "header:x-user-id"
        );
    }

    #[test]
    fn a_bad_source_error_lists_the_allowed_forms() {
        let long = format!("query:{}", "x".repeat(257));
        for (text, part) in [
            ("", ALLOWED),
            ("x-user-id", ALLOWED),
            ("Header:x-user-id", ALLOWED),
            ("headers:x", ALLOWED),
            ("request:id", ALLOWED),
            ("header:", "the name of an HTTP header"),
            ("header::path", "the name of an HTTP header"),
            ("header:x user", "the name of an HTTP header"),
            ("query:", "1 to 256 bytes"),
            ("query:a b", "1 to 256 bytes"),
            (&long, "1 to 256 bytes"),
            ("cmcd:", "cmcd:sid"),
            ("cmcd:s/d", "cmcd:sid"),
            ("jwt:", "jwt:realm.tier"),
            ("jwt:a..b", "jwt:realm.tier"),
            ("context:", "context:KEY"),
            ("cookie:", "cookie:NAME"),
            ("cookie:a b", "cookie:NAME"),
            ("cookie:a=b", "cookie:NAME"),
            ("path:", "it has 0 bytes"),
            ("path:(", "unclosed group"),
            ("path:((a{100}){100}){100}", "too much memory"),
            ("basic:x", ALLOWED),
            ("principal ", ALLOWED),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("got {text:?}; allowed: ")) && error.contains(part),
                "{error}"
            );
        }
    }

    #[test]
    fn joined_parts_must_be_sources() {
        let joined = |text: &str| match text.parse() {
            Ok(Source::Joined(parts)) => parts.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        for (text, parts) in [
            ("query:a+query:b", vec!["query:a", "query:b"]),
            ("basic+cookie:sid", vec!["basic", "cookie:sid"]),
            ("path:a+b", vec![]),
            ("path:(a+)+basic", vec!["path:(a+)", "basic"]),
            ("path:a+path:b", vec!["path:a", "path:b"]),
            ("header:a+b", vec![]),
            ("header:a+", vec![]),
            ("+header:a", vec![]),
            ("header:a+request", vec![]),
        ] {
            assert_eq!(joined(text), parts, "{text}");
        }
        let error = "header:a+request".parse::<Source>().unwrap_err();
        assert!(error.to_string().contains("without request"), "{error}");
    }

    #[test]
    fn a_pattern_finds_its_group_or_all_of_itself() {
        let find =
            |pattern: &str, path: &'static str| PathPattern::parse(pattern).unwrap().find(path);
        for (pattern, path, found) in [
            ("^/vod/([^/]+)/", "/vod/film/1.ts", Some("film")),
            ("^/vod/[^/]+/", "/vod/film/1.ts", Some("/vod/film/")),
            ("^/vod/([^/]+)/(.*)", "/vod/film/1.ts", Some("film")),
            ("^/vod/(?:a|b)/(.)?", "/vod/a/", None),
            ("^/vod/", "/live/vod/", None),
        ] {
            assert_eq!(find(pattern, path), found, "{pattern} in {path}");
        }
    }

    #[test]
    fn a_route_writes_its_list_with_commas() {
        let list = Source::parse_list("header:x-playback-session-id, cmcd:sid,request").unwrap();
        let shown: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["header:x-playback-session-id", "cmcd:sid", "request"]
        );
        let patterns = Source::parse_list("path:a{1,3}, header:x,path:b,c+basic, request").unwrap();
        let shown: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["path:a{1,3}", "header:x", "path:b,c+basic", "request"]
        );
        for text in [
            "",
            ",",
            "cmcd:sid,",
            "cmcd:sid;request",
            "header:x,hedaer:y",
        ] {
            assert!(Source::parse_list(text).is_err(), "{text}");
        }
    }
}
