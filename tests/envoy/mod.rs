//! Envoy's doors over real gRPC, without Envoy: checks and the access log, one at a time and in
//! floods.

// The `ext_authz` door over real gRPC, with a store that fails as told.
mod authz;
// The access log door over real gRPC: ends, sightings, and what arrives broken, late or twice.
mod access_log;
// The cookie of ours for players that say nothing: issued, brought back, ended, somebody else's.
mod cookie;
// Many calls that come, or leave, at the same moment.
mod crowds;
// Floods: what one user, or very many, can take of memory and of others' room.
mod floods;
// Floods of HTTP/2 frames at the gRPC port: memory, and others' checks meanwhile.
mod grpc_floods;
