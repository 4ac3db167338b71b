//! Values in shards, each behind a lock of its own, so that two users rarely wait for each other.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard};

use super::lock;

/// `N` shards. A key belongs to the shard that its hash names, which differs from process to process.
#[derive(Debug)]
pub(crate) struct Sharded<T, const N: usize> {
    /// The shards. Hold each for a moment only and never across an `.await`, so a std mutex is right.
    shards: Box<[Mutex<T>; N]>,
    /// Says which shard a key is in.
    hasher: RandomState,
}

impl<T: Default, const N: usize> Default for Sharded<T, N> {
    fn default() -> Self {
        Self {
            shards: Box::new(std::array::from_fn(|_| Mutex::default())),
            hasher: RandomState::new(),
        }
    }
}

impl<T, const N: usize> Sharded<T, N> {
    /// The shard of a key.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the length, and nobody makes a map without shards"
    )]
    pub(crate) fn of(&self, key: &impl Hash) -> MutexGuard<'_, T> {
        let hash = self.hasher.hash_one(key) % N as u64;
        lock(&self.shards[usize::try_from(hash).unwrap_or_default()])
    }

    /// All shards, each to be locked by itself.
    pub(crate) fn all(&self) -> &[Mutex<T>; N] {
        &self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_shard_and_many_keys_use_them_all() {
        let sharded = Sharded::<Vec<u32>, 4>::default();
        for key in 0..1000 {
            sharded.of(&key).push(key);
        }
        for key in 0..1000 {
            assert!(sharded.of(&key).contains(&key), "{key}");
        }
        let sizes = sharded.all().each_ref().map(|shard| lock(shard).len());
        assert_eq!(sizes.iter().sum::<usize>(), 1000);
        assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
    }
}
