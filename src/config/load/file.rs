//! Reads the text of a configuration file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::error::ConfigProblem;
use super::origin::Origin;

/// The largest file that is read. Limits of more users belong in `limits.users_file`.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The text of a configuration file.
pub(in crate::config) fn text(path: &Path) -> Result<Bytes, ConfigProblem> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
    let message = match read {
        Ok(bytes) if bytes as u64 <= MAX_BYTES => return Ok(text.into()),
        Ok(_) => {
            "the configuration file is larger than 16 MiB; put users' limits into limits.users_file"
                .to_owned()
        }
        Err(error) => format!("can't read the configuration file: {error}"),
    };
    Err(ConfigProblem {
        origin: Origin::Line(0),
        key: String::new(),
        message,
    })
}
