//! ```text
//!   Statistics + Gauges + times   ->   # TYPE dcc_hits counter
//!                                      dcc_hits_total{node="0"} 1234
//! ```
//! What a cache has done and holds, as [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) text, and as
//! the older text of Prometheus.
//!
//! Promise: names begin with `dcc_`, units are seconds and bytes, counters only grow while a node belongs to the cache.

use std::fmt::{Error, Write};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::cluster::Cluster;
use crate::cluster::explain::age;
use crate::cluster::view::State;
use crate::counters::{Call, Miss};
use crate::runtime::Runtime;
use crate::stats::{Activity, Gauges, KINDS, NodeReport, NodeStats, Statistics, ValueStats};

/// The content type of [`openmetrics`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`prometheus`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of the histograms, in nanoseconds: a read takes some hundred, a call that waits some thousand and more.
const BOUNDS: [u64; 16] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// Everything that is said, as it was at a moment.
#[derive(Debug)]
struct Moment {
    report: Statistics,
    live: Vec<bool>,
    replicas: u8,
    gauges: Option<(Gauges, Duration)>,
    values: ValueStats,
    times: Vec<(Call, Vec<u64>, f64)>,
}

impl Moment {
    fn of<R: Runtime>(cluster: &Cluster<R>, gauges: Option<(Gauges, Duration)>, values: ValueStats) -> Self {
        let bounds: Vec<u64> = BOUNDS.into_iter().chain([u64::MAX]).collect();
        let times = |call| {
            let (below, sum) = cluster.counters().latency_below(call, &bounds);
            (call, below, sum)
        };
        let view = cluster.view();
        Self {
            report: cluster.statistics(),
            live: view.members().map(|member| member.state == State::Live).collect(),
            replicas: view.replicas(),
            gauges,
            values,
            times: Call::ALL.map(times).into(),
        }
    }
}

/// The metrics of a cache as OpenMetrics text. The gauges that look at every key are given: they take long to count.
pub fn openmetrics<R: Runtime>(cluster: &Cluster<R>, gauges: Option<(Gauges, Duration)>, values: ValueStats) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Moment::of(cluster, gauges, values)));
    let mut text = String::new();
    // A string takes everything that is written to it.
    let _ = encode(&mut text, &registry);
    text
}

/// The same in the older text of Prometheus, whose counters have their `_total` also where they are described.
pub fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let described = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ').map(|rest| ("HELP", rest)));
        let typed = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ').map(|rest| ("TYPE", rest)));
        let written = match described.or(typed) {
            Some((what, (name, rest))) => {
                // The type follows its help.
                let kind = if what == "HELP" { lines.peek().copied().unwrap_or("") } else { line };
                let total = if kind.ends_with(" counter") { "_total" } else { "" };
                let rest = if rest == "info" { "gauge" } else { rest };
                let info = if kind.ends_with(" info") { "_info" } else { "" };
                writeln!(text, "# {what} {name}{total}{info} {rest}")
            }
            None => writeln!(text, "{line}"),
        };
        // As above.
        let _ = written;
    }
    text
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let to = &mut encoder;
        version(to)?;
        self.calls(to)?;
        self.nodes(to)?;
        self.cache(to)
    }
}

