//! ```text
//!   /api/stats.json      what `Cache.stats().as_dict()` says, and more
//!   /api/explain.json    what `Cache.explain(key).as_dict()` says
//!   /api/ring.json       who is there, and how much of the hash space is whose
//! ```
//! What is known of a cache, as JSON: the names are those of the Python classes.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::process::Process;
use crate::cluster::Cluster;
use crate::cluster::explain::{Explanation, OwnerReport};
use crate::counters::{Call, Miss};
use crate::entry::Key;
use crate::error::Error;
use crate::ids::NodeId;
use crate::runtime::Runtime;
use crate::stats::{Activity, Gauges, KINDS, Latency, NodeReport, NodeStats, ValueStats};

/// Numbers by their names.
struct Named<const N: usize>([&'static str; N], [u64; N]);

impl<const N: usize> Serialize for Named<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(&self.1))
    }
}

/// What was done and is held, on a node or on all.
#[derive(Serialize)]
struct Common {
    hits: u64,
    misses: u64,
    misses_by_reason: Named<{ Miss::ALL.len() }>,
    unanswered: u64,
    puts: u64,
    puts_refused: u64,
    removes: u64,
    removes_refused: u64,
    evictions: u64,
    evicted_bytes: u64,
    expired: u64,
    repairs: u64,
    fixes: u64,
    lock_waits: u64,
    entries: u64,
    markers: u64,
    bytes_used: u64,
    bytes_max: u64,
    bytes_by_kind: Named<{ KINDS.len() }>,
    unsynced_partitions: u64,
    hit_rate: f64,
}

impl Common {
    fn new(activity: &Activity, holds: &NodeStats) -> Self {
        Self {
            hits: activity.hits,
            misses: activity.misses_in_all(),
            misses_by_reason: Named(Miss::ALL.map(Miss::name), activity.misses),
            unanswered: activity.unanswered,
            puts: activity.puts,
            puts_refused: activity.puts_refused,
            removes: activity.removes,
            removes_refused: activity.removes_refused,
            evictions: activity.evictions,
            evicted_bytes: activity.evicted_bytes,
            expired: activity.expired,
            repairs: activity.repairs,
            fixes: activity.fixes,
            lock_waits: activity.lock_waits,
            entries: holds.entries,
            markers: holds.markers,
            bytes_used: holds.bytes_used,
            bytes_max: holds.bytes_max,
            bytes_by_kind: Named(KINDS, holds.bytes_by_kind()),
            unsynced_partitions: holds.unsynced_partitions,
            hit_rate: activity.hit_rate(),
        }
    }
}

#[derive(Serialize)]
struct Node {
    id: NodeId,
    live: bool,
    state: &'static str,
    #[serde(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl From<Latency> for Times {
    fn from(Latency { count, mean, p50, p90, p99, p999, max }: Latency) -> Self {
        Self { count, mean, p50, p90, p99, p999, max }
    }
}

/// One value for each kind of call.
#[derive(Serialize)]
struct ByCall<T> {
    get: T,
    put: T,
    remove: T,
}

impl<T> ByCall<T> {
    fn new(of: impl Fn(Call) -> T) -> Self {
        Self { get: of(Call::Get), put: of(Call::Put), remove: of(Call::Remove) }
    }
}

#[derive(Serialize)]
struct Stats {
    nodes: Vec<Node>,
    #[serde(flatten)]
    common: Common,
    gossip_rounds: u64,
    gossip_items: u64,
    gossip_bytes: u64,
    keys: Option<u64>,
    effective_copies: Option<f64>,
    unseen_writes: Option<u64>,
    oldest_unseen: Option<u64>,
    /// How long ago these four were counted, in seconds.
    counted_ago: Option<f64>,
    latency: ByCall<Times>,
    values: OfValues,
    /// How many of the timed calls took at most so many seconds, for each bound; the last is all of them.
    latency_bounds: Vec<f64>,
    latency_below: ByCall<Vec<u64>>,
    /// Changes with the nodes.
    epoch: u64,
    replicas: u8,
    /// Whose cache it is: each process has its own.
    process: Process,
}

/// What became of values.
#[derive(Serialize)]
struct OfValues {
    compression: Option<&'static str>,
    tried: u64,
    packed: u64,
    bytes_in: u64,
    bytes_out: u64,
    ratio: f64,
    dictionary: String,
    samples: u64,
    dictionaries: u64,
    trainings: u64,
    corrupt: u64,
    refused: u64,
}

