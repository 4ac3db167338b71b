//! Keyed hashes in the place of user ids (`telemetry.log_users: hashed`).
//!
//! Every log line names its user in the field `user.id` and nowhere else. The hash replaces the id
//! where a line is formatted, so the code that logs can't forget it. A test searches the sources
//! for lines that name users in another way.

use std::fmt;

use ring::hmac;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

use crate::util::hex;

/// The field of a log line that names a user.
const USER_FIELD: &str = "user.id";

/// The least length of a key, in bytes. Nobody guesses that many random characters.
const MIN_KEY_BYTES: usize = 32;

/// How much of the HMAC a log line shows, in bytes: two users never share that much.
const SHOWN_BYTES: usize = 16;

/// The key of `telemetry.log_users_key_file`, which makes hashes of user ids.
#[derive(Debug, Clone)]
pub struct UserHash(hmac::Key);

/// Passes the fields of an event on, with hashes in the place of user ids.
pub(super) struct HashedUsers<'a, V> {
    /// Makes the hashes; without it, the log names users as they are.
    pub(super) hash: Option<&'a UserHash>,
    /// Takes the fields.
    pub(super) fields: V,
}

/// Formats the fields of lines for people, with hashes in the place of user ids.
pub(super) struct TextFields(pub(super) Option<UserHash>);

// === impl UserHash ===

impl UserHash {
    /// The key in the text of a file. White space around it, such as the end of its line, is no
    /// part of it.
    ///
    /// # Errors
    /// The key is too short to be secret.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let key = text.trim_ascii();
        if key.len() < MIN_KEY_BYTES {
            return Err(format!(
                "the key has {} bytes; allowed: at least {MIN_KEY_BYTES}, all of them random, \
                 such as from `openssl rand -hex 32`",
                key.len()
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// What the log shows in the place of that user: the first half of HMAC-SHA-256, in hexadecimal
    /// digits.
    #[must_use]
    pub fn of(&self, user: &str) -> String {
        let tag = hmac::sign(&self.0, user.as_bytes());
        let shown = tag.as_ref().get(..SHOWN_BYTES).unwrap_or_default();
        format!("hmac:{}", hex(shown))
    }
}

// === impl HashedUsers ===

impl<V: Visit> HashedUsers<'_, V> {
    /// What makes the hash for a field, if its value is a user's id that the log must not show.
    fn hash_for(&self, field: &Field) -> Option<&UserHash> {
        self.hash.filter(|_| field.name() == USER_FIELD)
    }
}

impl<V: Visit> Visit for HashedUsers<'_, V> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.record_f64(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.record_u64(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.record_bool(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match self.hash_for(field).map(|hash| hash.of(value)) {
            Some(hashed) => self.fields.record_str(field, &hashed),
            None => self.fields.record_str(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.fields.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match self.hash_for(field) {
            Some(hash) => {
                let hashed = hash.of(&format!("{value:?}"));
                self.fields.record_str(field, &hashed);
            }
            None => self.fields.record_debug(field, value),
        }
    }
}

// === impl TextFields ===

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = HashedUsers {
            hash: self.0.as_ref(),
            fields: DefaultVisitor::new(writer, true),
        };
        fields.record(&mut visitor);
        visitor.fields.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::json_lines::tests::Lines;

    #[test]
    fn a_hash_is_the_first_half_of_hmac_sha_256() {
        // RFC 4231, test case 6.
        let hash = UserHash::parse(&[0xaa; 131]).unwrap();
        assert_eq!(
            hash.of("Test Using Larger Than Block-Size Key - Hash Key First"),
            "hmac:60e431591ee0b67f0d8a26aacbf5b77f"
        );
    }

    #[test]
    fn a_key_is_long_and_the_space_around_it_does_not_count() {
        let key = "0123456789abcdef0123456789abcdef";
        let hash = |text: &str| UserHash::parse(text.as_bytes()).map(|hash| hash.of("anna"));
        assert_eq!(hash(key), hash(&format!("\t{key} \r\n")));
        assert_ne!(hash(key), hash(&key.replace('0', "1")));
        let flaw = hash(&format!("{}\n", &key[1..])).unwrap_err();
        assert!(flaw.starts_with("the key has 31 bytes; allowed: at least 32"));
        assert!(!flaw.contains("89abcdef"), "{flaw}");
    }

    #[test]
    fn lines_for_people_show_the_hash_as_they_show_an_id() {
        let hash = UserHash::parse(&[b'k'; 32]).unwrap();
        let (named, hashed) = (
            format!("user.id=\"{}\" ", hash.of("anna")),
            logged(Some(hash)),
        );
        let plain = logged(None);
        assert!(plain.contains("user.id=\"anna\" count=3"), "{plain}");
        assert_eq!(hashed, plain.replace("user.id=\"anna\" ", &named));
        assert!(hashed.contains("other=\"anna\""), "{hashed}");
    }

    /// A line for people about the user `anna`.
    fn logged(users: Option<UserHash>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .fmt_fields(TextFields(users))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), || {
            tracing::info!(user.id = "anna", count = 3, other = "anna", "a stream");
        });
        lines.text()
    }
}
