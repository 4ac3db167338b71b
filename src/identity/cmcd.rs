//! Common Media Client Data (CTA-5004), as far as we need a key's value: facts that a player sends
//! about itself in headers or query.
//!
//! A payload is a comma-separated list of `key` or `key=value` (a dictionary of structured fields,
//! RFC 8941); strings are in double quotes, with `\"` and `\\` inside. Version 2 has lists of
//! values in parentheses, and parameters after a semicolon. Everything else (tokens, numbers, a
//! vendor's own keys) is skipped unparsed, since players deviate from the specification. An
//! unreadable value doesn't affect the others: the next item begins after its first comma.

use std::borrow::Cow;

/// The request headers that carry CMCD. The specification says which key belongs in which; we look
/// in all of them.
pub(crate) const HEADERS: [&str; 4] =
    ["cmcd-session", "cmcd-object", "cmcd-request", "cmcd-status"];

/// The query parameter that carries CMCD, percent-encoded.
pub(crate) const QUERY: &str = "CMCD";

/// How many unreadable values a payload may have. Finding one may scan the whole rest of the
/// payload, so this bounds the time.
const MAX_UNREADABLE: usize = 16;

/// Why a key's value can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CmcdError {
    /// A string is not closed.
    #[error("has a string without a closing quote")]
    Unterminated,
    /// A list is not closed.
    #[error("has a list without a closing bracket")]
    Unclosed,
    /// Something other than parameters or a comma follows a string or a list.
    #[error("has something between a closing quote or bracket and the next comma")]
    Trailing,
    /// The key is there without a value.
    #[error("has the key without a value")]
    NoValue,
    /// The key is there twice, with different values.
    #[error("has the key more than once, with different values")]
    Repeated,
    /// Too much of the payload is unreadable, so the rest isn't parsed.
    #[error("has more than {MAX_UNREADABLE} values that can't be read")]
    Unreadable,
}

/// The value of a key; `None` if the key isn't there.
pub(crate) fn value<'a>(payload: &'a str, key: &str) -> Result<Option<Cow<'a, str>>, CmcdError> {
    let mut found: Option<Cow<'a, str>> = None;
    let mut unreadable = 0;
    for item in items(payload) {
        if item.value.is_err() {
            unreadable += 1;
        }
        if unreadable > MAX_UNREADABLE {
            return Err(CmcdError::Unreadable);
        }
        if item.key != key {
            continue;
        }
        let value = item.value?.ok_or(CmcdError::NoValue)?.text();
        if found
            .replace(value.clone())
            .is_some_and(|earlier| earlier != value)
        {
            return Err(CmcdError::Repeated);
        }
    }
    Ok(found)
}

/// Whether the whole payload is readable.
#[cfg(any(fuzzing, test))]
pub(crate) fn is_readable(payload: &str) -> bool {
    items(payload).all(|item| item.value.is_ok())
}

/// The items of a payload.
fn items(payload: &str) -> impl Iterator<Item = Item<'_>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let item = (!rest.is_empty()).then(|| next_item(rest));
        item.map(|(item, after)| {
            rest = after;
            item
        })
    })
}

/// One `key` or `key=value`.
struct Item<'a> {
    /// The name before the `=`.
    key: &'a str,
    /// The value after it, or why it can't be read.
    value: Result<Option<Value<'a>>, CmcdError>,
}

