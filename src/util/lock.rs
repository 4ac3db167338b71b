//! Locks that stay usable after a panic.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Takes a lock, even a poisoned one. A thread that panicked while it held the lock leaves the data
/// as it was at that moment, and every caller must tolerate that.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// The guard that a lock or a condition variable returns, even if the lock is poisoned, see
/// [`lock`].
pub(crate) fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
