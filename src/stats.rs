//! What is counted: on each node under its lock, for a whole exchange of gossip by whoever drives it.

/// What one node holds now and has done in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Live entries.
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
    /// Markers dropped before they were stable.
    pub markers_lost: u64,
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
