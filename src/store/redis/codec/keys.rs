//! The names of our keys in Redis. All of a user's sessions are in one key, so that one script call
//! is atomic. A limit that an operator has set is in a second key, because it outlives the sessions.
//! The hash tag of both is the user, so that resharding a cluster never splits them.

use crate::identity::UserId;

/// Builds key names.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct KeyNames {
    /// The escaped prefix of every key.
    prefix: String,
}

impl KeyNames {
    /// Keys with that prefix, so that several installations can share one Redis.
    pub(in crate::store::redis) fn new(prefix: &str) -> Self {
        Self {
            prefix: escape(prefix),
        }
    }

    /// The key of a user's roster, unique for each user and prefix.
    pub(in crate::store::redis) fn roster(&self, user: &UserId) -> String {
        format!("{}:{{{}}}", self.prefix, escape(user.as_str()))
    }

    /// The key of the limit that an operator has set for a user.
    pub(in crate::store::redis) fn limit(&self, user: &UserId) -> String {
        self.roster(user) + ":limit"
    }

    /// The user whose roster is at that key, if the key is ours.
    pub(in crate::store::redis) fn user_of(&self, key: &[u8]) -> Option<UserId> {
        let key = str::from_utf8(key).ok()?;
        let tag = key.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let user = UserId::parse(&unescape(tag.strip_suffix('}')?)).ok()?;
        // Otherwise a name that we would write differently would pass for one of ours.
        (self.roster(&user) == key).then_some(user)
    }

    /// A Redis glob pattern that matches the keys of rosters and few others.
    pub(in crate::store::redis) fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + 3);
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + ":{*}"
    }

    /// The channel in which instances tell each other events.
    pub(in crate::store::redis) fn channel(&self) -> String {
        format!("{}:events", self.prefix)
    }

    /// The key of a note. It is no user's roster, since those end with a brace.
    pub(in crate::store::redis) fn note(&self, name: &str) -> String {
        format!("{}:stats:{name}", self.prefix)
    }

    /// A key that is always empty, with that hash tag if there is one. It is no user's roster, since
    /// those end with a brace.
    pub(in crate::store::redis) fn probe(&self, tag: Option<u32>) -> String {
        let tag = tag.map(|tag| format!(":{{{tag}}}")).unwrap_or_default();
        format!("{}{tag}:probe", self.prefix)
    }
}

/// Escapes braces, which delimit a hash tag, as `%7B` and `%7D`, and so the percent sign as `%25`;
/// leaves everything else unchanged.
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

/// Undoes [`escape`]; for text that `escape` never produces, the result is unspecified.
fn unescape(text: &str) -> String {
    let braces = text.replace("%7B", "{").replace("%7D", "}");
    braces.replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_yields_its_user_and_one_of_another_prefix_none(
            prefix in "[a-c:{}%7BD25]{1,6}",
            other in "[a-c:{}%7BD25]{1,6}",
            name in "[a-c:{}%7BD25]{1,9}|\\PC{1,40}",
        ) {
            let (keys, user) = (KeyNames::new(&prefix), UserId::parse(&name).unwrap());
            let key = keys.roster(&user);
            let found = KeyNames::new(&other).user_of(key.as_bytes());
            prop_assert_eq!(found, (prefix == other).then(|| user.clone()));
            prop_assert_eq!(keys.user_of(key.as_bytes()), Some(user));
        }

        #[test]
        fn a_key_that_tells_a_user_is_that_users(key in "a:\\{[ab{}%7BD25é]{0,9}\\}?|\\PC{0,9}") {
            let keys = KeyNames::new("a");
            if let Some(user) = keys.user_of(key.as_bytes()) {
                prop_assert_eq!(keys.roster(&user), key);
            }
        }
    }

    #[test]
    fn foreign_keys_have_no_user() {
        let (keys, long) = (KeyNames::new("a"), format!("a:{{{}}}", "x".repeat(257)));
        for key in [
            &b""[..],
            b"a",
            b"a:{}",
            b"a:{b",
            b"a:{b}c",
            b"a:b:{c}",
            b"b:{c}",
            b"a:{%7b}",
            b"a:{%}",
            b"a:{%41}",
            b"a:{b\n}",
            b"a:{\xff}",
            long.as_bytes(),
            keys.probe(None).as_bytes(),
            keys.probe(Some(7)).as_bytes(),
            keys.limit(&UserId::parse("b").unwrap()).as_bytes(),
        ] {
            assert_eq!(
                keys.user_of(key),
                None,
                "{:?}",
                key.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_pattern_means_the_prefix_and_nothing_that_is_like_it() {
        for (prefix, pattern) in [
            ("streamgate", "streamgate:{*}"),
            ("a:b-c.d_", "a:b-c.d_:{*}"),
            ("a*b?[c]^\\{", "a\\*b\\?\\[c\\]\\^\\\\%7B:{*}"),
        ] {
            assert_eq!(KeyNames::new(prefix).pattern(), pattern);
        }
    }

    /// The part of a key that Redis Cluster hashes: between the first `{` and the first `}` after
    /// it.
    fn hash_tag(key: &str) -> &str {
        let behind = &key[key.find('{').unwrap() + 1..];
        &behind[..behind.find('}').unwrap()]
    }

    #[test]
    fn a_key_is_the_prefix_and_the_user() {
        let user = UserId::parse("alice@example.com").unwrap();
        assert_eq!(
            KeyNames::new("streamgate").roster(&user),
            "streamgate:{alice@example.com}"
        );
    }

    #[test]
    fn keys_are_unique_and_the_hash_tag_is_the_whole_user() {
        let texts = [
            "a", "b", "{", "}", "{}", "}{", "%", "%7B", "%7b", "%257B", "{a}", "a}", "{a", ":",
            "a:{b", "}:{", "é", "a:{a}", " ",
        ];
        let mut keys = HashSet::new();
        for prefix in texts {
            for user in texts {
                let key = KeyNames::new(prefix).roster(&UserId::parse(user).unwrap());
                assert_eq!(hash_tag(&key), escape(user), "{key}");
                assert!(keys.insert(key.clone()), "{key} is used twice");
                let limit = KeyNames::new(prefix).limit(&UserId::parse(user).unwrap());
                assert_eq!(hash_tag(&limit), escape(user), "{limit}");
                assert!(keys.insert(limit.clone()), "{limit} is used twice");
            }
        }
    }
}
