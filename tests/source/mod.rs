//! Checks of the source itself.

// Files import only modules declared above their own.
mod imports;
// No two types share a name.
mod type_names;
// Logging macros have no effects in their arguments.
mod log_macros;
// The committed descriptors are those of the protocol.
mod reflection_descriptors;
