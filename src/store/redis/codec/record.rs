//! The binary form of a user's roster in Redis: one string. `lua/open.lua` describes its layout;
//! this module is its counterpart.
//!
//! The scripts compare keys byte by byte, so each key must have exactly one form. Everything is
//! checked when it is decoded: data that isn't ours, or another version's, is [`Malformed`] and
//! never half understood. Unknown tags and flags are skipped, and the scripts keep them, because a
//! later version may write more.
//!
//! # A new version of the format
//!
//! It takes two releases, because otherwise an upgrade would be an outage of the whole fleet. The
//! first reads the new version and still writes this one; the second writes the new one and still
//! reads this one. [`RecordVersions`] defines this in one place, for this crate and for the
//! scripts. An instance rewrites a roster of the other version in its own as soon as anything about
//! it changes, renewals included.
//!
//! An instance that knows neither version leaves such a roster untouched. Each call about that user
//! fails with [`StoreError::Protocol`](crate::store::StoreError::Protocol), so that `store.outage`
//! decides, and the listing of all users leaves that user out and logs it. So no release may be
//! skipped. `tests/store/record_versions.rs` tests all of this with instances of each kind.

use super::layout::{
    CAUSES, CONTENT, DERIVED, DEVICE, DISPLACED, DOORS, HAS_TICKET, JOINED, MESSAGE, MILLIS,
    OPERATOR, PAID, PLAYBACK, PLAYED, POSITION, PROVISIONAL, RELEASED, REQUEST, RecordVersions,
    TAGS, TICKET_BYTES, VIDEO, WAS_LIVE,
};
use super::text::{compact, expand};
use crate::clock::Timestamp;
use crate::identity::{
    ContentId, DeviceId, Door, EndMessage, Facts, JoinedOrigin, Kind, SessionId, SessionKey,
};
use crate::session::{EndCause, Flags, Session, Ticket, Tombstone};

/// The bytes are not in the format of this version of streamgate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record with a wrong {0}")]
pub(in crate::store::redis) struct Malformed(&'static str);

// === writing ===

/// A session's key in the scripts' form.
pub(in crate::store::redis) fn encode_key(key: &SessionKey) -> Vec<u8> {
    let kind = match key.kind {
        Kind::Request => REQUEST,
        Kind::Playback => PLAYBACK,
        Kind::Video => VIDEO,
    };
    encode_text(kind, key.id.as_str())
}

/// A session's record after its times: flags, ticket and facts.
pub(in crate::store::redis) fn encode_rest(
    facts: &Facts,
    flags: Flags,
    ticket: Option<Ticket>,
) -> Vec<u8> {
    let door = match facts.door {
        None => 0,
        Some(Door::ExtAuthz) => 1,
        Some(Door::AccessLog) => 2,
        Some(Door::Http) => 3,
    };
    let mut rest = vec![door | encode_flags(flags)];
    if let (Some(ticket), Some(first)) = (ticket, rest.first_mut()) {
        *first |= HAS_TICKET;
        rest.extend(ticket.number().to_be_bytes());
    }
    if let Some(device) = &facts.device {
        rest.extend(encode_text(DEVICE, device.as_str()));
    }
    if let Some(content) = &facts.content {
        rest.extend(encode_text(CONTENT, content.as_str()));
    }
    if let Some(position) = facts.position_seconds {
        rest.extend(encode_entry(POSITION, &position.to_be_bytes()));
    }
    if let Some(JoinedOrigin(digest)) = facts.joined {
        rest.extend(encode_entry(JOINED, &digest.to_be_bytes()));
    }
    rest
}

/// The longest value of an entry.
const LONGEST_VALUE: usize = 256;

/// The message to the viewer of an ended session, as facts: nothing if there is none.
pub(in crate::store::redis) fn encode_message(message: Option<&EndMessage>) -> Vec<u8> {
    let bytes = message.map_or(&[][..], |message| message.as_str().as_bytes());
    let parts = bytes.chunks(LONGEST_VALUE);
    parts.flat_map(|part| encode_entry(MESSAGE, part)).collect()
}

/// The rule's flags of a session as one byte.
fn encode_flags(flags: Flags) -> u8 {
    let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    bit(flags.derived, DERIVED)
        | bit(flags.played, PLAYED)
        | bit(flags.provisional, PROVISIONAL)
        | bit(flags.paid, PAID)
}

/// A tag combined with the text's form, then the text in that form.
fn encode_text(tag: u8, text: &str) -> Vec<u8> {
    match compact(text) {
        Some((form, bytes)) => encode_entry(tag | form, &bytes),
        None => encode_entry(tag, text.as_bytes()),
    }
}

/// A tag and a value of 1 to 256 bytes, with its length minus one between them.
fn encode_entry(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len().saturating_sub(1)).unwrap_or(u8::MAX);
    let mut entry = vec![tag, length];
    entry.extend(value);
    entry
}

