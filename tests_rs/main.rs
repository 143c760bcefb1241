//! Tests of the crate from outside, one file per promise.

mod allocator;
mod convergence;
mod gauges;
mod lattice;
mod layers;
mod mistakes;
mod node_memory;
mod placement;
mod recency;
mod simulation;
mod typed_values;
