//! Common Media Client Data (CTA-5004), as far as a key's value is wanted: what a player says of itself in headers or query.
//!
//! A payload is a comma-separated list of `key` or `key=value`; a string stands in double quotes, with `\"` and `\\` inside. The
//! rest (tokens, numbers, a vendor's own keys) is passed over as it comes, since players are freer than the specification.

use std::borrow::Cow;

/// The request headers that carry it. Which key stands in which is the specification's business; ours is to find it.
pub(super) const HEADERS: [&str; 4] =
    ["cmcd-session", "cmcd-object", "cmcd-request", "cmcd-status"];

/// The query parameter that carries it, percent-encoded.
pub(super) const QUERY: &str = "CMCD";

/// Why a payload can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CmcdError {
    /// A string has no end.
    #[error("has a string without a closing quote")]
    Unterminated,
    /// Something other than a comma follows a string.
    #[error("has something between a closing quote and the next comma")]
    Trailing,
    /// The key is there without a value.
    #[error("has the key without a value")]
    NoValue,
    /// The key is there twice, with different values.
    #[error("has the key more than once")]
    Repeated,
}

/// The value of a key; `None` if the key isn't there.
pub(super) fn value<'a>(payload: &'a str, key: &str) -> Result<Option<Cow<'a, str>>, CmcdError> {
    let mut found: Option<Cow<'a, str>> = None;
    let mut rest = payload;
    while !rest.is_empty() {
        let (item, after) = next_item(rest)?;
        rest = after;
        if item.key != key {
            continue;
        }
        let value = item.value.ok_or(CmcdError::NoValue)?.text();
        if found
            .replace(value.clone())
            .is_some_and(|earlier| earlier != value)
        {
            return Err(CmcdError::Repeated);
        }
    }
    Ok(found)
}

/// One `key` or `key=value`.
struct Item<'a> {
    /// The name before the `=`.
    key: &'a str,
    /// What stands behind it.
    value: Option<Value<'a>>,
}

/// A value as it is written.
enum Value<'a> {
    /// What stood between the quotes, escapes included.
    Quoted(&'a str),
    /// A token or number.
    Bare(&'a str),
}

impl<'a> Value<'a> {
    /// What it means.
    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Bare(text) => text.into(),
            Self::Quoted(text) if !text.contains('\\') => text.into(),
            Self::Quoted(text) => {
                let mut meant = String::with_capacity(text.len());
                let mut characters = text.chars();
                while let Some(character) = characters.next() {
                    meant.extend(if character == '\\' {
                        characters.next()
                    } else {
                        Some(character)
                    });
                }
                meant.into()
            }
        }
    }
}

/// The first item, and what follows its comma.
fn next_item(text: &str) -> Result<(Item<'_>, &str), CmcdError> {
    let end_of_key = text.find(['=', ',']).unwrap_or(text.len());
    let (key, rest) = text.split_at(end_of_key);
    let key = key.trim();
    let Some(written) = rest.strip_prefix('=') else {
        return Ok((
            Item { key, value: None },
            rest.strip_prefix(',').unwrap_or(rest),
        ));
    };
    let Some(quoted) = written.trim_start().strip_prefix('"') else {
        let (value, rest) = written.split_once(',').unwrap_or((written, ""));
        return Ok((
            Item {
                key,
                value: Some(Value::Bare(value.trim())),
            },
            rest,
        ));
    };
    let (value, rest) = split_at_closing_quote(quoted).ok_or(CmcdError::Unterminated)?;
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(rest) => Ok((
            Item {
                key,
                value: Some(Value::Quoted(value)),
            },
            rest,
        )),
        None if rest.is_empty() => Ok((
            Item {
                key,
                value: Some(Value::Quoted(value)),
            },
            rest,
        )),
        None => Err(CmcdError::Trailing),
    }
}

/// What stands before and after the first quote that isn't escaped.
fn split_at_closing_quote(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.find(|character| {
        let closes = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        closes
    })?;
    let (value, rest) = text.split_at(end);
    Some((value, rest.strip_prefix('"')?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_found_wherever_it_stands() {
        for (payload, key, expected) in [
            (
                r#"sid="6e2fb550-c457-11e9-bb97-0800200c9a66""#,
                "sid",
                Ok(Some("6e2fb550-c457-11e9-bb97-0800200c9a66")),
            ),
            (
                r#"cid="faec5fc2",mtp=25400,sf=h,sid="s1",st=v"#,
                "sid",
                Ok(Some("s1")),
            ),
            (
                r#"cid="faec5fc2",mtp=25400,sf=h,sid="s1",st=v"#,
                "mtp",
                Ok(Some("25400")),
            ),
            (r#"bs,su, sid = "s1" "#, "sid", Ok(Some("s1"))),
            (r#"cid="a,sid=\"no\",b",sid="yes""#, "sid", Ok(Some("yes"))),
            (r#"sid="a\\\"b""#, "sid", Ok(Some(r#"a\"b"#))),
            (r#"sid="""#, "sid", Ok(Some(""))),
            (r#"com.example-sid="x""#, "sid", Ok(None)),
            ("", "sid", Ok(None)),
            (",,,", "sid", Ok(None)),
            (r#"sid="a",sid="a""#, "sid", Ok(Some("a"))),
            (r#"sid="a",sid="b""#, "sid", Err(CmcdError::Repeated)),
            ("bs,sid", "sid", Err(CmcdError::NoValue)),
            (r#"sid="a"#, "sid", Err(CmcdError::Unterminated)),
            (r#"sid="a\""#, "sid", Err(CmcdError::Unterminated)),
            (r#"sid="a"b"#, "sid", Err(CmcdError::Trailing)),
            (r#"cid="broken,sid="a""#, "sid", Err(CmcdError::Trailing)),
        ] {
            let found = value(payload, key);
            assert_eq!(
                found.as_ref().map(|found| found.as_deref()),
                expected.as_ref().map(|text| *text),
                "{payload}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_string_comes_back_as_it_was_meant(sid in "\\PC*", cid in "\\PC*") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let payload = format!("bl=21300,cid=\"{}\",bs,sid=\"{}\"", quoted(&cid), quoted(&sid));
            let found = value(&payload, "sid");
            prop_assert_eq!(found.as_ref().map(|found| found.as_deref()), Ok(Some(sid.as_str())));
        }

        #[test]
        fn no_payload_does_harm(payload in "[a-z=,\"\\\\ é]*") {
            // Whatever it says, it must say it.
            let _: Result<_, CmcdError> = value(&payload, "sid");
        }
    }
}
