//! The names of our keys in Redis. All that belongs to one user is one key, so that one script call is atomic; its hash tag is the
//! user, so that a cluster that reshards never splits what is one.

use crate::session::UserId;

/// Makes the names of keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// What every key begins with, escaped.
    prefix: String,
}

impl Keys {
    /// Keys that begin with that prefix, so that several installations can share one Redis.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: escape(prefix),
        }
    }

    /// Where a user's roster is. No two users' are the same, nor are two prefixes'.
    pub(super) fn roster(&self, user: &UserId) -> String {
        format!("{}:{{{}}}", self.prefix, escape(user.as_str()))
    }

    /// Where nothing ever is; no user's roster, since those end with a brace.
    pub(super) fn probe(&self) -> String {
        format!("{}:probe", self.prefix)
    }
}

/// Writes braces, which begin and end a hash tag, as `%7B` and `%7D`, and so the percent sign as `%25`; everything else as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '{' => escaped.push_str("%7B"),
            '}' => escaped.push_str("%7D"),
            '%' => escaped.push_str("%25"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The part of a key that Redis Cluster hashes: what is between the first `{` and the first `}` behind it.
    fn hash_tag(key: &str) -> &str {
        let behind = &key[key.find('{').unwrap() + 1..];
        &behind[..behind.find('}').unwrap()]
    }

    #[test]
    fn a_key_is_the_prefix_and_the_user() {
        let user = UserId::parse("alice@example.com").unwrap();
        assert_eq!(
            Keys::new("streamgate").roster(&user),
            "streamgate:{alice@example.com}"
        );
    }

    #[test]
    fn whatever_the_ids_no_two_share_a_key_and_the_hash_tag_is_the_whole_user() {
        let texts = [
            "a", "b", "{", "}", "{}", "}{", "%", "%7B", "%7b", "%257B", "{a}", "a}", "{a", ":",
            "a:{b", "}:{", "é", "a:{a}", " ",
        ];
        let mut keys = HashSet::new();
        for prefix in texts {
            for user in texts {
                let key = Keys::new(prefix).roster(&UserId::parse(user).unwrap());
                assert_eq!(hash_tag(&key), escape(user), "{key}");
                assert!(keys.insert(key.clone()), "{key} is used twice");
            }
        }
    }
}
