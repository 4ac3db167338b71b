//! `http.tokens_file`: who may call, identified by their token.
//!
//! Each line has a token, its role and, if the token acts for only one user, that user. The role may
//! carry the token's label and the end of its validity. We keep only digests of tokens, and look them up by a digest with a random key. So neither memory nor
//! timing reveals the file's contents, and the time doesn't depend on the number of tokens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::identity::UserId;
use crate::reload::Files;

/// The maximum number of tokens in a file.
const MAX_TOKENS: usize = 10_000;

/// The maximum length of a token.
const MAX_TOKEN_BYTES: usize = 512;

/// The maximum length of a label.
const MAX_LABEL_BYTES: usize = 64;

/// What a token may do; its user, if any, says for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Role {
    /// Starts, sees and releases sessions.
    Client,
    /// Also ends sessions against viewers' will, and sees all users' sessions.
    Operator,
}

/// The rights of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Grant {
    /// What it may do.
    pub(in crate::http) role: Role,
    /// The one user that it may act for; any user if there is none.
    pub(in crate::http) user: Option<UserId>,
    /// What logs and events call the token.
    pub(in crate::http) label: Option<Arc<str>>,
    /// Until when it is valid; for ever if there is no end.
    pub(in crate::http) expires: Option<Timestamp>,
}

impl Grant {
    /// The rights of that role for that user, or for all.
    pub(in crate::http) const fn of(role: Role, user: Option<UserId>) -> Self {
        Self {
            role,
            user,
            label: None,
            expires: None,
        }
    }

    /// Whether the token is no longer valid.
    pub(in crate::http) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// All tokens of a file.
pub struct Tokens {
    /// A random key. Without it, the time of a lookup reveals nothing.
    key: [u8; 32],
    /// The rights of each token, by its digest with that key.
    grants: HashMap<[u8; 32], Grant>,
}

/// A line of the file.
struct TokenLine<'a> {
    /// The token.
    text: &'a str,
    /// Its rights.
    grant: Grant,
}

impl Tokens {
    /// Parses a file: a token, a role and optionally a user on each line. After the role may come
    /// `;label=` and `;expires=`, without spaces. Empty lines are ignored, and so are those that begin with `#` are ignored.
    ///
    /// # Errors
    /// A line is invalid; the error has its number but not its content.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut tokens = Self {
            key: rand::random(),
            grants: HashMap::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at_line = |flaw: String| format!("line {}: {flaw}", index + 1);
            let token = TokenLine::parse(line).map_err(at_line)?;
            match tokens.grants.entry(digest(&tokens.key, token.text)) {
                Entry::Vacant(place) => place.insert(token.grant),
                Entry::Occupied(_) => {
                    return Err(at_line("duplicate token; delete this line".to_owned()));
                }
            };
            if tokens.grants.len() > MAX_TOKENS {
                return Err(format!("it has more than {MAX_TOKENS} tokens"));
            }
        }
        if tokens.grants.is_empty() {
            return Err("it has no tokens, so nobody could make a call".to_owned());
        }
        Ok(tokens)
    }

    /// The file at that path, from `http.tokens_file`.
    #[must_use]
    pub fn file(path: &Path) -> Files<Self> {
        const KEY: &str = "http.tokens_file";
        let shown = path.display().to_string();
        Files::new(vec![(KEY, path.to_owned())], move |contents| {
            let text = contents.first().map_or(&[][..], |text| text);
            Self::parse(text).map_err(|flaw| format!("{KEY}: {shown}: {flaw}"))
        })
        .guarded(without_tokens)
    }

    /// The rights of a token, if it is one of these.
    pub(in crate::http) fn find(&self, token: &str) -> Option<&Grant> {
        self.grants.get(&digest(&self.key, token))
    }
}

impl fmt::Debug for Tokens {
    /// Shows only the number of tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.grants.len())
    }
}