/// A value as written.
enum Value<'a> {
    /// The text between the quotes, including escapes.
    Quoted(&'a str),
    /// A token or number.
    Bare(&'a str),
}

impl<'a> Value<'a> {
    /// The unescaped text.
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
fn next_item(text: &str) -> (Item<'_>, &str) {
    let end_of_key = text.find(['=', ',', ';']).unwrap_or(text.len());
    let (key, rest) = text.split_at(end_of_key);
    let read = match rest.strip_prefix('=') {
        Some(written) => next_value(written).map(|(value, rest)| (Some(value), rest)),
        None => after_parameters(rest).map(|rest| (None, rest)),
    };
    let (value, rest) = match read {
        Ok((value, rest)) => (Ok(value), rest),
        // If a quote or a bracket is missing, the value most likely ends before the first comma.
        Err(flaw) => (Err(flaw), rest.split_once(',').unwrap_or_default().1),
    };
    let key = key.trim();
    (Item { key, value }, rest)
}

/// The value after a `=`, and what follows its comma.
fn next_value(written: &str) -> Result<(Value<'_>, &str), CmcdError> {
    let written = written.trim_start();
    Ok(if let Some(quoted) = written.strip_prefix('"') {
        let (value, rest) = split_at_closing_quote(quoted).ok_or(CmcdError::Unterminated)?;
        (Value::Quoted(value), after_parameters(rest)?)
    } else {
        let end = written.find(',').unwrap_or(written.len());
        let (bare, _) = written.split_at(end);
        if bare.starts_with('(') && bare.contains('"') {
            let (list, rest) = split_behind_list(written)?;
            (Value::Bare(list), after_parameters(rest)?)
        } else {
            // Players of version 1 write names without quotes, and characters that begin a list or
            // a parameter in version 2 are part of the name.
            let rest = written.get(end + 1..).unwrap_or_default();
            (Value::Bare(bare.trim()), rest)
        }
    })
}

/// The text after an item's parameters, if any, and their comma.
fn after_parameters(text: &str) -> Result<&str, CmcdError> {
    let mut rest = text.trim_start();
    if !rest.is_empty() && !rest.starts_with([',', ';']) {
        return Err(CmcdError::Trailing);
    }
    // A comma within a string doesn't separate items.
    while let Some(at) = rest.find([',', '"']) {
        let (_, behind) = rest.split_at(at);
        if let Some(behind) = behind.strip_prefix(',') {
            return Ok(behind);
        }
        let quoted = behind.strip_prefix('"').unwrap_or_default();
        let (_, behind) = split_at_closing_quote(quoted).ok_or(CmcdError::Unterminated)?;
        rest = behind;
    }
    Ok("")
}

/// A list in its brackets, and the text after it.
fn split_behind_list(text: &str) -> Result<(&str, &str), CmcdError> {
    let mut rest = text;
    while let Some(at) = rest.find([')', '"']) {
        let (_, behind) = rest.split_at(at);
        if let Some(behind) = behind.strip_prefix(')') {
            return Ok(text.split_at(text.len() - behind.len()));
        }
        let quoted = behind.strip_prefix('"').unwrap_or_default();
        (_, rest) = split_at_closing_quote(quoted).ok_or(CmcdError::Unterminated)?;
    }
    Err(CmcdError::Unclosed)
}

/// The text before and after the first unescaped quote.
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

    fn assert_value(payload: &str, key: &str, expected: Result<Option<&str>, CmcdError>) {
        let found = value(payload, key);
        let found = found.as_ref().map(|found| found.as_deref());
        assert_eq!(found, expected.as_ref().map(|text| *text), "{payload}");
    }

    #[test]
    fn a_key_is_found_at_any_position() {
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
            (r#"cid="broken,sid="a""#, "sid", Ok(Some("a"))),
        ] {
            assert_value(payload, key, expected);
        }
    }

    #[test]
    fn quoted_text_in_lists_and_parameters_is_no_item() {
        for (payload, key, expected) in [
            (r#"nor=("a,sid=\"b\"" "c"),sid="d""#, "sid", Ok(Some("d"))),
            (r#"nor=("a?x=1,sid=b"),sid="d""#, "sid", Ok(Some("d"))),
            (r#"nor=("a,sid=b")"#, "sid", Ok(None)),
            (r#"nor=("a)" "b"),sid="d""#, "sid", Ok(Some("d"))),
            (
                r#"br=(3000;v 164;a);x="1,sid=e",sid="d""#,
                "sid",
                Ok(Some("d")),
            ),
            (r#"br=(3000;v 164;a)"#, "br", Ok(Some("(3000;v 164;a)"))),
            (r#"sid="d";x=1;y="a,b",v=2"#, "sid", Ok(Some("d"))),
            (r#"sid="d";x=1;y="a,b",v=2"#, "v", Ok(Some("2"))),
            (r#"v=2;x,sid="d""#, "sid", Ok(Some("d"))),
            (r#"su;x="1,sid=e",bs=?0,sid="d""#, "sid", Ok(Some("d"))),
            (r#"cs="a",sid="d" ,v=2"#, "sid", Ok(Some("d"))),
            ("sid;x=1", "sid", Err(CmcdError::NoValue)),
            // In version 1, unquoted text has neither lists nor parameters.
            ("sid=abc;1,st=v", "sid", Ok(Some("abc;1"))),
            ("st=v,sid=abc;1", "sid", Ok(Some("abc;1"))),
            (r#"cid=(2024)x,sid="d""#, "sid", Ok(Some("d"))),
            (r#"cid=(2024)x,sid="d""#, "cid", Ok(Some("(2024)x"))),
            (r#"br=1;x="a,sid="d""#, "sid", Ok(Some("d"))),
        ] {
            assert_value(payload, key, expected);
        }
    }

    #[test]
    fn an_unreadable_value_affects_no_other() {
        let sid = r#"bl=1,sid="d",st=v"#;
        for (broken, flaw) in [
            // A player that quotes an already quoted value.
            (r#"cid=""-977"""#, CmcdError::Trailing),
            (r#"cid=""a,b"""#, CmcdError::Trailing),
            (r#"cid="The "Movie"""#, CmcdError::Trailing),
            (r#"cid="The "A, B" story""#, CmcdError::Trailing),
            // Truncated: the next quote belongs to another value.
            (r#"cid="cut"#, CmcdError::Unterminated),
            (r#"cid="cut\"#, CmcdError::Unterminated),
            (r#"cid=""#, CmcdError::Unterminated),
            (r#"cid=("a""#, CmcdError::Unclosed),
            (r#"cid=("a"#, CmcdError::Unterminated),
            (r#"cid=("a")b"#, CmcdError::Trailing),
            (r#"cid;x="a"#, CmcdError::Unterminated),
            (r#"cid="a";x="b"#, CmcdError::Unterminated),
        ] {
            assert_value(&format!("{broken},{sid}"), "sid", Ok(Some("d")));
            assert_value(&format!("{sid},{broken}"), "sid", Ok(Some("d")));
            assert_value(&format!("{sid},{broken}"), "st", Ok(Some("v")));
            assert_value(broken, "cid", Err(flaw));
            assert!(
                value(&format!("{broken},{sid}"), "cid").is_err(),
                "{broken}"
            );
        }
    }

    #[test]
    fn a_payload_of_broken_values_takes_bounded_time() {
        let broken = |count| format!("{}sid=\"d\"", "a=(\"x\",".repeat(count));
        assert_value(&broken(MAX_UNREADABLE), "sid", Ok(Some("d")));
        for count in [MAX_UNREADABLE + 1, 100_000] {
            assert_value(&broken(count), "sid", Err(CmcdError::Unreadable));
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
            // The result doesn't matter here, only that there is one.
            let _: Result<_, CmcdError> = value(&payload, "sid");
        }
    }
}
