//! A Redis that sentinels watch, real processes all: which server is used, what is said where none can be, and what a failover costs.

// The master dies or is exchanged in the midst of viewers.
mod failover;
// streamgate as a process: its variables, TLS, and what its log holds.
mod process;
// Sentinels that are down, hang, are cut off, know nothing, or want a password; and the master that they name.
mod naming;
