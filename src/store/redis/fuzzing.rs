//! What has to hold of whatever lies in Redis, where others can write too, and of the names of our keys. See [`crate::fuzzing`].

use super::keys::Keys;
use super::record::{
    Reader, decode_cause, decode_roster, decode_sessions, encode_key, encode_rest,
};
use crate::fuzzing::{assert_is_name, cut, text};
use crate::session::{EndCause, Kind, SessionId, SessionKey, UserId};

/// A roster: what is read is made of names, each key in the one form that the scripts know it by; keys that differ are written differently.
pub(crate) fn record(data: &[u8]) {
    if let Ok(roster) = decode_roster(data) {
        for session in &roster.sessions {
            assert_key(&session.key);
            // A later version's facts are passed over, so that it may be less.
            let rest = encode_rest(&session.facts, session.ticket);
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
    if let Ok(cause) = decode_cause(data) {
        assert_cause(&cause);
    }
    if let Ok(key) = Reader(data).key() {
        let form = encode_key(&key);
        assert_eq!(data.get(..form.len()), Some(&*form), "one form for a key");
    }
    let (first, second) = cut(data, b'\n');
    keys(&text(first), &text(second));
}

/// Why a session has ended, told with a name at most.
fn assert_cause(cause: &EndCause) {
    if let EndCause::Displaced { by } = cause {
        assert_key(by);
    }
}

/// A key that is a name, and is read as it is written.
fn assert_key(key: &SessionKey) {
    assert_is_name(key.id.as_str());
    let form = encode_key(key);
    let mut reader = Reader(&form);
    assert_eq!(reader.key().as_ref(), Ok(key));
    assert!(reader.end().is_ok());
}

/// Two names are two keys, here and there.
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
        let keys = Keys::new("streamgate");
        let (one, other) = (keys.roster(&first), keys.roster(&second));
        assert_eq!(one == other, first == second);
        assert_eq!(keys.user_of(one.as_bytes()), Some(first.clone()));
        // Prefixes are an operator's, and can be anything too.
        if first.as_str().len() <= 64 {
            let others = Keys::new(first.as_str());
            let key = others.roster(&second);
            assert_eq!(others.user_of(key.as_bytes()), Some(second));
            assert_eq!(
                keys.user_of(key.as_bytes()).is_some(),
                first.as_str() == "streamgate"
            );
        }
    }
}
