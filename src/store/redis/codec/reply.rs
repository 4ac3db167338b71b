//! The scripts' answers, as domain values. The head of each script documents what it returns;
//! anything else is [`StoreError::Protocol`], never a guess.

use std::time::Duration;

use redis::Value;

use super::layout::{NONE, OVERRIDE_VERSION};
use super::record::{Malformed, RecordReader, decode_flags, decode_roster, decode_sessions};
use crate::clock::Timestamp;
use crate::session::{
    Admission, AdmissionKind, Admitted, EndCause, LimitOverride, Playing, Refusal, Released,
    Renewal, Session, Start,
};
use crate::store::{Listing, StoreError};

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

/// Decodes the answer of `lua/admit.lua` to that start under that limit.
pub(in crate::store::redis) fn admission(
    answer: &Value,
    start: &Start,
    limit: u32,
) -> Result<Admission, StoreError> {
    let (letter, mut body) = letter(answer)?;
    Ok(match letter {
        b'S' => started(start, &mut body)?,
        b'R' => renewed(start, answer, &mut body)?,
        b'F' => {
            let decided_at = body.timestamp()?;
            let limit = override_limit(&mut body)?.unwrap_or(limit);
            let holders = decode_sessions(body.take_all())?;
            Admission::Refused(Refusal::Full {
                limit,
                holders,
                decided_at,
            })
        }
        b'E' => {
            let (cause, quiet) = cause_and_quiet(&mut body)?;
            Admission::Refused(Refusal::Ended(cause, quiet, body.message()?))
        }
        b'N' => {
            body.end()?;
            Admission::Refused(Refusal::NotStoppable)
        }
        _ => return Err(unexpected(answer)),
    })
}

/// A start that was admitted.
fn started(start: &Start, body: &mut RecordReader<'_>) -> Result<Admission, StoreError> {
    let (decided_at, expires_at, active) = times_and_count(body)?;
    let limit_override = override_limit(body)?;
    let flags = decode_flags(body.byte()?);
    Ok(Admission::Admitted(Admitted {
        entry: AdmissionKind::Started,
        session: Session {
            flags,
            ..Session::starting(start, expires_at, decided_at)
        },
        active,
        displaced: decode_sessions(body.take_all())?,
        decided_at,
        limit_override,
    }))
}

/// A start of a session that was live already. Its record is as the renewal found it, plus newly
/// known facts.
fn renewed(
    start: &Start,
    answer: &Value,
    body: &mut RecordReader<'_>,
) -> Result<Admission, StoreError> {
    let (decided_at, expires_at, active) = times_and_count(body)?;
    let limit_override = override_limit(body)?;
    let session = match <[_; 1]>::try_from(decode_sessions(body.take_all())?) {
        Ok([session]) if session.key == start.key => session,
        _ => return Err(unexpected(answer)),
    };
    Ok(Admission::Admitted(Admitted {
        entry: AdmissionKind::Renewed,
        session: Session {
            // A clock that stepped back is behind its earlier times.
            started_at: session.started_at.min(decided_at),
            renewed_at: decided_at,
            expires_at,
            ticket: None,
            ..session
        },
        active,
        displaced: Vec::new(),
        decided_at,
        limit_override,
    }))
}

/// Decodes the common part of an admission: the time of the decision, the end of the lease, and the
/// number of live sessions.
fn times_and_count(
    body: &mut RecordReader<'_>,
) -> Result<(Timestamp, Timestamp, usize), StoreError> {
    let (decided_at, expires_at) = (body.timestamp()?, body.timestamp()?);
    let active = usize::try_from(body.integer(2)?).unwrap_or(usize::MAX);
    Ok((decided_at, expires_at, active))
}

/// Decodes the limit that an operator has set, if there is one.
fn override_limit(body: &mut RecordReader<'_>) -> Result<Option<u32>, Malformed> {
    let limit = body.integer(2)?;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Ok((limit != u32::from(NONE)).then_some(limit))
}

/// Decodes the answer of `lua/override_limit.lua`: the override that was in force.
pub(in crate::store::redis) fn overridden(
    answer: &Value,
) -> Result<Option<LimitOverride>, StoreError> {
    let mut body = bytes(answer)?;
    let limit = override_limit(&mut body)?;
    let until = body.timestamp()?;
    body.end()?;
    Ok(limit.map(|limit| LimitOverride { limit, until }))
}

/// Decodes the answer of `lua/renew.lua`.
pub(in crate::store::redis) fn renewal(answer: &Value) -> Result<Renewal, StoreError> {
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
        b'V' => Renewal::Provisional {
            expires_at: body.timestamp()?,
        },
        b'E' => Renewal::Ended(ended(&mut body)?),
        b'C' => Renewal::Crowded,
        _ => return Err(unexpected(answer)),
    };
    body.end()?;
    Ok(renewal)
}

