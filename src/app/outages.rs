//! Tells operators who listen when the store, or a shard of it, fails and when it is back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::events::{Event, EventType, Events};
use crate::ledger::Ledger;
use crate::store::Shard;

/// Tells of outages until it is dropped.
pub(super) async fn tell(ledger: Arc<Ledger>, events: Arc<Events>) {
    let mut changes = ledger.watch_store();
    let mut out = BTreeMap::new();
    loop {
        let now: BTreeMap<Shard, String> = ledger.store_troubles().into_iter().collect();
        for (shard, trouble) in now.iter().filter(|(shard, _)| !out.contains_key(*shard)) {
            let begun = Event::saying(EventType::OutageBegun, trouble);
            events.tell(None, || [of(shard, begun)]);
        }
        for shard in out.keys().filter(|shard| !now.contains_key(*shard)) {
            let over = Event::new(EventType::OutageOver);
            events.tell(None, || [of(shard, over)]);
        }
        out = now;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// An event of that shard.
fn of(shard: &Shard, event: Event) -> Event {
    Event {
        shard: shard.name().map(str::to_owned),
        ..event
    }
}