fn version(to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let mut info =
        to.encode_descriptor("dcc_build", "The version of distributed-consistent-cache", None, MetricType::Info)?;
    info.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

/// What is read of a node.
type Read<T> = fn(&T) -> u64;

impl Moment {
    /// What calls did.
    fn calls(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let counters: [(&str, &str, Option<Unit>, Read<Activity>); 12] = [
            ("dcc_hits", "Reads that found the value of this node", None, |done| done.hits),
            ("dcc_unanswered", "Reads and writes that fewer owners answered than were asked for", None, |done| {
                done.unanswered
            }),
            ("dcc_puts", "Puts that were the newest", None, |done| done.puts),
            ("dcc_puts_refused", "Puts that something newer refused", None, |done| done.puts_refused),
            ("dcc_removes", "Removes that were the newest", None, |done| done.removes),
            ("dcc_removes_refused", "Removes that something newer refused", None, |done| done.removes_refused),
            ("dcc_evictions", "Entries that fell off the end", None, |done| done.evictions),
            ("dcc_evicted", "Bytes of entries that fell off the end", Some(Unit::Bytes), |done| done.evicted_bytes),
            ("dcc_expired", "Entries whose space was given back because they had ended", None, |done| done.expired),
            ("dcc_repairs", "Items that came by gossip and were news", None, |done| done.repairs),
            ("dcc_fixes", "Items that were sent because something older had come, and were news", None, |done| {
                done.fixes
            }),
            ("dcc_lock_waits", "Messages that waited for the node because it was in use", None, |done| done.lock_waits),
        ];
        for (name, help, unit, read) in counters {
            let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for node in &self.report.nodes {
                let (labels, count) = ([("node", u64::from(node.node))], read(&node.activity));
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        self.misses(to)?;
        let (values, bytes) = (&self.values, Some(Unit::Bytes));
        let of_all: [(&str, &str, Option<Unit>, u64); 9] = [
            ("dcc_values_tried", "Values that were long enough to be made smaller", None, values.tried),
            ("dcc_values_packed", "Values that became smaller, and were stored so", None, values.packed),
            ("dcc_values_in", "Bytes of the values that were tried", bytes.clone(), values.bytes_in),
            ("dcc_values_out", "Bytes of the same values as they were stored", bytes, values.bytes_out),
            ("dcc_values_corrupt", "Values that could not be unpacked", None, values.corrupt),
            ("dcc_values_refused", "Values that were not signed as asked for", None, values.refused),
            ("dcc_gossip_rounds", "Rounds of gossip", None, self.report.gossip_rounds),
            ("dcc_gossip_items", "Entries and markers that gossip moved", None, self.report.gossip_items),
            ("dcc_gossip", "Bytes that gossip moved", Some(Unit::Bytes), self.report.gossip_bytes),
        ];
        for (name, help, unit, count) in of_all {
            let mut counter = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        let help = "How long calls took, of one in about 64";
        let mut times = to.encode_descriptor("dcc_call_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (call, below, sum) in &self.times {
            let bounds = BOUNDS.iter().map(|&bound| bound as f64 * 1e-9).chain([f64::INFINITY]);
            let mut before = 0;
            let buckets: Vec<(f64, u64)> = bounds
                .zip(below)
                .map(|(bound, &below)| {
                    let within = below.saturating_sub(before);
                    before = below;
                    (bound, within)
                })
                .collect();
            let labels = [("call", call.name())];
            times.encode_family(&labels)?.encode_histogram::<NoLabelSet>(*sum, before, &buckets, None)?;
        }
        Ok(())
    }

    fn misses(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Reads that found nothing, by reason, of the node that was asked first";
        let mut misses = to.encode_descriptor("dcc_misses", help, None, MetricType::Counter)?;
        for node in &self.report.nodes {
            for (reason, count) in Miss::ALL.iter().zip(&node.activity.misses) {
                let labels = ([("node", u64::from(node.node))], [("reason", reason.name())]);
                misses.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(count, None)?;
            }
        }
        Ok(())
    }

    /// What nodes hold.
    fn nodes(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let gauges: [(&str, &str, Option<Unit>, Read<NodeStats>); 6] = [
            ("dcc_capacity", "Memory of the node, 0 while it has failed", Some(Unit::Bytes), |holds| holds.bytes_max),
            ("dcc_entries", "Live entries, each copy by itself", None, |holds| holds.entries),
            ("dcc_markers", "Removed or evicted keys that are remembered", None, |holds| holds.markers),
            ("dcc_partitions", "Partitions that the node holds", None, |holds| holds.partitions),
            ("dcc_unsynced_partitions", "Partitions of which the node has yet to pull what it missed", None, |holds| {
                holds.unsynced_partitions
            }),
            (
                "dcc_lost_partitions",
                "Partitions in which markers were dropped before every owner had seen them",
                None,
                |holds| holds.lost_partitions,
            ),
        ];
        let live = self.report.nodes.iter().map(|node| (node, u64::from(node.is_live)));
        each_node(to, "dcc_node_live", "1 if the node answers, 0 if it is down", None, live)?;
        for (name, help, unit, read) in gauges {
            let values = self.report.nodes.iter().map(|node| (node, read(&node.holds)));
            each_node(to, name, help, unit.as_ref(), values)?;
        }
        let mut used =
            to.encode_descriptor("dcc_used", "Memory in use, by kind", Some(&Unit::Bytes), MetricType::Gauge)?;
        for node in &self.report.nodes {
            for (kind, bytes) in KINDS.iter().zip(node.holds.bytes_by_kind()) {
                let labels = ([("node", u64::from(node.node))], [("kind", *kind)]);
                used.encode_family(&labels)?.encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    /// How well the cache keeps its promises.
    fn cache(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let live = self.live.iter().filter(|live| **live).count();
        let mut one = |name: &str, help: &str, unit: Option<Unit>, value: f64| {
            to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
        };
        one("dcc_nodes", "Nodes that belong to the cache", None, self.live.len() as f64)?;
        one("dcc_live_nodes", "Nodes that answer", None, live as f64)?;
        one("dcc_replicas", "Copies of each entry that are wanted", None, self.replicas.into())?;
        let Some((gauges, counted_ago)) = self.gauges else { return Ok(()) };
        one("dcc_keys", "Live keys", None, gauges.keys as f64)?;
        one("dcc_copies", "Copies of the newest values on live owners", None, gauges.copies as f64)?;
        one(
            "dcc_unseen_writes",
            "Entries and markers that not every live owner has seen",
            None,
            gauges.unseen_writes as f64,
        )?;
        one("dcc_unstable_markers", "Markers that must be kept", None, gauges.unstable_markers as f64)?;
        let oldest = gauges.oldest_unseen.map_or(Some(Duration::ZERO), age);
        if let Some(age) = oldest {
            let help = "Age of the oldest write that not every live owner has seen, 0 when there is none";
            one("dcc_oldest_unseen_write_age", help, Some(Unit::Seconds), age.as_secs_f64())?;
        }
        let help = "How long ago keys, copies, markers and unseen writes were counted: at most once a second, and at most 5 % of the time";
        one("dcc_counted_ago", help, Some(Unit::Seconds), counted_ago.as_secs_f64())
    }
}

fn each_node<'a>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl Iterator<Item = (&'a NodeReport, u64)>,
) -> Result<(), Error> {
    let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (node, value) in values {
        family.encode_family(&[("node", u64::from(node.node))])?.encode_gauge(&value)?;
    }
    Ok(())
}
