//! The sections of the configuration, each with its keys, defaults and ranges.

pub(in crate::config) mod events;
pub(in crate::config) mod grpc;
pub(in crate::config) mod http;
pub(in crate::config) mod identity;
pub(in crate::config) mod leases;
pub(in crate::config) mod limits;
pub(in crate::config) mod redis;
pub(in crate::config) mod redis_url;
pub(in crate::config) mod refusal;
pub(in crate::config) mod renamed;
pub(in crate::config) mod runtime;
pub(in crate::config) mod shutdown;
pub(in crate::config) mod store;
pub(in crate::config) mod telemetry;
pub(in crate::config) mod tls;
pub(in crate::config) mod users_file;
