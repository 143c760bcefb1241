//! Tests of the crate from outside, one file per promise.

// The extension module has an allocator of its own, and a program has one.
#[cfg(not(feature = "python"))]
mod allocator;
mod believed;
mod clocks;
mod convergence;
mod dictionaries;
mod expiry;
mod gauges;
mod lattice;
mod layers;
mod mistakes;
mod moves;
mod names;
mod node_memory;
mod noticed;
mod operations;
mod outgrown;
mod packing;
mod placement;
mod recency;
#[cfg(feature = "monitor")]
mod served;
mod signing;
mod simulation;
mod snapshot;
mod ties;
mod typed_values;
mod values;
mod walks;
