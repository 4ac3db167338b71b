//! The integration tests, as one binary. Each module says what it shows; `support` holds what they share.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod support;

// The `ext_authz` door over real gRPC, with a store that fails as told.
mod authz;
// The main job on a real Envoy: ask, count, refuse, release at the stream's end.
mod e2e;
// What can be said of the files in `envoy/` without starting Envoy.
mod envoy_files;
// The committed descriptors are those of the protocol.
mod reflection_descriptors;
// What a store has to do, whatever it is made of.
mod store_contract;
// Random operations on every store and on the rule itself, compared step by step.
mod store_model;
// What is Redis's own: outages, deadlines, a full server, foreign data.
mod store_redis;
// What Redis costs; a measurement, run by hand.
mod store_cost;
