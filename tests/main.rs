//! The one integration binary. Each module below is a subject; its head says what it holds.

mod envoy_files;
mod reflection_descriptors;
mod support {
    pub(crate) mod envoy_files;
}
