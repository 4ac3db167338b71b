//! The numbers that the scripts and this crate share: the layout of a record, its flags and kinds,
//! and the layout of a question.
//!
//! A script names them in capitals. [`names`] gives the value of each, and [`super::script`]
//! replaces each name by its value, so a constant costs a script nothing.

use crate::session::{EndList, MAX_PUT_BACK, PROVEN_AFTER, PROVISIONAL_LEASE, Terms};

use super::script::millis;

/// The first byte of every roster; no text begins with it.
pub(in crate::store::redis) const VERSION: u8 = 131;

/// The format versions that an instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) struct RecordVersions {
    /// The version that it writes.
    pub(super) written: u8,
    /// The other version that it reads and rewrites in its own; the same as `written` if there is
    /// no other.
    pub(super) also_read: u8,
}

impl RecordVersions {
    /// The versions of this release. 131 is the first version in production, so there is no other
    /// yet.
    pub(in crate::store::redis) const OURS: Self = Self {
        written: VERSION,
        also_read: VERSION,
    };

    /// The versions of a bridge release between this one and the next: it writes this one's version
    /// and also reads the next. Only for tests.
    pub(in crate::store::redis) const BRIDGE: Self = Self {
        written: VERSION,
        also_read: VERSION + 1,
    };

    /// The versions of a release with the next version, which has the same layout. Only for tests.
    pub(in crate::store::redis) const NEXT: Self = Self {
        written: VERSION + 1,
        also_read: VERSION,
    };

    /// Whether this instance can read that version.
    pub(super) const fn reads(self, version: u8) -> bool {
        version == self.written || version == self.also_read
    }
}

/// The length of a roster's head in bytes.
pub(super) const HEAD: usize = 22;

/// The length of a timestamp in bytes.
pub(super) const MILLIS: usize = 6;

/// The offset in a record of the time of its last renewal, in bytes. The record's length, in two
/// bytes, and its expiry come before.
pub(super) const RENEWED_AT: usize = 2 + MILLIS;

/// The offset in a record of its key.
pub(super) const KEY_AT: usize = RENEWED_AT + MILLIS;

/// The offset of a session's flags, not counting the bytes of its key: the start time comes
/// between.
pub(super) const FLAGS_AT: usize = KEY_AT + MILLIS;

/// The length of a ticket in bytes.
pub(super) const TICKET_BYTES: usize = 4;

/// The tags of a text are below this; the rest of the byte is the text's form.
pub(super) const TAGS: u8 = 16;

/// The tag of the key of a `request`.
pub(super) const REQUEST: u8 = 1;
/// The tag of the key of a `playback`.
pub(super) const PLAYBACK: u8 = 2;
/// The tag of the key of a `video`.
pub(super) const VIDEO: u8 = 3;

/// The doors in a session's flags are below this.
pub(super) const DOORS: u8 = 4;

/// Set in a session's flags if a ticket follows.
pub(super) const HAS_TICKET: u8 = 4;

/// Set in the flags of a session or tombstone whose id may start again.
pub(super) const DERIVED: u8 = 8;

/// Set in a session's flags if part of it has played.
pub(super) const PLAYED: u8 = 16;

/// Set in a session's flags if its lease doesn't grow yet.
pub(super) const PROVISIONAL: u8 = 32;

/// Set in a session's flags if its start drew on the budget.
pub(super) const PAID: u8 = 64;

/// The causes in a tombstone's flags are below this.
pub(super) const CAUSES: u8 = 4;
/// The cause of a session that was released.
pub(super) const RELEASED: u8 = 1;
/// The cause of a session that was displaced. The key of the session that took its slot follows.
pub(super) const DISPLACED: u8 = 2;
/// The cause of a session that an operator ended.
pub(super) const OPERATOR: u8 = 3;

/// Set in a tombstone's flags if the session was live.
pub(super) const WAS_LIVE: u8 = 4;

