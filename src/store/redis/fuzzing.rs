//! Properties of the decoders of records (others can write to Redis too), of the scripts' answers,
//! and of key names. See [`crate::fuzzing`].

use std::time::Duration;

use redis::Value;

use super::codec::keys::KeyNames;
use super::codec::record::{RecordReader, decode_roster, decode_sessions, encode_key, encode_rest};
use super::codec::reply;
use crate::fuzzing::{assert_are_names, assert_is_name, cut, text};
use crate::identity::{ContentId, DeviceId, Facts, Kind, SessionId, SessionKey, UserId};
use crate::session::{
    Admission, AdmissionKind, EndCause, Refusal, Released, Renewal, Session, Start,
};
use crate::store::StoreError;

/// A roster: decoded names are valid, each key has the one form that the scripts know, and
/// different keys have different forms.
pub(crate) fn record(data: &[u8]) {
    if let Ok(roster) = decode_roster(data) {
        for session in &roster.sessions {
            assert_key(&session.key);
            // A later version's facts are skipped, so it may be shorter.
            let rest = encode_rest(&session.facts, session.flags, session.ticket);
            assert!(rest.len() <= data.len());
        }
        for tombstone in &roster.tombstones {
            assert_key(&tombstone.key);
            assert_cause(&tombstone.cause);
        }
        assert!(roster.sessions.len() + roster.tombstones.len() <= data.len());
    }
    if let Ok(sessions) = decode_sessions(data) {
        sessions.iter().for_each(|session| assert_key(&session.key));
    }
    if let Some((flags, rest)) = data.split_first()
        && let Ok(cause) = RecordReader(rest).cause(*flags)
    {
        assert_cause(&cause);
    }
    if let Ok(key) = RecordReader(data).key() {
        let form = encode_key(&key);
        assert_eq!(data.get(..form.len()), Some(&*form), "one form for a key");
    }
    let (first, second) = cut(data, b'\n');
    keys(&text(first), &text(second));
}

/// A script's answer, single and batched: a decoded value matches the letter and has valid names;
/// anything else is the one error. The first byte selects the type of the Redis value.
pub(crate) fn reply(data: &[u8]) {
    let Some((shape, rest)) = data.split_first() else {
        return;
    };
    let answer = match shape % 4 {
        0 => Value::BulkString(rest.to_vec()),
        1 => Value::Int(number(rest)),
        2 => Value::SimpleString(text(rest)),
        _ => return many(rest),
    };
    one(&answer);
}

/// A batched answer, one line each: there are as many as requested, and each decodes as it would
/// alone.
fn many(data: &[u8]) {
    let each = |line: &[u8]| match line.split_first() {
        Some((b'#', rest)) => Value::Int(number(rest)),
        _ => Value::BulkString(line.to_vec()),
    };
    let answers: Vec<Value> = data.split(|byte| *byte == b'\n').map(each).collect();
    let alone: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Value::Int(0) => Ok(None),
            answer => reply::renewal(answer).map(Some),
        })
        .collect();
    let count = answers.len();
    let together = reply::renewals(&Value::Array(answers.clone()), count);
    assert_eq!(together, alone.into_iter().collect());
    for other in [count - 1, count + 1] {
        assert_is_protocol(&reply::renewals(&Value::Array(answers.clone()), other));
    }
}

/// One answer, decoded for each question that it might belong to.
fn one(answer: &Value) {
    let letter = match answer {
        Value::BulkString(bytes) => bytes.first().copied().unwrap_or_default(),
        _ => 0,
    };
    match reply::admission(answer, &asked(), 3) {
        Ok(admission) => assert_admission(&admission, letter),
        failure => assert_is_protocol(&failure),
    }
    match (reply::renewal(answer), letter) {
        (Ok(Renewal::Renewed { .. }), 0)
        | (Ok(Renewal::PutBack { .. }), b'P')
        | (Ok(Renewal::Provisional { .. }), b'V') => {}
        (Ok(Renewal::Ended(cause)), b'E') => assert_cause(&cause),
        (Ok(Renewal::Crowded), b'C') => assert_eq!(*answer, Value::BulkString(b"C".to_vec())),
        (failure, _) => assert_is_protocol(&failure),
    }
    match (reply::released(answer), letter) {
        (Ok((Released::AlreadyEnded(cause), None)), b'E') => assert_cause(&cause),
        (Ok((Released::Freed, Some(_))), b'G') => {}
        (Ok((Released::NotLive, None)), b'A')
        | (Ok((Released::NotStoppable, None)), b'N')
        | (Ok((Released::Kept, None)), b'K') => {
            assert_eq!(*answer, Value::BulkString(vec![letter]));
        }
        (failure, _) => assert_is_protocol(&failure),
    }
    match (reply::playing(answer), letter) {
        (Ok(Some(_)), b'L') | (Ok(None), b'A') => {}
        (failure, _) => assert_is_protocol(&failure),
    }
    match reply::listing(answer) {
        Ok(listing) => {
            let taken_at = listing.taken_at;
            let mut sessions = listing.sessions.iter();
            assert!(sessions.all(|session| session.expires_at > taken_at));
            listing.sessions.iter().for_each(assert_session);
        }
        failure => assert_is_protocol(&failure),
    }
}

