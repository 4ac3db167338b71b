//! The HTTP API of a running instance, as `sessions`, `release`, `limit`, `top` and
//! `doctor` ask it.
//!
//! Each call is bounded in time, and each answer in size. This module decides what an answer means
//! for the exit code and how an error is described, for all commands alike.

mod answer;
mod api;
mod base;
mod token;

pub(super) use answer::{ApiResponse, Disappointment};
pub(super) use api::{AccessArgs, Api, ApiArgs, Followed, NoAnswer};
