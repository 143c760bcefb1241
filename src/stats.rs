//! What is counted: on each node under its lock, for a whole exchange of gossip by whoever drives it.

use std::fmt;

use crate::config::Compression;
use crate::ids::NodeId;
use crate::version::Timestamp;

/// What bytes are used for.
pub const KINDS: [&str; 5] = ["values", "keys", "overhead", "markers", "clocks"];

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
    /// Bytes of the keys of live entries.
    pub key_bytes: u64,
    /// Bytes of their values, as they are stored.
    pub value_bytes: u64,
    /// Bytes of clocks.
    pub clock_bytes: u64,
    /// Reads that found a live entry here.
    pub hits: u64,
    /// Writes accepted as coordinator.
    pub writes: u64,
    /// Entries that fell off the end.
    pub evictions: u64,
    /// Bytes of these, their share of tables aside.
    pub evicted_bytes: u64,
    /// Items that came by gossip and were news.
    pub repairs: u64,
    /// Items that were sent here because something older came from here, and were news.
    pub fixes: u64,
    /// Those of them that made way for clocks, not for other entries: the node came to hold many partitions.
    pub evictions_for_clocks: u64,
    /// Entries whose space was given back because they had ended. They are not evictions.
    pub expired: u64,
    /// Values that came by repair and found no free room.
    pub refused: u64,
    /// Markers dropped before they were stable.
    pub markers_lost: u64,
}

impl NodeStats {
    /// Adds what was counted in another life of the node, not what it held.
    pub const fn count(&mut self, other: &Self) {
        self.hits += other.hits;
        self.writes += other.writes;
        self.evictions += other.evictions;
        self.evicted_bytes += other.evicted_bytes;
        self.repairs += other.repairs;
        self.fixes += other.fixes;
        self.evictions_for_clocks += other.evictions_for_clocks;
        self.expired += other.expired;
        self.refused += other.refused;
        self.markers_lost += other.markers_lost;
    }

    /// Adds what another node holds.
    pub const fn hold(&mut self, other: &Self) {
        self.entries += other.entries;
        self.markers += other.markers;
        self.marker_bytes += other.marker_bytes;
        self.bytes_used += other.bytes_used;
        self.bytes_max += other.bytes_max;
        self.key_bytes += other.key_bytes;
        self.value_bytes += other.value_bytes;
        self.clock_bytes += other.clock_bytes;
        self.partitions += other.partitions;
        self.unsynced_partitions += other.unsynced_partitions;
        self.lost_partitions += other.lost_partitions;
    }

    /// Bytes used for each of [`KINDS`]: they add up to those used.
    pub const fn bytes_by_kind(&self) -> [u64; KINDS.len()] {
        [self.value_bytes, self.key_bytes, self.overhead_bytes(), self.marker_bytes, self.clock_bytes]
    }

    /// Bytes that are used for something else than keys, values, markers and clocks: slots, tables and rounding.
    pub const fn overhead_bytes(&self) -> u64 {
        self.bytes_used.saturating_sub(self.key_bytes + self.value_bytes + self.marker_bytes + self.clock_bytes)
    }
}

/// What was done on a node, or on all, since the cache was made: in all lives of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Reads that found a value; of a node, its value.
    pub hits: u64,
    /// Reads that found none, for each [`Miss`](crate::counters::Miss); of a node, reads that asked it first.
    pub misses: [u64; 7],
    /// Reads and writes that fewer owners answered than were asked for, or none.
    pub unanswered: u64,
    /// Puts that were the newest.
    pub puts: u64,
    /// Puts that something newer refused.
    pub puts_refused: u64,
    /// Removes that were the newest.
    pub removes: u64,
    /// Removes that something newer refused.
    pub removes_refused: u64,
    /// Entries that fell off the end.
    pub evictions: u64,
    /// Bytes of these.
    pub evicted_bytes: u64,
    /// Entries whose space was given back because they had ended.
    pub expired: u64,
    /// Items that came by gossip and were news.
    pub repairs: u64,
    /// Items that were sent because something older had come, and were news.
    pub fixes: u64,
    /// Messages that waited for a node that was in use.
    pub lock_waits: u64,
}

impl Activity {
    /// Reads that found none.
    pub fn misses_in_all(&self) -> u64 {
        self.misses.iter().sum()
    }

    /// The part of reads that found a value; 0 when there were none.
    pub fn hit_rate(&self) -> f64 {
        let reads = self.hits + self.misses_in_all();
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }

    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.hits = self.hits.wrapping_add(other.hits);
        for (sum, misses) in self.misses.iter_mut().zip(other.misses) {
            *sum += misses;
        }
        self.unanswered += other.unanswered;
        self.puts += other.puts;
        self.puts_refused += other.puts_refused;
        self.removes += other.removes;
        self.removes_refused += other.removes_refused;
        self.evictions += other.evictions;
        self.evicted_bytes += other.evicted_bytes;
        self.expired += other.expired;
        self.repairs += other.repairs;
        self.fixes += other.fixes;
        self.lock_waits += other.lock_waits;
    }
}

/// One node in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Which.
    pub node: NodeId,
    /// Whether it answers.
    pub is_live: bool,
    /// What it holds.
    pub holds: NodeStats,
    /// What was done on it.
    pub activity: Activity,
}

/// What a cache has done and holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// The nodes that belong to the cache.
    pub nodes: Vec<NodeReport>,
    /// What they hold together.
    pub holds: NodeStats,
    /// What was done in all, also on nodes that left.
    pub total: Activity,
    /// Rounds of gossip.
    pub gossip_rounds: u64,
    /// Items that they moved.
    pub gossip_items: u64,
    /// Bytes that they moved.
    pub gossip_bytes: u64,
    /// How long gets, puts and removes took.
    pub latency: [Latency; 3],
}

/// How long calls of one kind took, in seconds, of those that were timed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many were timed.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half of them took at most so long.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
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