// === reading ===

/// The contents of a roster, including expired entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct Contents {
    /// The sessions, in the order they took their slots.
    pub(in crate::store::redis) sessions: Vec<Session>,
    /// The remembered ends.
    pub(in crate::store::redis) tombstones: Vec<Tombstone>,
}

/// Decodes a whole roster. Empty input is an empty roster.
pub(in crate::store::redis) fn decode_roster(bytes: &[u8]) -> Result<Contents, Malformed> {
    let mut contents = Contents::default();
    if bytes.is_empty() {
        return Ok(contents);
    }
    let mut reader = RecordReader(bytes);
    if !RecordVersions::OURS.reads(reader.byte()?) {
        return Err(Malformed("version"));
    }
    let (sessions, tombstones) = (reader.integer(2)?, reader.integer(1)?);
    reader.take(16)?;
    let notes = usize::try_from(reader.integer(2)?).unwrap_or(usize::MAX);
    // Only the scripts need the notes about the user.
    reader.take(notes)?;
    for _ in 0..sessions {
        contents.sessions.push(reader.session()?);
    }
    for _ in 0..tombstones {
        contents.tombstones.push(reader.tombstone()?);
    }
    reader.end()?;
    Ok(contents)
}

/// Decodes sessions' records up to the end.
pub(in crate::store::redis) fn decode_sessions(bytes: &[u8]) -> Result<Vec<Session>, Malformed> {
    let mut reader = RecordReader(bytes);
    let mut sessions = Vec::new();
    while !reader.0.is_empty() {
        sessions.push(reader.session()?);
    }
    Ok(sessions)
}

/// Reads bytes from the front.
#[derive(Debug)]
pub(in crate::store::redis) struct RecordReader<'a>(pub(in crate::store::redis) &'a [u8]);

