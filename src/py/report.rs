//! What a cache tells of itself, as Python objects that print well.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::as_dict::to_dict;
use crate::cluster::view::Member;
use crate::stats::{self, NodeStats};

/// One node as it is now. A node that is down counts nothing.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct NodeStatus {
    /// Its number.
    id: u8,
    /// "live", "cut off" (unreachable, memory kept) or "failed" (memory
    /// lost).
    state: &'static str,
    /// Live entries, those included that have expired and still take space.
    entries: u64,
    /// Bytes used: keys, values, bookkeeping, markers and clocks.
    bytes_used: u64,
    /// Bytes there are.
    bytes_max: u64,
    /// Removed or evicted keys that are still remembered.
    markers: u64,
    /// Bytes of these.
    marker_bytes: u64,
    /// Partitions held.
    partitions: u64,
    /// Partitions of which it has not yet pulled what it missed.
    unsynced_partitions: u64,
    /// Entries that fell off the end in this life.
    evictions: u64,
    /// Expired entries whose space was given back in this life. They are no
    /// evictions.
    expired: u64,
}

impl NodeStatus {
    pub(super) fn new(member: Member, stats: NodeStats) -> Self {
        let state = member.state.name();
        Self {
            id: member.address.node,
            state,
            entries: stats.entries,
            bytes_used: stats.bytes_used,
            bytes_max: stats.bytes_max,
            markers: stats.markers,
            marker_bytes: stats.marker_bytes,
            partitions: stats.partitions,
            unsynced_partitions: stats.unsynced_partitions,
            evictions: stats.evictions,
            expired: stats.expired,
        }
    }
}

#[pymethods]
impl NodeStatus {
    fn __repr__(&self) -> String {
        let Self { id, state, entries, bytes_used, bytes_max, markers, evictions, expired, .. } = self;
        format!(
            "NodeStatus(id={id}, state='{state}', entries={entries}, bytes_used={bytes_used}, bytes_max={bytes_max}, \
             markers={markers}, evictions={evictions}, expired={expired})"
        )
    }
}

/// What became of values on their way to the nodes and back, since the
/// cache was made.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct ValueStats {
    /// "lz4", "zstd", "zstd-dict" or None. "zstd" also for "zstd-dict" when
    /// the nodes are too small for a dictionary.
    compression: Option<&'static str>,
    /// Values that were long enough to be tried.
    tried: u64,
    /// Those of them that became smaller by an eighth or more, and were
    /// stored so.
    packed: u64,
    /// Bytes of the values that were tried.
    bytes_in: u64,
    /// Bytes of the same values as they were stored, once each.
    bytes_out: u64,
    /// bytes_in / bytes_out; 1.0 when nothing was tried.
    ratio: f64,
    /// How far it is with a dictionary: "off", "collecting 40 %" (of the
    /// samples for the first), "training", "in use", or "in use, collecting
    /// 40 % for the next".
    dictionary: String,
    /// Values that were kept as samples for a dictionary.
    samples: u64,
    /// Dictionaries that were trained here, or came with a snapshot and
    /// were adopted, and are kept.
    dictionaries: u64,
    /// Trainings, those included that gave nothing better.
    trainings: u64,
    /// Values that could not be unpacked: each raised SerializationError.
    corrupt: u64,
    /// Values that were not signed as this cache asks for: each raised
    /// SerializationError.
    refused: u64,
}

impl From<stats::ValueStats> for ValueStats {
    fn from(from: stats::ValueStats) -> Self {
        Self {
            compression: from.compression.name(),
            tried: from.tried,
            packed: from.packed,
            bytes_in: from.bytes_in,
            bytes_out: from.bytes_out,
            ratio: from.ratio(),
            dictionary: from.dictionary.to_string(),
            samples: from.samples,
            dictionaries: from.dictionaries,
            trainings: from.trainings,
            corrupt: from.corrupt,
            refused: from.refused,
        }
    }
}

