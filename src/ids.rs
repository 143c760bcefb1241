//! ```text
//!   node 0 .. 99      partition 0 .. 65,535
//! ```
//! What nodes and partitions are called by: their numbers.

/// The most nodes a cache has. They are numbered from 0, so their numbers are below it.
pub const NODES_MAX: u8 = 100;

/// The number of a node.
pub type NodeId = u8;

/// The number of a partition.
pub type PartitionId = u16;
