//! Telemetry: [`metrics`] for aggregates, [`log`] lines for single events.

mod gateways;
mod hidden;
mod json_lines;
mod labels;
mod line_queue;
pub mod log;
pub mod metrics;
mod refusals;
mod starts;
mod user_hash;

pub use gateways::{GatewayLog, Gateways, LogStream};
pub use metrics::Metrics;
pub use refusals::{RefusalLog, RefusedStream};
pub use starts::{StartedStream, are_told};
pub use user_hash::UserHash;