impl From<ValueStats> for OfValues {
    fn from(from: ValueStats) -> Self {
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

/// Bounds for those who draw latencies over time, in nanoseconds: a quarter more each, from 50 ns to a minute.
fn bounds() -> Vec<u64> {
    let mut bounds: Vec<u64> =
        std::iter::successors(Some(50.0_f64), |bound| Some(bound * 1.25).filter(|bound| *bound < 6e10))
            .map(|bound| bound as u64)
            .collect();
    bounds.push(u64::MAX);
    bounds
}

/// What the cache has done and holds.
pub fn stats<R: Runtime>(
    cluster: &Cluster<R>,
    gauges: Option<(Gauges, Duration)>,
    values: ValueStats,
) -> impl Serialize + use<R> {
    let (report, view, bounds) = (cluster.statistics(), cluster.view(), bounds());
    let state = |id| view.member(id).map_or("failed", |member| member.state.name());
    let node = |NodeReport { node, is_live, holds, activity }: &NodeReport| Node {
        id: *node,
        live: *is_live,
        state: state(*node),
        common: Common::new(activity, holds),
    };
    let (counted, ago) = (gauges.map(|(gauges, _)| gauges), gauges.map(|(_, ago)| ago));
    Stats {
        nodes: report.nodes.iter().map(node).collect(),
        common: Common::new(&report.total, &report.holds),
        gossip_rounds: report.gossip_rounds,
        gossip_items: report.gossip_items,
        gossip_bytes: report.gossip_bytes,
        keys: counted.map(|gauges| gauges.keys),
        effective_copies: counted.map(|gauges| gauges.effective_copies()),
        unseen_writes: counted.map(|gauges| gauges.unseen_writes),
        oldest_unseen: counted.and_then(|gauges| gauges.oldest_unseen).map(|oldest| oldest.get()),
        counted_ago: ago.map(|ago| ago.as_secs_f64()),
        values: values.into(),
        latency: ByCall::new(|call| report.latency[call as usize].into()),
        latency_bounds: bounds.iter().map(|&bound| bound as f64 * 1e-9).collect(),
        latency_below: ByCall::new(|call| cluster.counters().latency_below(call, &bounds).0),
        epoch: view.epoch(),
        replicas: view.replicas(),
        process: Process::this(),
    }
}

#[derive(Serialize)]
struct Owner {
    node: NodeId,
    state: &'static str,
    synced: Option<bool>,
    knows: &'static str,
    timestamp: Option<u64>,
    value_bytes: Option<usize>,
    bytes: Option<usize>,
    age: Option<f64>,
    ttl: Option<f64>,
    idle: Option<f64>,
    used_since: Option<u32>,
}

impl From<OwnerReport> for Owner {
    fn from(report: OwnerReport) -> Self {
        let (knows, timestamp) = (report.knows(), report.timestamp());
        let (value_bytes, bytes) = (report.value_bytes(), report.bytes());
        let OwnerReport { node, state, says, age, left, idle, .. } = report;
        Self {
            node,
            state: state.name(),
            synced: says.map(|says| says.synced),
            knows,
            timestamp,
            value_bytes,
            bytes,
            age: age.map(|age| age.as_secs_f64()),
            ttl: left.map(|left| left.as_secs_f64()),
            idle: idle.map(|idle| idle.as_secs_f64()),
            used_since: says.and_then(|says| says.used_since),
        }
    }
}

#[derive(Serialize)]
struct Explained {
    key: String,
    partition: u16,
    owners: Vec<Owner>,
    hit: bool,
    timestamp: Option<u64>,
    reason: Option<&'static str>,
    sentence: String,
}

/// Why a key is found, or not.
///
/// # Errors
/// [`Error::KeyTooLarge`] and [`Error::Closed`].
pub fn explain<R: Runtime>(cluster: &Cluster<R>, key: &str) -> Result<impl Serialize + use<R>, Error> {
    let explained = cluster.explain(Key::new(key.as_bytes())?)?;
    let (reason, sentence) = (explained.reason(), explained.sentence());
    let Explanation { partition, owners, answer, .. } = explained;
    let timestamp = answer.ok().flatten().map(|timestamp| timestamp.get());
    let owners = owners.into_iter().map(Owner::from).collect();
    Ok(Explained { key: key.to_owned(), partition, owners, hit: timestamp.is_some(), timestamp, reason, sentence })
}

#[derive(Serialize)]
struct OnRing {
    id: NodeId,
    state: &'static str,
    /// It is on its way out.
    leaving: bool,
    bytes_max: u64,
    /// Partitions that belong here when all nodes are live.
    homes: u32,
    /// Partitions that it owns now.
    owned: u32,
    /// Those of them in which it is asked first.
    first: u32,
}

#[derive(Serialize)]
struct RingReport {
    epoch: u64,
    partitions: u16,
    replicas: u8,
    nodes: Vec<OnRing>,
}

/// Who is there, and how much of the hash space is whose.
pub fn ring<R: Runtime>(cluster: &Cluster<R>) -> impl Serialize + use<R> {
    let view = cluster.view();
    let on_ring = view.members().map(|member| OnRing {
        id: member.address.node,
        state: member.state.name(),
        leaving: member.leaving,
        bytes_max: member.bytes_max,
        homes: 0,
        owned: 0,
        first: 0,
    });
    let mut nodes: Vec<OnRing> = on_ring.collect();
    let mut count = |id: NodeId, counter: fn(&mut OnRing) -> &mut u32| {
        if let Some(node) = nodes.iter_mut().find(|node| node.id == id) {
            *counter(node) += 1;
        }
    };
    for partition in 0..view.partitions() {
        view.homes(partition).for_each(|id| count(id, |node| &mut node.homes));
        view.owners(partition).iter().for_each(|&id| count(id, |node| &mut node.owned));
        view.owners(partition).iter().take(1).for_each(|&id| count(id, |node| &mut node.first));
    }
    RingReport { epoch: view.epoch(), partitions: view.partitions(), replicas: view.replicas(), nodes }
}
