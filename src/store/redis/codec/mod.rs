//! The binary form of what Redis keeps, what it is asked and what it answers.

pub(super) mod keys;
pub(super) mod layout;
pub(super) mod question;
pub(super) mod record;
pub(super) mod reply;
pub(super) mod script;
mod text;
