//! The one integration binary. Each module below is a subject; its head says what it holds.

/// The `ext_authz` door over real gRPC, with a store that fails as told.
mod authz;
/// The main job on a real Envoy: ask, count, refuse, release at the stream's end.
mod e2e;
/// What can be said of the files in `envoy/` without starting Envoy.
mod envoy_files;
/// The committed descriptors are those of the protocol.
mod reflection_descriptors;

/// What the subjects share.
mod support {
    pub(crate) mod app;
    #[path = "../../deploy/demo/backend.rs"]
    pub(crate) mod backend;
    pub(crate) mod envoy_files;
    pub(crate) mod faulty_store;
    pub(crate) mod gateway;
    pub(crate) mod gateway_client;
    pub(crate) mod origin;
    pub(crate) mod process;
    pub(crate) mod stack;
    pub(crate) mod streamgate;
    pub(crate) mod viewers;
    pub(crate) mod watch;
    pub(crate) mod wire;
}
