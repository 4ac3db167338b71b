//! The one integration binary. Each module below is a subject; its head says what it holds.

mod access_log;
mod authz;
mod envoy_files;
mod http;
mod lifecycle;
mod reflection_descriptors;
mod support {
    pub(crate) mod app;
    pub(crate) mod envoy_files;
    pub(crate) mod faulty_store;
    pub(crate) mod gateway_client;
    pub(crate) mod process;
}
