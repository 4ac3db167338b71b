//! A place where a fact about a request is found: a header, a query parameter, a claim.
//!
//! This is the written form only; looking into a request is the door's.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

/// The longest name of a parameter, key or claim.
const MAX_NAME: usize = 256;

/// What can be written now.
const ALLOWED: &str = "header:NAME, query:NAME, cmcd:KEY, jwt:CLAIM, context:KEY or request";

/// Kinds of a later version: named, so that the error isn't mistaken for a typing error.
const LATER: [&str; 4] = ["cookie", "path", "basic", "principal"];

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// `header:NAME`, a request header; its name is in lower case.
    Header(HeaderName),
    /// `query:NAME`, a parameter of the query, by its decoded name.
    Query(String),
    /// `cmcd:KEY`, a key of CTA-5004, from its headers or its query parameter.
    Cmcd(String),
    /// `jwt:CLAIM`, a claim of the token that Envoy has verified.
    Jwt(ClaimPath),
    /// `context:KEY`, an entry of the route's `context_extensions`.
    Context(String),
    /// `request`, Envoy's id of the request: the request is the stream. For session ids only.
    Request,
}

/// The path to a claim, its parts joined by dots: `realm.tier`. No part is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimPath(String);

/// Why a text names no source: the text, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is none.
    #[error("got {0:?}; allowed: {1}")]
    NotASource(String, &'static str),
    /// It is one of a later version.
    #[error("{0:?} is not available in this version; allowed: {ALLOWED}")]
    NotAvailable(String),
}

// === impl Source ===

impl Source {
    /// The sources of a list with commas, as a route writes it: `header:x-playback-session-id,cmcd:sid`.
    ///
    /// # Errors
    /// An item is no source, or there is none: a route that names a list wants one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SourceError> {
        text.split(',').map(|item| item.trim().parse()).collect()
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        // Joined sources come later. `+` is a good character of a header's name: it has to be looked for first.
        if LATER.contains(&kind) || text.contains('+') {
            return Err(SourceError::NotAvailable(text.to_owned()));
        }
        let wrong = |allowed| SourceError::NotASource(text.to_owned(), allowed);
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| wrong("header:NAME with the name of an HTTP header")),
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
            "request" if text == kind => Ok(Self::Request),
            _ => Err(wrong(ALLOWED)),
        }
    }
}

/// A comma would end the item in a route's list.
fn is_name(name: &str) -> bool {
    let is_bad =
        |character: char| character == ',' || character.is_whitespace() || character.is_control();
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(is_bad)
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
            Self::Request => f.write_str("request"),
        }
    }
}

// === impl ClaimPath ===

impl ClaimPath {
    /// The whole text. Some claims have dots in their own names (`https://example.com/plan`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names to go down by; at least one.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_as_it_is_written() {
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
    fn what_is_no_source_is_told_what_is() {
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
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("got {text:?}; allowed: ")) && error.contains(part),
                "{error}"
            );
        }
    }

    #[test]
    fn sources_of_a_later_version_are_named_as_such() {
        for text in [
            "cookie:sid",
            "path:^/vod/([^/]+)",
            "basic",
            "principal",
            "header:x-device-id+path:^/vod",
            "query:a+query:b",
        ] {
            let expected = format!("{text:?} is not available in this version; allowed: {ALLOWED}");
            assert_eq!(text.parse::<Source>().unwrap_err().to_string(), expected);
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
        for text in ["", ",", "cmcd:sid,", "cmcd:sid;request"] {
            assert!(Source::parse_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_has_the_parts_of_its_path() {
        let Ok(Source::Jwt(claim)) = "jwt:realm_access.tier".parse() else {
            panic!("a claim")
        };
        assert_eq!(claim.parts().collect::<Vec<_>>(), ["realm_access", "tier"]);
    }
}
