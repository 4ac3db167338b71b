//! What the OpenAPI document shows as examples, made as answers are.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::http::error::ApiError;
use crate::identity::{ContentId, DeviceId, Facts, Kind, SessionId, SessionKey};
use crate::ledger::Outage;
use crate::session::{Flags, Refusal, Session};
use crate::store::StoreError;

/// A session of somebody's, on the television.
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

/// What whoever comes next is told.
pub(in crate::http) fn full() -> Refusal {
    Refusal::Full {
        limit: 1,
        holders: vec![session()],
        decided_at: Timestamp::from_millis(1_800_000_000_000),
    }
}

/// What is told while the store is out.
pub(in crate::http) fn outage() -> ApiError {
    ApiError::Outage(Outage {
        error: StoreError::Timeout(Duration::ZERO),
        doubtful: None,
        waited: Duration::ZERO,
    })
}
