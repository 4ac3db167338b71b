//! The one integration binary. Each module below is a subject; its head says what it holds.

mod reflection_descriptors;
