//! What is counted: on each node under its lock, for a whole exchange of gossip by whoever drives it.

use std::fmt;

use crate::config::Compression;
use crate::version::Timestamp;

/// What one node holds now and has done in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Live entries, those included that have ended and still take space.
    pub entries: u64,
    /// Markers: removed or evicted keys that are still remembered.
    pub markers: u64,
    /// Bytes of these markers.
    pub marker_bytes: u64,
    /// Bytes used: keys, values, slots, tables, markers and clocks.
    pub bytes_used: u64,
    /// Bytes there are.
    pub bytes_max: u64,
    /// Partitions held.
    pub partitions: u64,
    /// Partitions of which the node has not yet pulled what it missed.
    pub unsynced_partitions: u64,
    /// Partitions in which markers had to be dropped before every owner had seen them.
    pub lost_partitions: u64,
    /// Reads that found a live entry here.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Writes accepted as coordinator.
    pub writes: u64,
    /// Entries that fell off the end.
    pub evictions: u64,
    /// Those of them that made way for clocks, not for other entries: the node came to hold many partitions.
    pub evictions_for_clocks: u64,
    /// Entries whose space was given back because they had ended. They are not evictions.
    pub expired: u64,
    /// Values that came by repair and found no free room.
    pub refused: u64,
    /// Markers dropped before they were stable.
    pub markers_lost: u64,
}

/// What became of values on their way to the nodes and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueStats {
    /// How values are made smaller. Zstandard alone, when the nodes are too small for a dictionary.
    pub compression: Compression,
    /// Values that were tried.
    pub tried: u64,
    /// Those of them that became smaller, and went to the nodes so.
    pub packed: u64,
    /// Bytes of the values that were tried.
    pub bytes_in: u64,
    /// Bytes of the same values as they went to the nodes.
    pub bytes_out: u64,
    /// How far it is with a dictionary.
    pub dictionary: DictionaryState,
    /// Values that were looked at for a dictionary.
    pub samples: u64,
    /// Dictionaries that were trained here, or adopted, and are kept.
    pub dictionaries: u64,
    /// Dictionaries that were trained, those included that were no better.
    pub trainings: u64,
    /// Values that could not be unpacked: corrupt, or their dictionary is gone.
    pub corrupt: u64,
    /// Values that were not signed as this cache asks for.
    pub refused: u64,
}

impl ValueStats {
    /// How many times smaller the values that were tried became; 1 when there are none.
    pub fn ratio(&self) -> f64 {
        if self.bytes_out == 0 { 1.0 } else { self.bytes_in as f64 / self.bytes_out as f64 }
    }
}

/// How far it is with a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictionaryState {
    /// None is asked for.
    Off,
    /// There is none yet: so many percent of the samples for one are there.
    Collecting(u8),
    /// There is none yet: one is being trained.
    Training,
    /// One is in use.
    InUse,
    /// One is in use and does less than it did: so many percent of the samples for the next are there.
    Renewing(u8),
}

impl fmt::Display for DictionaryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "off"),
            Self::Collecting(percent) => write!(f, "collecting {percent} %"),
            Self::Training => write!(f, "training"),
            Self::InUse => write!(f, "in use"),
            Self::Renewing(percent) => write!(f, "in use, collecting {percent} % for the next"),
        }
    }
}

/// What rounds of gossip moved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncReport {
    /// Rounds: in each, every live node compares notes with one other, or with all of them.
    pub rounds: u64,
    /// Entries and markers that were sent.
    pub items: u64,
    /// Bytes that were sent, fingerprints and clocks included.
    pub bytes: u64,
    /// All live owners have seen the same, and nobody waits for a hand-over.
    pub converged: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl SyncReport {
    /// Adds what another exchange moved.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

/// What a snapshot was written of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SaveReport {
    /// Keys with their values.
    pub entries: u64,
    /// Keys that were removed, and are remembered so that older puts stay refused.
    pub removes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What a snapshot was found to hold, and what became of it in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RestoreReport {
    /// Keys with their values in the snapshot.
    pub entries: u64,
    /// Removed keys in the snapshot.
    pub removes: u64,
    /// Of both: written, and now the newest known, or in place already. Those that were used least recently may have been
    /// evicted since, by the others.
    pub applied: u64,
    /// Of both: the newest known, and not live any more, as their lifetime has ended.
    pub expired: u64,
    /// Of both: refused, because something newer is known.
    pub superseded: u64,
    /// Of both: refused, because they fit in no node.
    pub too_large: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// How well a cache keeps its promises at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Keys of which an owner holds the newest value.
    pub keys: u64,
    /// Copies of these values on live owners.
    pub copies: u64,
    /// Markers that live nodes must keep, because an owner may not have seen what they stand for.
    pub unstable_markers: u64,
    /// Entries and markers that not every live owner has seen.
    pub unseen_writes: u64,
    /// The lowest timestamp among these.
    pub oldest_unseen: Option<Timestamp>,
}

impl Gauges {
    /// Copies for each key, on average: the replicas, when nothing is missing. 0 when there is no key.
    pub fn effective_copies(&self) -> f64 {
        if self.keys == 0 { 0.0 } else { self.copies as f64 / self.keys as f64 }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            copies: self.copies + other.copies,
            unstable_markers: self.unstable_markers + other.unstable_markers,
            unseen_writes: self.unseen_writes + other.unseen_writes,
            oldest_unseen: self.oldest_unseen.into_iter().chain(other.oldest_unseen).min(),
        }
    }
}
