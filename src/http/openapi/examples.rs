//! The examples in the OpenAPI document, made with the same code as real answers.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::http::error::ApiError;
use crate::identity::{ContentId, DeviceId, Facts, Kind, SessionId, SessionKey};
use crate::ledger::Outage;
use crate::session::{Flags, Refusal, Session};
use crate::store::StoreError;

/// A user's session on a television.
pub(in crate::http) fn session() -> Session {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Session {
        key: SessionKey {
            kind: Kind::Playback,
            id: SessionId::from_number(0x5eed),
        },
        facts: Facts {
            device: DeviceId::parse("tv").ok(),
            content: ContentId::parse("film-7").ok(),
            ..Facts::default()
        },
        started_at: at,
        renewed_at: at,
        expires_at: at,
        ticket: None,
        flags: Flags::default(),
    }
}

/// The refusal of the next start.
pub(in crate::http) fn full() -> Refusal {
    Refusal::Full {
        limit: 1,
        holders: vec![session()],
        decided_at: Timestamp::from_millis(1_800_000_000_000),
    }
}

/// The error during an outage of the store.
pub(in crate::http) fn outage() -> ApiError {
    ApiError::Outage(Outage {
        error: StoreError::Timeout(Duration::ZERO),
        doubtful: None,
        waited: Duration::ZERO,
    })
}