/// The start in the question.
fn asked() -> Start {
    Start {
        key: SessionKey {
            kind: Kind::Playback,
            id: SessionId::from_number(7),
        },
        facts: Facts::default(),
        lease: Duration::from_secs(30),
        ticket: None,
        derived: false,
    }
}

/// The admitted session is the requested one; other sessions in the answer have valid names.
fn assert_admission(admission: &Admission, letter: u8) {
    let is_by_letter = match (admission, letter) {
        (Admission::Admitted(admitted), b'S' | b'R') => {
            let is_start = admitted.entry == AdmissionKind::Started;
            assert_eq!(is_start, letter == b'S');
            assert_eq!(admitted.session.key, asked().key);
            assert!(admitted.session.started_at <= admitted.decided_at);
            assert_session(&admitted.session);
            admitted.displaced.iter().for_each(assert_session);
            is_start || admitted.displaced.is_empty()
        }
        (Admission::Refused(Refusal::Full { limit, holders, .. }), b'F') => {
            holders.iter().for_each(assert_session);
            *limit == 3
        }
        (Admission::Refused(Refusal::Ended(cause, ..)), b'E') => {
            assert_cause(cause);
            true
        }
        (Admission::Refused(Refusal::NotStoppable), b'N') => true,
        _ => false,
    };
    assert!(is_by_letter, "{admission:?}");
}

/// A session has valid names.
fn assert_session(session: &Session) {
    assert_key(&session.key);
    assert_are_names(session.facts.device.as_ref().map(DeviceId::as_str));
    assert_are_names(session.facts.content.as_ref().map(ContentId::as_str));
}

/// An answer that can't be decoded gives a protocol error and no other.
fn assert_is_protocol<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    assert!(
        matches!(outcome, Err(StoreError::Protocol(_))),
        "{outcome:?}"
    );
}

/// The number in the first bytes.
fn number(bytes: &[u8]) -> i64 {
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(number)
}

/// A cause of an end has a valid name, if any.
fn assert_cause(cause: &EndCause) {
    if let EndCause::Displaced { by } = cause {
        assert_key(by);
    }
}

/// A key has a valid name, and decodes to what was encoded.
fn assert_key(key: &SessionKey) {
    assert_is_name(key.id.as_str());
    let form = encode_key(key);
    let mut reader = RecordReader(&form);
    assert_eq!(reader.key().as_ref(), Ok(key));
    assert!(reader.end().is_ok());
}

/// Different names have different keys, both for rosters and for sessions.
fn keys(first: &str, second: &str) {
    let ids = (SessionId::parse(first), SessionId::parse(second));
    if let (Ok(first), Ok(second)) = ids {
        let key = |id: &SessionId, kind| SessionKey {
            kind,
            id: id.clone(),
        };
        for kind in Kind::ALL {
            let (one, other) = (key(&first, Kind::Playback), key(&second, kind));
            assert_key(&one);
            assert_eq!(encode_key(&one) == encode_key(&other), one == other);
        }
    }
    let users = (UserId::parse(first), UserId::parse(second));
    if let (Ok(first), Ok(second)) = users {
        let keys = KeyNames::new("streamgate");
        let (one, other) = (keys.roster(&first), keys.roster(&second));
        assert_eq!(one == other, first == second);
        assert_eq!(keys.user_of(one.as_bytes()), Some(first.clone()));
        // The operator chooses the prefix, which can also be anything.
        if first.as_str().len() <= 64 {
            let others = KeyNames::new(first.as_str());
            let key = others.roster(&second);
            assert_eq!(others.user_of(key.as_bytes()), Some(second));
            assert_eq!(
                keys.user_of(key.as_bytes()).is_some(),
                first.as_str() == "streamgate"
            );
        }
    }
}
