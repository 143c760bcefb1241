//! ```text
//!   seed  ->  swarm: sizes, faults, calls  ->  world: real nodes, bad network, virtual time  ->  oracle: every promise kept?
//!                     ^                                                                          |
//!                     +------------------- shrink: fewer faults that still break it  <-----------+
//! ```
//! The cluster in a bad world that can be replayed. One seed is one execution; the same seed is the same execution.

pub mod oracle;
mod shrink;
pub mod swarm;
pub mod world;

pub use oracle::Violation;
pub use shrink::shrink;
pub use swarm::{Options, Trial, run, run_until_over, run_with, trial};
pub use world::{Counts, Fault, Operation, World};
