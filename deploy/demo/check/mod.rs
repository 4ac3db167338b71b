//! `demo check`: walks through the scenario by itself, one printed line a step, and stops at the first surprise.
//! `compose` does it to what compose.yaml starts. `scenario` says what comes after what, `step` how a step is told, `walk` is what the steps share.

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