#[pymethods]
impl ValueStats {
    /// The same as a dict of plain types.
    fn as_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        const NAMES: [&str; 12] = [
            "compression",
            "tried",
            "packed",
            "bytes_in",
            "bytes_out",
            "ratio",
            "dictionary",
            "samples",
            "dictionaries",
            "trainings",
            "corrupt",
            "refused",
        ];
        to_dict(slf.as_any(), &NAMES)
    }

    fn __repr__(&self) -> String {
        let Self { tried, packed, bytes_in, bytes_out, ratio, dictionary, samples, .. } = self;
        let Self { dictionaries, trainings, corrupt, refused, .. } = self;
        let compression = self.compression.map_or_else(|| "None".to_owned(), |name| format!("'{name}'"));
        format!(
            "ValueStats(compression={compression}, tried={tried}, packed={packed}, bytes_in={bytes_in}, \
             bytes_out={bytes_out}, ratio={ratio:.3}, dictionary='{dictionary}', samples={samples}, \
             dictionaries={dictionaries}, trainings={trainings}, corrupt={corrupt}, refused={refused})"
        )
    }
}

/// What rounds of gossip moved.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct SyncReport {
    /// Rounds: in each, every live node compares notes with one other
    /// (`gossip`) or with all (`sync`).
    rounds: u64,
    /// Entries and markers that were sent.
    items: u64,
    /// Bytes that were sent.
    bytes: u64,
    /// True when all live owners have seen the same and nobody waits for a
    /// hand-over.
    converged: bool,
    /// How long it took, in seconds.
    seconds: f64,
}

impl From<stats::SyncReport> for SyncReport {
    fn from(report: stats::SyncReport) -> Self {
        let stats::SyncReport { rounds, items, bytes, converged, seconds } = report;
        Self { rounds, items, bytes, converged, seconds }
    }
}

#[pymethods]
impl SyncReport {
    fn __repr__(&self) -> String {
        let Self { rounds, items, bytes, converged, seconds } = self;
        let converged = if *converged { "True" } else { "False" };
        format!(
            "SyncReport(rounds={rounds}, items={items}, bytes={bytes}, converged={converged}, seconds={seconds:.6})"
        )
    }
}

/// How well the cache keeps its promises at a moment, counted from what the
/// nodes really hold.
#[pyclass(frozen, get_all, module = "distributed_consistent_cache")]
pub(super) struct Gauges {
    /// Keys of which an owner holds the newest value.
    keys: u64,
    /// Copies of these values on live owners.
    copies: u64,
    /// Copies for each key, on average: the replicas, when nothing is
    /// missing.
    effective_copies: f64,
    /// Markers that must be kept, because an owner may not have seen what
    /// they stand for.
    unstable_markers: u64,
    /// Entries and markers that not every live owner has seen.
    unseen_writes: u64,
    /// The lowest timestamp among these, or None.
    oldest_unseen: Option<u64>,
}

impl From<stats::Gauges> for Gauges {
    fn from(gauges: stats::Gauges) -> Self {
        let stats::Gauges { keys, copies, unstable_markers, unseen_writes, oldest_unseen } = gauges;
        let (effective_copies, oldest_unseen) = (gauges.effective_copies(), oldest_unseen.map(|oldest| oldest.get()));
        Self { keys, copies, effective_copies, unstable_markers, unseen_writes, oldest_unseen }
    }
}

#[pymethods]
impl Gauges {
    fn __repr__(&self) -> String {
        let Self { keys, copies, effective_copies, unstable_markers, unseen_writes, oldest_unseen } = self;
        let oldest = oldest_unseen.map_or_else(|| "None".to_owned(), |oldest| oldest.to_string());
        format!(
            "Gauges(keys={keys}, copies={copies}, effective_copies={effective_copies:.3}, \
             unstable_markers={unstable_markers}, unseen_writes={unseen_writes}, oldest_unseen={oldest})"
        )
    }
}