/// Decodes the answer of `lua/renew_all.lua` about that many sessions: the outcome of each, or
/// `None` if nothing was done.
pub(in crate::store::redis) fn renewals(
    answer: &Value,
    count: usize,
) -> Result<Vec<Option<Renewal>>, StoreError> {
    match answer {
        Value::Array(answers) if answers.len() == count => {
            let done = |answer: &Value| (*answer != Value::Int(0)).then(|| renewal(answer));
            answers
                .iter()
                .map(|answer| done(answer).transpose())
                .collect()
        }
        _ => Err(unexpected(answer)),
    }
}

/// Decodes the answer of `lua/release.lua`; with the time if it freed a slot.
pub(in crate::store::redis) fn released(
    answer: &Value,
) -> Result<(Released, Option<Timestamp>), StoreError> {
    let (letter, mut body) = letter(answer)?;
    let mut at = None;
    let released = match letter {
        b'G' => {
            at = Some(body.timestamp()?);
            Released::Freed
        }
        b'A' => Released::NotLive,
        b'E' => Released::AlreadyEnded(ended(&mut body)?),
        b'N' => Released::NotStoppable,
        b'K' => Released::Kept,
        _ => return Err(unexpected(answer)),
    };
    body.end()?;
    Ok((released, at))
}

/// Decodes the answer of `lua/played.lua`.
pub(in crate::store::redis) fn playing(answer: &Value) -> Result<Option<Playing>, StoreError> {
    let (letter, mut body) = letter(answer)?;
    let playing = match letter {
        b'L' => Some(Playing {
            left: Duration::from_millis(body.integer(6)?),
            proven: body.byte()? != 0,
        }),
        b'A' => None,
        _ => return Err(unexpected(answer)),
    };
    body.end()?;
    Ok(playing)
}

/// Why a session has ended, in an answer that says nothing else.
fn ended(body: &mut RecordReader<'_>) -> Result<EndCause, Malformed> {
    let (cause, _) = cause_and_quiet(body)?;
    body.end()?;
    Ok(cause)
}

/// Why a session has ended, and how long it must stay quiet if it may start again after that.
fn cause_and_quiet(body: &mut RecordReader<'_>) -> Result<(EndCause, Option<Duration>), Malformed> {
    let (number, quiet) = (body.byte()?, body.integer(4)?);
    let cause = body.plain_cause(number)?;
    Ok((cause, (quiet > 0).then(|| Duration::from_millis(quiet))))
}

/// Decodes the answer of `lua/list.lua`, without expired sessions.
pub(in crate::store::redis) fn listing(answer: &Value) -> Result<Listing, StoreError> {
    let mut body = bytes(answer)?;
    let taken_at = body.timestamp()?;
    let limit_override = match body.byte()? {
        0 => None,
        _ => Some((body.byte()?, override_limit(&mut body)?, body.timestamp()?)),
    };
    let mut sessions = decode_roster(body.take_all())?.sessions;
    sessions.retain(|session| session.expires_at > taken_at);
    Ok(Listing {
        sessions,
        limit_override: match limit_override {
            Some((OVERRIDE_VERSION, Some(limit), until)) if until > taken_at => {
                Some(LimitOverride { limit, until })
            }
            _ => None,
        },
        taken_at,
    })
}

/// The answer's first letter, which gives its type, and the rest.
fn letter(answer: &Value) -> Result<(u8, RecordReader<'_>), StoreError> {
    let mut body = bytes(answer)?;
    let letter = body.byte()?;
    Ok((letter, body))
}

/// The answer's bytes.
fn bytes(answer: &Value) -> Result<RecordReader<'_>, StoreError> {
    match answer {
        Value::BulkString(bytes) => Ok(RecordReader(bytes)),
        _ => Err(unexpected(answer)),
    }
}

