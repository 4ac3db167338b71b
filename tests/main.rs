//! The one integration binary. Each module below is a subject; its head says what it holds.

mod authz;
mod envoy_files;
mod reflection_descriptors;
mod support {
    pub(crate) mod app;
    pub(crate) mod envoy_files;
    pub(crate) mod faulty_store;
    pub(crate) mod gateway_client;
}
