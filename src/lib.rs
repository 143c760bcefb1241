#![doc = include_str!("README.md")]

pub mod api;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod counters;
pub mod dictionary;
pub mod entry;
pub mod error;
pub mod events;
pub mod fork;
pub mod gossip;
pub mod hash;
pub mod heap;
pub mod hybrid_clock;
pub mod ids;
pub mod lifetime;
pub mod lock;
pub mod mapped;
pub mod message;
pub mod miss_ratio;
#[cfg(feature = "monitor")]
pub mod monitor;
pub mod node;
pub mod node_set;
pub mod packed;
#[cfg(feature = "python")]
mod py;
pub mod ring;
pub mod runtime;
pub mod shared;
pub mod shortage;
pub mod shown;
pub mod simulation;
pub mod snapshot;
pub mod stats;
pub mod values;
pub mod version;

pub use api::Cache;
pub use config::{Compression, Config, Quorum, SigningKey};
pub use error::Error;
pub use ids::NodeId;

/// The extension module's allocator.
#[cfg(feature = "python")]
#[global_allocator]
static ALLOCATOR: shortage::WithReserve = shortage::WithReserve;
