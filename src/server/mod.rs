//! The two ports: they are bound, accept connections, and serve a router on each. The routers are handed in: no door is known here.

mod acceptor;
mod bounds;
mod connection;
mod frames;
mod listener;
mod peer;
mod ports;
mod serve;

use std::time::Duration;

pub use acceptor::ConnectionTimes;
pub(crate) use listener::unusable_socket;
pub(crate) use ports::Ports;
pub use ports::{Addresses, PortError};

/// How often each kind of trouble with connections is logged.
const TROUBLE_PERIOD: Duration = Duration::from_secs(10);
