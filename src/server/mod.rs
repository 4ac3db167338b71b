//! The two ports: they are bound, accept connections, and serve one router each. Callers pass in
//! the routers; this module knows no door.

mod acceptor;
mod bounds;
mod connection;
mod frames;
mod gather;
mod listener;
mod peer;
mod ports;
mod serve;

use std::time::Duration;

pub use acceptor::ConnectionTimes;
pub(crate) use listener::unusable_socket;
pub(crate) use ports::Ports;
pub use ports::{Addresses, PortError};

/// How often each kind of connection trouble is logged.
const TROUBLE_PERIOD: Duration = Duration::from_secs(10);