impl<'a> TokenLine<'a> {
    fn parse(line: &'a str) -> Result<Self, String> {
        let (token, rest) = split(line);
        let (role, user) = split(rest);
        if !is_token(token) {
            return Err(format!(
                "a token has 1 to {MAX_TOKEN_BYTES} letters, digits and - . _ ~ + / with = only at its end"
            ));
        }
        let mut parts = role.split(';');
        let role = match parts.next() {
            Some("client") => Role::Client,
            Some("operator") => Role::Operator,
            _ => {
                return Err(
                    "after the token comes its role, client or operator, and optionally a user"
                        .to_owned(),
                );
            }
        };
        let mut grant = Grant::of(role, None);
        for part in parts {
            grant.set(part)?;
        }
        grant.user = match user {
            "" => None,
            name if name.contains(" #") => {
                return Err("put a comment on a line of its own".to_owned());
            }
            name => Some(UserId::parse(name).map_err(|flaw| format!("the user {flaw}"))?),
        };
        Ok(Self { text: token, grant })
    }
}

impl Grant {
    /// Sets the label or the end of validity, from the text that follows the role.
    fn set(&mut self, part: &str) -> Result<(), String> {
        let is_again = match part.split_once('=') {
            Some(("label", label)) => {
                let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
                if !(1..=MAX_LABEL_BYTES).contains(&label.len()) || !label.bytes().all(is_good) {
                    return Err(format!(
                        "a label has 1 to {MAX_LABEL_BYTES} letters, digits and - . _ @"
                    ));
                }
                self.label.replace(label.into()).is_some()
            }
            Some(("expires", end)) => {
                let since_1970 = humantime::parse_rfc3339(end)
                    .ok()
                    .and_then(|end| end.duration_since(UNIX_EPOCH).ok());
                let Some(since_1970) = since_1970 else {
                    return Err("expires is a time such as 2027-01-31T00:00:00Z".to_owned());
                };
                let end = Timestamp::default().after(since_1970);
                self.expires.replace(end).is_some()
            }
            _ => {
                return Err(
                    "after the role come only ;label= and ;expires=, without spaces".to_owned(),
                );
            }
        };
        if is_again {
            return Err("a token has one label and one end at most".to_owned());
        }
        Ok(())
    }
}

/// The first word, and the text after it.
fn split(line: &str) -> (&str, &str) {
    let (word, rest) = line
        .split_once(|gap: char| gap.is_ascii_whitespace())
        .unwrap_or((line, ""));
    (word, rest.trim())
}

/// The file's text with digests in place of its tokens. If the file is truncated after a token, the
/// result is a prefix of the previous one; truncated within a token, it isn't a valid file.
fn without_tokens(text: &Bytes) -> Bytes {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let rest = line.trim_ascii_start();
        let (indent, _) = line.split_at(line.len() - rest.len());
        let gap = rest.iter().position(u8::is_ascii_whitespace);
        let (token, rest) = rest.split_at(gap.unwrap_or(rest.len()));
        kept.extend(indent);
        if token.is_empty() || token.starts_with(b"#") {
            kept.extend(token);
        } else {
            let digest = Sha256::digest(token);
            kept.extend(
                digest
                    .iter()
                    .flat_map(|byte| format!("{byte:02x}").into_bytes()),
            );
        }
        kept.extend(rest);
    }
    kept.into()
}

