//! Where events go besides the clients of `/v1/events`.

use std::path::PathBuf;

use crate::config::load::form::{NotAPath, file, path};
use crate::config::load::section::{Key, Keys};

/// Where events go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSettings {
    /// `events.webhooks_file`: the receivers that get events by POST, with their secrets.
    pub webhooks_file: Option<PathBuf>,
}

impl EventSettings {
    /// Declares the keys of `events`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "events.webhooks_file",
                "A file that says which receivers get [events by signed POSTs][webhooks].",
            ),
            file(|written| {
                let allowed = "the path of a file with a webhook on each line";
                path(written).map_err(|NotAPath| written.wrong_secret(allowed))
            }),
            &mut self.webhooks_file,
        );
    }
}
