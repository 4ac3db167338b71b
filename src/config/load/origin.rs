//! Where a value was written.

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Origin {
    /// In the file, in this line; 0 where the line isn't known.
    Line(u64),
    /// In the environment, by the name of the variable.
    Variable(String),
}
