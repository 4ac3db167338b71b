//! streamgate limits how many streams one user watches at once, in the path of an Envoy gateway.

pub mod session;

pub mod policy;

pub mod config;

pub mod cli;
