//! The documents, held to the code and to the rules for prose.

// The documents: their links, how long their sentences are, what they have to paste into a shell.
mod commands;
mod documents;
mod sentences;
// The names that versions promise: metrics, configuration keys, reasons.
mod promises;
// The drills, and the table of faults.
mod drills;
