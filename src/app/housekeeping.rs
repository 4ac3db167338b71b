//! What has to be done now and then while an instance runs.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::store::MemoryStore;
use crate::telemetry::Metrics;

/// How often the embedded store is swept, the store's health looked at, and durations folded into their buckets.
const EVERY: Duration = Duration::from_secs(5);

/// What has to be done now and then.
#[derive(Debug)]
pub(super) struct Housekeeping {
    /// Looks at the store.
    pub(super) ledger: Arc<Ledger>,
    /// Is swept, where it is the embedded one.
    pub(super) memory: Option<Arc<MemoryStore>>,
    /// Fold recorded durations.
    pub(super) metrics: Arc<Metrics>,
}

// === impl Chores ===

impl Housekeeping {
    /// Does them, until it is dropped.
    pub(super) async fn run(self) {
        loop {
            self.ledger.probe().await;
            if let Some(memory) = &self.memory {
                memory.sweep();
            }
            self.ledger.sweep();
            self.metrics.upkeep();
            tokio::time::sleep(EVERY).await;
        }
    }
}
