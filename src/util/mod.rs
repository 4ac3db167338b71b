//! Small tools that several modules need, and that know nothing of streams.

mod hex;
mod lock;
mod throttle;

pub(crate) use hex::hex;
pub(crate) use lock::lock;
pub(crate) use throttle::Throttle;