/// The tags of facts, below [`TAGS`]. Unknown tags are skipped, because a later version may write
/// more.
pub(super) const DEVICE: u8 = 1;
/// See [`DEVICE`].
pub(super) const CONTENT: u8 = 2;
/// See [`DEVICE`].
pub(super) const POSITION: u8 = 3;
/// See [`DEVICE`].
pub(super) const JOINED: u8 = 4;
/// See [`DEVICE`]. A part of the message to the viewer of an ended session.
pub(super) const MESSAGE: u8 = 5;

/// The tag of the note that holds a user's budget.
pub(super) const BUDGET: u8 = 1;
/// The tag of the note that holds the ends forgotten early.
pub(super) const FORGOTTEN: u8 = 2;

/// Where the operation's own fields begin in a question, counted from 1: after the time and the
/// lease.
pub(super) const OPERATION_AT: usize = 2 * MILLIS + 1;

/// At a full limit, the start is refused.
pub(in crate::store::redis) const REFUSE: u8 = 0;
/// At a full limit, the oldest session is displaced.
pub(in crate::store::redis) const OLDEST: u8 = 1;
/// At a full limit, the idlest session is displaced.
pub(in crate::store::redis) const IDLEST: u8 = 2;
/// At a full limit, the named session is displaced.
pub(in crate::store::redis) const NAMED: u8 = 3;

/// Set in the flags of a start that displaces without drawing on the budget.
pub(in crate::store::redis) const FREE: u8 = 1;
/// Set in the flags of a start that asked for another session's slot itself.
pub(in crate::store::redis) const TAKEOVER: u8 = 2;

/// Set in the flags of a start that only renews.
pub(in crate::store::redis) const RENEWS_ONLY: u8 = 4;

/// The first byte of a user's override.
pub(in crate::store::redis) const OVERRIDE_VERSION: u8 = 1;
/// The length of an override: version, limit, and until when.
pub(in crate::store::redis) const OVERRIDE_BYTES: usize = 3 + MILLIS;
/// In place of a limit: there is no override.
pub(in crate::store::redis) const NONE: u16 = u16::MAX;

/// The store has counted the session that was seen running.
pub(in crate::store::redis) const COUNTED: u8 = 0;
/// The outage rule let in the session that was seen running.
pub(in crate::store::redis) const BY_RULE: u8 = 1;
/// The session that was seen running hasn't played yet.
pub(in crate::store::redis) const UNPLAYED: u8 = 2;

/// The stream itself reports that it is over.
pub(in crate::store::redis) const STREAM: u8 = 1;
/// A caller that vouches for it reports that a stream is over.
pub(in crate::store::redis) const VOUCHED: u8 = 2;
/// An operator ends a stream.
pub(in crate::store::redis) const BY_OPERATOR: u8 = 3;
/// The call that started a stream takes it back. From this value on, an end also undoes the effects
/// of its start.
pub(in crate::store::redis) const UNDONE: u8 = 4;
/// Envoy reports that a request of the stream failed.
pub(in crate::store::redis) const FAILED: u8 = 5;

