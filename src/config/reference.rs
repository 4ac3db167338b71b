//! The table of all keys for the documentation, written from their declarations.

use super::known_keys;
use super::load::section::KnownKey;

/// A table in Markdown with a row for each key. A test holds the documentation to it.
#[doc(hidden)]
#[must_use]
pub fn reference() -> String {
    let head = "| key | default | values | meaning |\n|---|---|---|---|\n".to_owned();
    let rows = known_keys().into_iter().map(
        |KnownKey {
             key,
             default,
             values,
             ..
         }| {
            // Quotes in a list of addresses or sources only make it harder to read.
            let default = default.replace('"', "");
            format!(
                "| `{}` | `{default}` | {values} | {} |\n",
                key.name, key.about
            )
        },
    );
    rows.fold(head, |table, row| table + &row)
}
