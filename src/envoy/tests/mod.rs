//! How the attributes of Envoy's messages become users and sessions.

mod claim;
mod cmcd;
mod cookie;
pub(super) mod fixtures;
mod sources;