/// The error for an answer that none of our scripts gives.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Facts, Kind, SessionId, SessionKey};

    fn bytes(text: &[u8]) -> Value {
        Value::BulkString(text.to_vec())
    }

    fn start() -> Start {
        Start {
            key: SessionKey {
                kind: Kind::Playback,
                id: SessionId::parse("a").unwrap(),
            },
            facts: Facts::default(),
            lease: Duration::from_secs(30),
            ticket: None,
            derived: false,
        }
    }

    #[test]
    fn an_answer_that_no_script_gives_is_an_error() {
        for answer in [
            Value::Nil,
            Value::Okay,
            Value::Array(Vec::new()),
            Value::Int(-1),
            bytes(b""),
            bytes(b"?"),
            bytes(b"S"),
            bytes(b"R123456"),
            bytes(b"R123456123456\0\x01"),
            bytes(b"R123456123456\0\x01\xff\xff"),
            bytes(b"F123456"),
            bytes(b"S123456123456\0\x01\xff\xff"),
            bytes(b"F12345"),
            bytes(b"F123456x"),
            bytes(b"E"),
            bytes(b"E\x09"),
            bytes(b"E\x09\0\0\0\0"),
            bytes(b"E\x01\0\0\0\0x"),
            bytes(b"V12345"),
            bytes(b"V1234567"),
            bytes(b"L123456"),
            bytes(b"L1234567x"),
            bytes(b"Nx"),
            bytes(b"P12345"),
            bytes(b"P1234567"),
            bytes(b"Cx"),
            bytes(b"G12345"),
            bytes(b"G123456x"),
            bytes(b"Ax"),
            bytes(b"Kx"),
        ] {
            let failures = [
                admission(&answer, &start(), 3).err(),
                renewal(&answer).err(),
                released(&answer).err(),
                playing(&answer).err(),
            ];
            for failure in failures {
                assert!(
                    matches!(failure, Some(StoreError::Protocol(_))),
                    "{answer:?}: {failure:?}"
                );
            }
        }
    }

    #[test]
    fn another_session_s_record_is_an_error() {
        // Times, a count of one, and a record of 24 bytes with its length: its times, a playback
        // with a one-letter id, its start, and its flags.
        let answer = |id| {
            let record = [&[0, 24][..], &[0; 12], &[2, 0, id], &[0; 7]].concat();
            bytes(&[&b"R"[..], &[0; 12], &[0, 1, 255, 255], &record].concat())
        };
        assert!(admission(&answer(b'a'), &start(), 3).is_ok());
        let failure = admission(&answer(b'b'), &start(), 3);
        assert!(matches!(failure, Err(StoreError::Protocol(_))));
    }

    #[test]
    fn a_listing_is_the_time_and_a_roster_or_nothing() {
        let taken_at = Timestamp::from_millis(258);
        let expected = |limit_override| {
            Ok(Listing {
                sessions: Vec::new(),
                limit_override,
                taken_at,
            })
        };
        let now = [0, 0, 0, 0, 1, 2];
        assert_eq!(listing(&bytes(&[&now[..], &[0]].concat())), expected(None));
        let until = Timestamp::from_millis(259);
        for (version, till, limit_override) in [
            (1, 3, Some(LimitOverride { limit: 5, until })),
            // It has expired, or was written by a later version.
            (1, 2, None),
            (2, 3, None),
        ] {
            let told = [&now[..], &[9, version, 0, 5, 0, 0, 0, 0, 1, till]].concat();
            assert_eq!(listing(&bytes(&told)), expected(limit_override));
        }
        for answer in [
            Value::Nil,
            bytes(b"12345"),
            bytes(b"123456"),
            bytes(b"123456\0x"),
            bytes(b"123456\x0912345678"),
        ] {
            let failure = listing(&answer);
            assert!(
                matches!(failure, Err(StoreError::Protocol(_))),
                "{answer:?}"
            );
        }
    }

    #[test]
    fn another_script_s_letter_is_an_error() {
        for (letter, is_admission, is_renewal, is_released) in [
            (b"N", true, false, true),
            (b"C", false, true, false),
            (b"A", false, false, true),
            (b"K", false, false, true),
        ] {
            let answer = bytes(letter);
            assert_eq!(
                admission(&answer, &start(), 3).is_ok(),
                is_admission,
                "{letter:?}"
            );
            assert_eq!(renewal(&answer).is_ok(), is_renewal, "{letter:?}");
            assert_eq!(released(&answer).is_ok(), is_released, "{letter:?}");
        }
    }

    #[test]
    fn a_batch_is_answered_one_by_one_or_not_at_all() {
        let expires_at = Timestamp::from_millis(7);
        let answer = Value::Array(vec![Value::Int(7), Value::Int(0)]);
        let expected = vec![Some(Renewal::Renewed { expires_at }), None];
        assert_eq!(renewals(&answer, 2), Ok(expected));
        assert_eq!(renewals(&Value::Array(Vec::new()), 0), Ok(Vec::new()));
        for (answer, count) in [
            (answer, 3),
            (Value::Array(vec![Value::Int(-1)]), 1),
            (Value::Array(vec![Value::Nil]), 1),
            (Value::Int(7), 1),
            (Value::Nil, 0),
        ] {
            let failure = renewals(&answer, count);
            assert!(
                matches!(failure, Err(StoreError::Protocol(_))),
                "{answer:?}: {failure:?}"
            );
        }
    }

    #[test]
    fn a_number_is_a_renewal() {
        let expires_at = Timestamp::from_millis(1_700_000_000_000);
        let answer = Value::Int(1_700_000_000_000);
        assert_eq!(renewal(&answer), Ok(Renewal::Renewed { expires_at }));
    }
}
