//! Periodic work while an instance runs.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::store::MemoryStore;

/// How often the embedded store is swept and the store's health checked.
const EVERY: Duration = Duration::from_secs(5);

/// Periodic work.
#[derive(Debug)]
pub(super) struct Housekeeping {
    /// Checks the store.
    pub(super) ledger: Arc<Ledger>,
    /// The embedded store, if used; it is swept.
    pub(super) memory: Option<Arc<MemoryStore>>,
}

// === impl Chores ===

impl Housekeeping {
    /// Runs until dropped.
    pub(super) async fn run(self) {
        loop {
            self.ledger.probe().await;
            if let Some(memory) = &self.memory {
                memory.sweep();
            }
            self.ledger.sweep();
            tokio::time::sleep(EVERY).await;
        }
    }
}
