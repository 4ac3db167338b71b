//! Small tools that several modules share and that know nothing about streams.

mod lock;
mod throttle;

pub(crate) use lock::lock;
pub(crate) use throttle::Throttle;
