//! Keys that have new names: for one minor version, the old name is read as the new one, with a
//! warning.

use super::error::{ConfigProblem, Report};
use super::origin::Origin;
use super::raw::Raw;

/// A key that has a new name.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct RenamedKey {
    /// The full name that it had.
    pub(in crate::config) old: &'static str,
    /// The full name that it has.
    pub(in crate::config) new: &'static str,
    /// The first version that no longer reads the old name, such as `0.3`.
    pub(in crate::config) gone_in: &'static str,
}

impl RenamedKey {
    /// The warning about an old name, which is that of a key or of its variable.
    pub(super) fn warning(&self, old: &str, new: &str) -> String {
        let version = self.gone_in;
        format!("{old}: its name is now {new}; rename it, since version {version} won't read {old}")
    }

    /// The problem with an old name where the new one is set too.
    pub(super) fn set_twice(origin: Origin, old: &str, new: &str) -> ConfigProblem {
        ConfigProblem {
            origin,
            key: String::new(),
            message: format!("{old} is the old name of {new}, and both are set; delete {old}"),
        }
    }
}

impl Raw {
    /// Gives values that a file has under old names to the keys that they are for.
    pub(super) fn rename_keys(&mut self, report: &mut Report) {
        for renamed in self.renamed() {
            let Some(value) = self.take(renamed.old) else {
                continue;
            };
            if self.get(renamed.new).is_some() {
                let (old, new) = (renamed.old, renamed.new);
                report.add(RenamedKey::set_twice(value.origin, old, new));
            } else {
                self.warn(renamed.warning(renamed.old, renamed.new));
                self.set(renamed.new, value);
            }
        }
    }
}
