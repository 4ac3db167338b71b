//! Small tools that several modules need, and that know nothing of streams.

mod throttle;

pub(crate) use throttle::Throttle;