/// A name in the scripts, and the Lua that replaces it.
pub(super) type LuaConstant = (&'static str, String);

/// The names of sizes, offsets and counts.
const SIZES: [(&str, usize); 12] = [
    ("HEAD", HEAD),
    ("MILLIS", MILLIS),
    ("RENEWED_AT", RENEWED_AT),
    ("KEY_AT", KEY_AT),
    ("FLAGS_AT", FLAGS_AT),
    ("TICKET_BYTES", TICKET_BYTES),
    ("OPERATION_AT", OPERATION_AT),
    ("OVERRIDE_BYTES", OVERRIDE_BYTES),
    ("NONE", NONE as usize),
    ("PUT_BACK", MAX_PUT_BACK),
    ("LIVE_ENDS", EndList::Live.room()),
    ("OTHER_ENDS", EndList::Stranger.room()),
];

/// The names of kinds, tags, flags and choices.
const BYTES: [(&str, u8); 34] = [
    ("TAGS", TAGS),
    ("REQUEST", REQUEST),
    ("PLAYBACK", PLAYBACK),
    ("VIDEO", VIDEO),
    ("DOORS", DOORS),
    ("HAS_TICKET", HAS_TICKET),
    ("DERIVED", DERIVED),
    ("PLAYED", PLAYED),
    ("PROVISIONAL", PROVISIONAL),
    ("PAID", PAID),
    ("CAUSES", CAUSES),
    ("RELEASED", RELEASED),
    ("DISPLACED", DISPLACED),
    ("OPERATOR", OPERATOR),
    ("WAS_LIVE", WAS_LIVE),
    ("DEVICE", DEVICE),
    ("JOINED", JOINED),
    ("MESSAGE", MESSAGE),
    ("BUDGET", BUDGET),
    ("FORGOTTEN", FORGOTTEN),
    ("REFUSE", REFUSE),
    ("OLDEST", OLDEST),
    ("NAMED", NAMED),
    ("FREE", FREE),
    ("TAKEOVER", TAKEOVER),
    ("RENEWS_ONLY", RENEWS_ONLY),
    ("OVERRIDE_VERSION", OVERRIDE_VERSION),
    ("BY_RULE", BY_RULE),
    ("UNPLAYED", UNPLAYED),
    ("STREAM", STREAM),
    ("VOUCHED", VOUCHED),
    ("BY_OPERATOR", BY_OPERATOR),
    ("UNDONE", UNDONE),
    ("FAILED", FAILED),
];

/// All names, for those terms and versions. A key expires after twice the longest time that
/// anything this instance writes can last, so that most renewals don't need to extend it.
pub(super) fn names(terms: &Terms, versions: RecordVersions) -> Vec<LuaConstant> {
    let (longest, memory) = (millis(terms.longest_lease), millis(terms.memory));
    let keep = 2 * longest.max(memory).max(1);
    // Empty, with no tombstone that ends and no notes.
    let empty = [
        &[versions.written][..],
        &[0; HEAD - 9],
        &[u8::MAX; 6],
        &[0; 2],
    ]
    .concat();
    let empty: String = empty.iter().map(|byte| format!("\\{byte:03}")).collect();
    let numbers = [
        ("VERSION", versions.written.into()),
        ("ALSO_READ", versions.also_read.into()),
        ("MEMORY", memory),
        ("MARGIN", millis(terms.margin())),
        ("REFILL", millis(terms.refill).max(1)),
        ("KEEP", keep),
        ("PROVEN", millis(PROVEN_AFTER)),
        ("PROVISIONAL_LEASE", millis(PROVISIONAL_LEASE)),
        ("NEVER", (1 << (8 * MILLIS)) - 1),
    ];
    let texts = [
        ("EMPTY", empty),
        ("KEEP_TEXT", keep.to_string()),
        (
            "OUT_OF_MEMORY",
            crate::store::redis::error::OUT_OF_MEMORY.to_owned(),
        ),
    ];
    let numbers = numbers.map(|(name, number)| (name, number.to_string()));
    let sizes = SIZES.map(|(name, size)| (name, size.to_string()));
    let bytes = BYTES.map(|(name, byte)| (name, byte.to_string()));
    let texts = texts.map(|(name, text)| (name, format!("'{text}'")));
    numbers
        .into_iter()
        .chain(sizes)
        .chain(bytes)
        .chain(texts)
        .collect()
}

/// Replaces the names in a script by their values.
pub(super) fn resolve(script: &str, names: &[LuaConstant]) -> String {
    let is_part = |character: char| character == '_' || character.is_ascii_alphanumeric();
    let mut resolved = String::with_capacity(script.len());
    let mut rest = script;
    while let Some(start) = rest.find(is_part) {
        let (before, word) = rest.split_at(start);
        let (word, behind) = word.split_at(word.find(|next| !is_part(next)).unwrap_or(word.len()));
        let meaning = names.iter().find(|(name, _)| *name == word);
        resolved.push_str(before);
        resolved.push_str(meaning.map_or(word, |(_, meaning)| meaning));
        rest = behind;
    }
    resolved.push_str(rest);
    resolved
}
