//! The program as a process: its life, its files, its settings, its commands.

// An instance's life as a process: binding, readiness, the drain, signals, exit codes, the log.
mod lifecycle;
// What a service manager hears of it.
mod service_manager;
// The configuration followed while the process runs.
mod reload;
// Followed files that were emptied or cut off, and the list of users' limits.
mod followed_files;
// TLS on both ports, with and without client certificates, and certificates replaced at run time.
mod tls;
// A log that can't be written, or isn't read.
mod log_unwritable;
// A log that shows hashes instead of users.
mod log_users;
// Every key of the configuration at every documented value, on the real program.
mod config_matrix;
// The commands that ask a running instance: what they print, their exit codes, where a token goes,
// TLS.
mod cli;
// `streamgate doctor` on real installations.
mod doctor;
