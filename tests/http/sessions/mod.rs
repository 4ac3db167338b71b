//! The HTTP API on sessions over real HTTP: each call and each of its answers, on the embedded
//! store and on a Redis; the outcome of races; and the effect of an outage.

mod calls;
mod limits;
mod messages;
mod races;
mod requests;
mod store;

use streamgate::identity::SessionKey;
use streamgate::session::Admission;
use streamgate::store::Store;

use streamgate::store::faulty::FaultyStore;
use testkit::streams;
use testkit::streams::refusing;

/// The store was asked nothing.
fn was_not_asked(store: &FaultyStore) {
    for operation in ["admit", "renew", "release", "list"] {
        assert_eq!(store.calls(operation), 0, "{operation}");
    }
}

/// Anna starts that at another instance, as the only one she may.
async fn elsewhere(store: &FaultyStore, key: &SessionKey) {
    let (user, start) = (streams::user("anna"), streams::start(key));
    let started = store.sound.admit(&user, &start, &refusing(1)).await;
    assert!(matches!(started, Ok(Admission::Admitted(_))), "{started:?}");
}
