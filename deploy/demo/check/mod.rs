//! `demo check`: walks through the scenario, one printed line per step, and stops at the first
//! surprise. `compose` does so with the services of compose.yaml. `scenario` has the order of the
//! steps, `step` reports each, `walk` is what they share.

mod compose;
mod hls;
mod live;
mod metrics;
mod scenario;
mod step;
mod walk;
mod websocket;

pub(crate) use compose::compose;
pub(crate) use scenario::check;
