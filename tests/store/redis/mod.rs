//! What is Redis's own: where things are kept, what happens when it is away, slow, full, or not ours.

mod connection;
mod foreign;
mod full;
mod keys;
mod many;

use std::time::Duration;

use streamgate::identity::{ContentId, DeviceId, Facts, SessionKey, UserId};
use streamgate::session::{Admission, AdmissionKind, Admitted, Ending, Released, Start};
use streamgate::store::redis::{RedisSettings, RedisStore};
use streamgate::store::{Seen, Store, StoreError};

use testkit::redis::RedisServer;
use testkit::streams::{lasting, playback, refusing, sighting, start, user};

/// A deadline that is short for a person and long for a busy machine.
const DEADLINE: Duration = Duration::from_millis(300);

/// A store that gives up after [`DEADLINE`].
fn hasty(server: &RedisServer) -> RedisStore {
    let settings = RedisSettings {
        timeout: DEADLINE,
        ..server.settings()
    };
    RedisStore::open(settings).unwrap()
}

async fn admit(store: &RedisStore, name: &str, id: &str) -> Result<Admission, StoreError> {
    let start = start(&playback(id));
    store.admit(&user(name), &start, &refusing(3)).await
}

fn is_started(admission: &Result<Admission, StoreError>) -> bool {
    matches!(
        admission,
        Ok(Admission::Admitted(Admitted {
            entry: AdmissionKind::Started,
            ..
        }))
    )
}

async fn active(store: &RedisStore, name: &str) -> usize {
    store.list(&user(name)).await.unwrap().sessions.len()
}

/// A stream says that it is over.
async fn end(store: &RedisStore, user: &UserId, key: &SessionKey) -> Result<Released, StoreError> {
    store
        .release(user, key, Ending::Stream, Duration::ZERO)
        .await
}

/// A start about which much is known, so that it takes memory.
fn heavy(id: &str) -> Start {
    let facts = Facts {
        device: DeviceId::parse(&"d".repeat(200)).ok(),
        content: ContentId::parse(&"c".repeat(200)).ok(),
        ..Facts::default()
    };
    Start {
        facts,
        ..lasting(&playback(id))
    }
}

/// A sighting of that playback of that user.
fn seen(name: &str, id: &str) -> Seen {
    Seen {
        user: user(name),
        sighting: sighting(&playback(id)),
        limit: 3,
    }
}