/// Whether a text is a valid bearer token (RFC 6750, `b64token`).
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty()
        && text.len() <= MAX_TOKEN_BYTES
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// The digest to look a token up by.
fn digest(key: &[u8; 32], token: &str) -> [u8; 32] {
    let digest = Sha256::new().chain_update(key).chain_update(token);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, user: Option<&str>) -> Grant {
        Grant::of(role, user.map(|user| UserId::parse(user).unwrap()))
    }

    #[test]
    fn a_line_is_a_token_its_role_and_perhaps_a_user() {
        let file =
            b"# back ends\n\n  s3cret~1= client\r\nb\toperator \nc client anna\nd  operator  the user\n";
        let tokens = Tokens::parse(file).unwrap();
        for (token, expected) in [
            ("s3cret~1=", Some(grant(Role::Client, None))),
            ("b", Some(grant(Role::Operator, None))),
            ("c", Some(grant(Role::Client, Some("anna")))),
            ("d", Some(grant(Role::Operator, Some("the user")))),
            ("s3cret~1", None),
            ("B", None),
            ("", None),
            ("#", None),
        ] {
            assert_eq!(tokens.find(token), expected.as_ref(), "{token}");
        }
        assert_eq!(format!("{tokens:?}"), "Tokens(4)");
    }

    #[test]
    fn a_role_may_carry_a_label_and_an_end() {
        let file = b"a operator;label=night-shift;expires=2027-01-31T00:00:00Z\nb client;label=tv anna b\n";
        let tokens = Tokens::parse(file).unwrap();
        let night = tokens.find("a").unwrap();
        assert_eq!(
            (night.role, night.label.as_deref()),
            (Role::Operator, Some("night-shift"))
        );
        let end = Timestamp::from_millis(1_801_353_600_000);
        assert_eq!(night.expires, Some(end));
        assert!(!night.has_expired(end.before(std::time::Duration::from_millis(1))));
        assert!(night.has_expired(end));
        let of_anna = tokens.find("b").unwrap();
        assert_eq!(of_anna.label.as_deref(), Some("tv"));
        assert_eq!(of_anna.user, Some(UserId::parse("anna b").unwrap()));
        assert!(!of_anna.has_expired(Timestamp::from_millis(u64::MAX)));
    }

    #[test]
    fn each_of_as_many_tokens_as_may_be_is_found_and_no_other() {
        let file: String = (0..MAX_TOKENS).map(|n| format!("t{n} client\n")).collect();
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        assert!((0..MAX_TOKENS).all(|n| tokens.find(&format!("t{n}")).is_some()));
        for other in ["t", "t-1", "t10000000", ""] {
            assert!(tokens.find(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_kept_text_has_no_token_and_reveals_truncation() {
        let file = "# hunter\n  hunter2 client anna\r\n\nhunter3\toperator\n";
        let kept = |text: &str| without_tokens(&Bytes::copy_from_slice(text.as_bytes()));
        let whole = kept(file);
        let shown = std::str::from_utf8(&whole).unwrap();
        assert!(
            !shown.contains("hunter2") && !shown.contains("hunter3"),
            "{shown}"
        );
        assert!(
            shown.starts_with("# hunter\n  ") && shown.ends_with("\toperator\n"),
            "{shown}"
        );
        for cut in 0..file.len() {
            let text = &file[..cut];
            // Truncated within a token it is a different token, and an invalid line, because it has
            // no role.
            let is_within_token = text.rsplit('\n').next().is_some_and(|line| {
                let line = line.trim_start();
                line.starts_with('h') && line.len() < "hunter2".len()
            });
            assert_eq!(whole.starts_with(&kept(text)), !is_within_token, "{text:?}");
            assert!(
                !is_within_token || Tokens::parse(text.as_bytes()).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_bad_tokens_file_names_the_line_but_no_content() {
        let long = format!("{} client", "x".repeat(513));
        for (text, expected) in [
            ("", "it has no token"),
            ("# only words\n", "it has no token"),
            ("a client\n\nhunter2\n", "line 3: after the token"),
            ("hunter2 admin", "line 1: after the token"),
            ("hunter2 Client", "line 1: after the token"),
            ("hunter:2 client", "line 1: a token has"),
            ("=== client", "line 1: a token has"),
            (&long, "line 1: a token has"),
            (
                "hunter2 client anna # tv",
                "line 1: put a comment on a line of its own",
            ),
            (
                "hunter2 operator;name=a",
                "line 1: after the role come only",
            ),
            ("hunter2 operator;", "line 1: after the role come only"),
            ("hunter2 operator;label=", "line 1: a label has 1 to 64"),
            ("hunter2 operator;label=a+b", "line 1: a label has 1 to 64"),
            (
                "hunter2 operator;expires=2027-01-31",
                "line 1: expires is a time such as",
            ),
            (
                "hunter2 operator;label=a;label=b",
                "line 1: a token has one label",
            ),
            (
                "hunter2 client an\u{7}na",
                "line 1: the user has a control character",
            ),
            (
                "hunter2 client\nhunter2 operator",
                "line 2: duplicate token; delete this line",
            ),
        ] {
            let told = Tokens::parse(text.as_bytes()).unwrap_err();
            assert!(told.starts_with(expected), "{text:?} gave {told}");
            assert!(!told.contains("hunter"), "{told}");
        }
        assert_eq!(Tokens::parse(b"\xff").unwrap_err(), "it is not UTF-8");
        let many: String = (0..=MAX_TOKENS).map(|n| format!("t{n} client\n")).collect();
        assert!(
            Tokens::parse(many.as_bytes())
                .unwrap_err()
                .contains("more than")
        );
    }
}
