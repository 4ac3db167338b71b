//! The README's examples of clients, taken from there and run as they stand.

// The page and its module in a real Chromium.
mod browser;
// A Chromium, driven over the Chrome DevTools protocol.
mod chromium;
// The cookie of ours in that Chromium.
mod cookie;
// Serves that page.
mod pages;
// Takes examples out of the README.
pub(crate) mod readme;
// The service that they talk to.
mod scene;
// curl, Python and Node.
mod scripts;

use std::path::PathBuf;

/// A program that the system has to bring along. Says which package has it if it is not there.
fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|place| place.join(name));
    places
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; on Debian: apt-get install {package}"))
}
