//! Takes a lock, whatever has become of those who held it before.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Takes a lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What a lock or a condition gives. A thread that panicked while it held the lock leaves the data as it was at that moment: each use must
/// bear that.
pub(crate) fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
