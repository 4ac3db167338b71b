//! What instances tell each other through the store, next to the rosters.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// Small values that instances share. Each expires, and none is needed for a decision.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Puts an instance's report in the place of its last one.
    async fn put_report(
        &self,
        instance: &str,
        report: &[u8],
        kept: Duration,
    ) -> Result<(), StoreError>;

    /// An instance's last report, if it is still kept.
    async fn report(&self, instance: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Enters an instance in the register, if one is named, and returns the register. Instances that
    /// haven't entered themselves for that long are removed.
    async fn register(
        &self,
        instance: Option<&str>,
        kept: Duration,
    ) -> Result<Register, StoreError>;

    /// A bucket, if it is still kept.
    async fn bucket(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Puts a bucket in the place of one that begins with `before`, or where there is none if
    /// `before` is empty. Returns whether it was so.
    async fn swap_bucket(
        &self,
        name: &str,
        before: &[u8],
        after: &[u8],
        kept: Duration,
    ) -> Result<bool, StoreError>;
}

/// The instances that share a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// The store's time.
    pub at: Timestamp,
    /// The instances, each with the time when it last entered itself.
    pub instances: Vec<(String, Timestamp)>,
}
