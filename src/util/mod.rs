//! Small tools that several modules share and that know nothing about streams.

pub(crate) mod authorization;
mod hex;
mod lock;
pub(crate) mod percent;
mod sharded;
mod throttle;

pub(crate) use hex::hex;
pub(crate) use lock::{lock, unpoisoned};
pub(crate) use sharded::Sharded;
pub(crate) use throttle::Throttle;