impl<'a> RecordReader<'a> {
    /// The next bytes.
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Malformed("length"))?;
        self.0 = left;
        Ok(taken)
    }

    /// All remaining bytes.
    pub(in crate::store::redis) fn take_all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The next byte.
    pub(in crate::store::redis) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, left) = self.0.split_first().ok_or(Malformed("length"))?;
        self.0 = left;
        Ok(byte)
    }

    /// The next integer of that many bytes, at most eight.
    pub(in crate::store::redis) fn integer(&mut self, width: usize) -> Result<u64, Malformed> {
        let bytes = self.take(width)?;
        Ok(bytes
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// The next timestamp.
    pub(in crate::store::redis) fn timestamp(&mut self) -> Result<Timestamp, Malformed> {
        self.integer(MILLIS).map(Timestamp::from_millis)
    }

    /// Checks that no bytes are left.
    pub(in crate::store::redis) fn end(&self) -> Result<(), Malformed> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Malformed("length")),
        }
    }

    /// The next record, which begins with its length.
    fn record(&mut self) -> Result<Self, Malformed> {
        let length = usize::try_from(self.integer(2)?).unwrap_or(usize::MAX);
        self.take(length.saturating_sub(2)).map(RecordReader)
    }

    /// The next tag and its value.
    fn entry(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let tag = self.byte()?;
        let length = usize::from(self.byte()?) + 1;
        Ok((tag, self.take(length)?))
    }

    /// The next key. The scripts would treat any form but ours as another key, which could never be
    /// ended.
    pub(in crate::store::redis) fn key(&mut self) -> Result<SessionKey, Malformed> {
        let (tag, bytes) = self.entry()?;
        let kind = match tag % TAGS {
            REQUEST => Kind::Request,
            PLAYBACK => Kind::Playback,
            VIDEO => Kind::Video,
            _ => return Err(Malformed("kind")),
        };
        let id = parse_name(tag, bytes, SessionId::parse)?;
        if compact(id.as_str()).map_or(0, |(form, _)| form) != tag / TAGS * TAGS {
            return Err(Malformed("form"));
        }
        Ok(SessionKey { kind, id })
    }

    /// The cause in a tombstone's flags; the key of the session that took the slot follows in the
    /// record.
    pub(in crate::store::redis) fn cause(&mut self, flags: u8) -> Result<EndCause, Malformed> {
        match flags % CAUSES {
            RELEASED => Ok(EndCause::Released),
            DISPLACED => Ok(EndCause::Displaced { by: self.key()? }),
            OPERATOR => Ok(EndCause::Operator),
            _ => Err(Malformed("cause")),
        }
    }

    /// The cause in an answer, whose flags may contain only the cause's number.
    pub(in crate::store::redis) fn plain_cause(
        &mut self,
        number: u8,
    ) -> Result<EndCause, Malformed> {
        match number / CAUSES {
            0 => self.cause(number),
            _ => Err(Malformed("cause")),
        }
    }

    /// The next session's record.
    fn session(&mut self) -> Result<Session, Malformed> {
        let mut record = self.record()?;
        let expires_at = record.timestamp()?;
        let renewed_at = record.timestamp()?;
        let key = record.key()?;
        let started_at = record.timestamp()?;
        let flags = record.byte()?;
        let ticket = if flags & HAS_TICKET == 0 {
            None
        } else {
            u32::try_from(record.integer(TICKET_BYTES)?)
                .ok()
                .and_then(Ticket::new)
        };
        let untouched = renewed_at == Timestamp::default();
        Ok(Session {
            key,
            facts: record.facts(flags)?,
            started_at,
            renewed_at: if untouched { started_at } else { renewed_at },
            expires_at,
            ticket: ticket.filter(|_| untouched),
            flags: decode_flags(flags),
        })
    }

    /// The facts up to the end.
    fn facts(&mut self, flags: u8) -> Result<Facts, Malformed> {
        let mut facts = Facts {
            door: match flags % DOORS {
                1 => Some(Door::ExtAuthz),
                2 => Some(Door::AccessLog),
                3 => Some(Door::Http),
                _ => None,
            },
            ..Facts::default()
        };
        while !self.0.is_empty() {
            let (tag, value) = self.entry()?;
            match tag % TAGS {
                DEVICE => facts.device = Some(parse_name(tag, value, DeviceId::parse)?),
                CONTENT => facts.content = Some(parse_name(tag, value, ContentId::parse)?),
                POSITION => {
                    let bytes = value.try_into().map_err(|_| Malformed("position"))?;
                    facts.position_seconds = Some(u32::from_be_bytes(bytes));
                }
                JOINED => {
                    let bytes = value.try_into().map_err(|_| Malformed("joined origin"))?;
                    facts.joined = Some(JoinedOrigin(u64::from_be_bytes(bytes)));
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// The message among the facts up to the end, if there is a valid one.
    pub(in crate::store::redis) fn message(&mut self) -> Result<Option<EndMessage>, Malformed> {
        let mut text = Vec::new();
        while !self.0.is_empty() {
            let (tag, value) = self.entry()?;
            if tag % TAGS == MESSAGE {
                text.extend(value);
            }
        }
        let text = String::from_utf8(text).ok();
        Ok(text.and_then(|text| EndMessage::parse(&text).ok()))
    }

    /// The next tombstone's record.
    fn tombstone(&mut self) -> Result<Tombstone, Malformed> {
        let mut record = self.record()?;
        let (until, asked_at) = (record.timestamp()?, record.timestamp()?);
        let key = record.key()?;
        let flags = record.byte()?;
        let cause = record.cause(flags)?;
        Ok(Tombstone {
            key,
            cause,
            message: RecordReader(record.0).message()?,
            asked_at,
            until,
            was_live: flags & WAS_LIVE != 0,
            derived: flags & DERIVED != 0,
            rival: record.facts(0)?,
        })
    }
}

/// The rule's flags of a session, from one byte.
pub(in crate::store::redis) const fn decode_flags(flags: u8) -> Flags {
    Flags {
        derived: flags & DERIVED != 0,
        played: flags & PLAYED != 0,
        provisional: flags & PROVISIONAL != 0,
        paid: flags & PAID != 0,
    }
}

/// Parses a name. It was checked when it was written, and is checked again because others can write
/// to Redis.
fn parse_name<T, E>(
    tag: u8,
    bytes: &[u8],
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Malformed> {
    let text = expand(tag / TAGS * TAGS, bytes).ok_or(Malformed("name"))?;
    parse(&text).map_err(|_| Malformed("name"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::layout::{HEAD, VERSION};
    use super::*;
    use crate::identity::{MAX_ID_BYTES, MAX_MESSAGE_CHARACTERS};
    use crate::session::{EndList, MAX_PUT_BACK};

    fn key(kind: Kind, id: &str) -> SessionKey {
        let id = SessionId::parse(id).unwrap();
        SessionKey { kind, id }
    }

    /// A record as the scripts assemble it from the parts encoded here.
    fn record(expires: u64, renewed: u64, started: u64, key: &[u8], rest: &[u8]) -> Vec<u8> {
        let time = |millis: u64| millis.to_be_bytes()[2..].to_vec();
        let body = [&time(expires), &time(renewed), key, &time(started), rest].concat();
        let length = u16::try_from(body.len() + 2).unwrap();
        [&length.to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn a_key_has_one_form_and_it_can_be_read_back() {
        let long = "x".repeat(MAX_ID_BYTES);
        for (id, length) in [
            ("a", 3),
            ("abc", 5),
            ("abcd", 5),
            ("abcdefg", 8),
            ("abcdefgh", 8),
            ("abcdefgA", 8),
            ("abcdefg.", 10),
            (&long, 194),
            ("0188f1a24b6c7d8e9f00112233445566", 26),
            ("0188f1a2-4b6c-7d8e-9f00-112233445566", 18),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", 18),
            ("0188F1A2-4B6C-7D8E-9F00-112233445566", 29),
            ("+188f1a2-4b6c-7d8e-9f00-112233445566", 38),
            ("0188f1a24b6c-7d8e-9f00-1122-33445566", 29),
            ("------------------------------------", 29),
        ] {
            for kind in Kind::ALL {
                let key = key(kind, id);
                let encoded = encode_key(&key);
                assert_eq!(encoded.len(), length, "{id}");
                let mut reader = RecordReader(&encoded);
                assert_eq!(reader.key(), Ok(key));
                assert_eq!(reader.end(), Ok(()));
            }
        }
    }

    proptest! {
        #[test]
        fn every_id_comes_back_and_no_two_share_their_bytes(
            ids in proptest::collection::vec(
                prop_oneof!["[A-Za-z0-9_-]{1,40}", "[A_]{1,9}", "[A-Z0-9_.-]{1,9}", "\\PC{1,40}"],
                2..6,
            ),
        ) {
            let mut seen = HashMap::new();
            for id in ids.iter().filter(|id| id.len() <= MAX_ID_BYTES) {
                let key = key(Kind::Playback, id);
                let encoded = encode_key(&key);
                prop_assert_eq!(RecordReader(&encoded).key(), Ok(key));
                let other = seen.insert(encoded, id);
                prop_assert!(other.is_none_or(|other| other == id), "{:?} and {:?}", id, other);
            }
        }
    }

    #[test]
    fn a_session_survives_a_round_trip() {
        let key = key(Kind::Request, "a");
        let facts = Facts {
            device: DeviceId::parse("tv").ok(),
            content: ContentId::parse("film").ok(),
            door: Some(Door::AccessLog),
            position_seconds: Some(7),
            joined: Some(JoinedOrigin(u64::MAX)),
        };
        for (facts, ticket) in [
            (Facts::default(), None),
            (Facts::default(), Ticket::new(u32::MAX)),
            (facts.clone(), None),
            (facts, Ticket::new(1)),
        ] {
            let rest = encode_rest(&facts, Flags::default(), ticket);
            let millis = Timestamp::from_millis;
            for (renewed, renewed_at, ticket) in [(0, 5, ticket), (6, 6, None)] {
                let bytes = record(9, renewed, 5, &encode_key(&key), &rest);
                let session = Session {
                    key: key.clone(),
                    facts: facts.clone(),
                    started_at: millis(5),
                    renewed_at: millis(renewed_at),
                    expires_at: millis(9),
                    ticket,
                    flags: Flags::default(),
                };
                assert_eq!(decode_sessions(&bytes), Ok(vec![session]));
            }
        }
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let mut rest = encode_rest(&Facts::default(), Flags::default(), None);
        rest.extend(encode_entry(9, b"news"));
        rest.extend(encode_entry(CONTENT, b"film"));
        let bytes = record(9, 0, 5, &encode_key(&key(Kind::Video, "a")), &rest);
        let sessions = decode_sessions(&bytes).unwrap();
        assert_eq!(sessions[0].facts.content, ContentId::parse("film").ok());
    }

    #[test]
    fn a_cause_decodes_with_the_session_that_took_the_slot() {
        let by = key(Kind::Playback, "b");
        let displaced = [&[2][..], &encode_key(&by)].concat();
        for (bytes, cause) in [
            (&[1][..], Ok(EndCause::Released)),
            (&displaced, Ok(EndCause::Displaced { by })),
            (&[3], Ok(EndCause::Operator)),
            (&[0], Err(Malformed("cause"))),
            (&[2], Err(Malformed("length"))),
            (&[], Err(Malformed("length"))),
        ] {
            let mut reader = RecordReader(bytes);
            let flags = reader.byte();
            let read = flags.and_then(|flags| reader.cause(flags));
            assert_eq!(read, cause, "{bytes:?}");
        }
    }

    /// The largest roster of a user with that limit: every list is full, every name has the maximum
    /// length, and every optional field is set.
    fn largest_roster(limit: usize) -> Vec<u8> {
        // No shorter form fits these, so each byte counts.
        let longest = "é".repeat(MAX_ID_BYTES / 2);
        let key = encode_key(&key(Kind::Playback, &longest));
        let facts = Facts {
            device: DeviceId::parse(&longest).ok(),
            content: ContentId::parse(&longest).ok(),
            door: Some(Door::ExtAuthz),
            position_seconds: Some(0),
            joined: Some(JoinedOrigin(0)),
        };
        let rest = encode_rest(&facts, Flags::default(), Ticket::new(1));
        let session = record(9, 0, 5, &key, &rest);
        let tombstone = |flags: u8, rest: &[u8]| {
            let body = [&[0; 12], &key[..], &[flags], rest].concat();
            let length = u16::try_from(body.len() + 2).unwrap();
            [&length.to_be_bytes()[..], &body].concat()
        };
        // A session's rest begins with its flags; a tombstone has its own.
        let rival = &encode_rest(&facts.origin(), Flags::default(), None)[1..];
        let message = EndMessage::parse(&"\u{1f4fa}".repeat(MAX_MESSAGE_CHARACTERS)).unwrap();
        let message = &encode_message(Some(&message))[..];
        let displaced = tombstone(WAS_LIVE | 2, &[&key, rival, message].concat());
        let lists = [
            (EndList::Live, displaced),
            (EndList::Operator, tombstone(3, message)),
            (EndList::Stranger, tombstone(1, &[])),
        ];
        // The tags of the budget and of forgotten ends, as in open.lua.
        let budget = encode_entry(1, &[0; 8]);
        let forgotten = encode_entry(2, &[0; 12]);
        let notes = [budget, forgotten].concat();
        let sessions = limit + MAX_PUT_BACK;
        let tombstones: usize = lists.iter().map(|(list, _)| list.room()).sum();
        let mut roster = vec![VERSION];
        roster.extend(u16::try_from(sessions).unwrap().to_be_bytes());
        roster.extend(u8::try_from(tombstones).unwrap().to_be_bytes());
        roster.extend([0; 16]);
        roster.extend(u16::try_from(notes.len()).unwrap().to_be_bytes());
        assert_eq!(roster.len(), HEAD);
        roster.extend(notes);
        roster.extend(session.repeat(sessions));
        for (list, tombstone) in lists {
            roster.extend(tombstone.repeat(list.room()));
        }
        let contents = decode_roster(&roster).unwrap();
        assert_eq!(contents.sessions.len(), sessions);
        assert_eq!(contents.tombstones.len(), tombstones);
        roster
    }

    #[test]
    fn the_largest_roster_is_as_large_as_the_page_says() {
        let page = include_str!("../../../../docs/rule.md");
        // The default limit, and the highest that the configuration accepts.
        for (limit, bytes, written) in [
            (3, 174_747, "174,747 bytes"),
            (1000, 987_302, "987,302 bytes"),
        ] {
            assert_eq!(largest_roster(limit).len(), bytes, "limit {limit}");
            assert!(page.contains(written), "docs/rule.md lacks {written}");
        }
    }

    #[test]
    fn a_message_of_any_length_comes_back() {
        for text in [
            "a",
            &"x".repeat(200),
            &"\u{1f4fa}".repeat(200),
            &"\u{e9}".repeat(129),
        ] {
            let message = EndMessage::parse(text).ok();
            let encoded = encode_message(message.as_ref());
            assert_eq!(RecordReader(&encoded).message(), Ok(message), "{text}");
        }
        assert!(encode_message(None).is_empty());
        assert_eq!(RecordReader(&[]).message(), Ok(None));
        // Others can write to Redis: what is no message is none.
        let entry = encode_entry(MESSAGE, b"a\nb");
        assert_eq!(RecordReader(&entry).message(), Ok(None));
    }

    #[test]
    fn truncated_or_changed_records_are_malformed() {
        assert_eq!(decode_roster(&[]), Ok(Contents::default()));
        let facts = Facts {
            position_seconds: Some(7),
            ..Facts::default()
        };
        let rest = encode_rest(&facts, Flags::default(), None);
        let session = record(9, 0, 5, &encode_key(&key(Kind::Video, "a")), &rest);
        let head = [&[VERSION, 0, 1, 0][..], &[0; HEAD - 4]].concat();
        let roster = [head, session].concat();
        assert_eq!(decode_roster(&roster).unwrap().sessions.len(), 1);
        for length in 1..roster.len() {
            assert!(decode_roster(&roster[..length]).is_err(), "{length} bytes");
        }
        assert!(decode_roster(&[&roster[..], b"x"].concat()).is_err());
        for (at, byte) in [
            (0, 128),
            (3, 1),
            (36, 9),
            (36, 17),
            (38, 0),
            (38, 255),
            (47, 9),
        ] {
            let mut changed = roster.clone();
            changed[at] = byte;
            assert!(decode_roster(&changed).is_err(), "{byte} at {at}");
        }
    }
}
