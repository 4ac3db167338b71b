//! What the scripts answer, as values of the domain. Each script's head says what it returns; anything else is
//! [`StoreError::Protocol`], never a guess.

use redis::Value;

use super::record::{Malformed, Reader, decode_cause, decode_roster, decode_sessions};
use crate::session::{Admission, Admitted, Entry, Refusal, Released, Renewal, Timestamp};
use crate::store::{Listing, StoreError};

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

/// What `lua/admit.lua` has answered to a start under that limit.
pub(super) fn admission(answer: &Value, limit: u32) -> Result<Admission, StoreError> {
    let (letter, mut body) = letter(answer)?;
    Ok(match letter {
        b'S' => admitted(Entry::Started, &mut body)?,
        b'R' => admitted(Entry::Renewed, &mut body)?,
        b'F' => {
            let decided_at = body.timestamp()?;
            let holders = decode_sessions(body.take_all())?;
            Admission::Refused(Refusal::Full {
                limit,
                holders,
                decided_at,
            })
        }
        b'E' => Admission::Refused(Refusal::Ended(decode_cause(body.take_all())?)),
        b'N' => {
            body.end()?;
            Admission::Refused(Refusal::NotStoppable)
        }
        _ => return Err(unexpected(answer)),
    })
}

/// A start that was let in.
fn admitted(entry: Entry, body: &mut Reader<'_>) -> Result<Admission, StoreError> {
    let decided_at = body.timestamp()?;
    let expires_at = body.timestamp()?;
    let active = usize::try_from(body.integer(2)?).unwrap_or(usize::MAX);
    Ok(Admission::Admitted(Admitted {
        entry,
        expires_at,
        active,
        displaced: decode_sessions(body.take_all())?,
        decided_at,
    }))
}

/// What `lua/renew.lua` has answered.
pub(super) fn renewal(answer: &Value) -> Result<Renewal, StoreError> {
    if let Value::Int(expires) = answer {
        let millis = u64::try_from(*expires).map_err(|_| unexpected(answer))?;
        let expires_at = Timestamp::from_millis(millis);
        return Ok(Renewal::Renewed { expires_at });
    }
    let (letter, mut body) = letter(answer)?;
    let renewal = match letter {
        b'P' => Renewal::PutBack {
            expires_at: body.timestamp()?,
        },
        b'E' => Renewal::Ended(decode_cause(body.take_all())?),
        b'C' => Renewal::Crowded,
        _ => return Err(unexpected(answer)),
    };
    body.end()?;
    Ok(renewal)
}

/// What `lua/release.lua` has answered.
pub(super) fn released(answer: &Value) -> Result<Released, StoreError> {
    let (letter, mut body) = letter(answer)?;
    let released = match letter {
        b'G' => match <[_; 1]>::try_from(decode_sessions(body.take_all())?) {
            Ok([session]) => Released::Freed(session),
            Err(_) => return Err(unexpected(answer)),
        },
        b'A' => Released::NotLive,
        b'E' => Released::AlreadyEnded(decode_cause(body.take_all())?),
        b'N' => Released::NotStoppable,
        b'K' => Released::Kept,
        _ => return Err(unexpected(answer)),
    };
    body.end()?;
    Ok(released)
}

/// What `lua/list.lua` has answered, without what has expired.
pub(super) fn listing(answer: &Value) -> Result<Listing, StoreError> {
    let mut body = bytes(answer)?;
    let taken_at = body.timestamp()?;
    let mut sessions = decode_roster(body.take_all())?.sessions;
    sessions.retain(|session| session.expires_at > taken_at);
    Ok(Listing { sessions, taken_at })
}

/// The answer's first letter, which says what it is, and what follows.
fn letter(answer: &Value) -> Result<(u8, Reader<'_>), StoreError> {
    let mut body = bytes(answer)?;
    let letter = body.byte()?;
    Ok((letter, body))
}

/// The answer's bytes.
fn bytes(answer: &Value) -> Result<Reader<'_>, StoreError> {
    match answer {
        Value::BulkString(bytes) => Ok(Reader(bytes)),
        _ => Err(unexpected(answer)),
    }
}

/// The error for an answer that no script of ours gives.
fn unexpected(answer: &Value) -> StoreError {
    let what = match answer {
        Value::BulkString(bytes) => {
            format!("{} bytes that begin with {:?}", bytes.len(), bytes.first())
        }
        Value::Int(number) => format!("the number {number}"),
        _ => "neither bytes nor a number".to_owned(),
    };
    StoreError::Protocol(format!("the script answered {what}"))
}
