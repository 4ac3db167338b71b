//! What operators see: [`metrics`] for the many, [`log`] lines for the one.

mod labels;
pub mod log;
pub mod metrics;
mod refusals;

pub use metrics::Metrics;
pub use refusals::{RefusalLog, RefusedStream};
