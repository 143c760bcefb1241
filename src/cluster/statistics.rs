//! ```text
//!   nodes: counted under their locks   +   lives that are over   +   counted beside the locks   ->   one report
//! ```
//! What the cache has done and holds, gathered when somebody asks.
//!
//! Promise: when no call is under way it adds up: each read that counts as a use is one hit or one miss for one reason, or
//! was answered by too few. While calls are under way it may be ahead or behind by those.

use super::Cluster;
use super::view::{Member, State};
use crate::counters::{Call, Counted};
use crate::ids::{NODES_MAX, NodeId};
use crate::runtime::Runtime;
use crate::stats::{Activity, NodeReport, NodeStats, Statistics};

impl<R: Runtime> Cluster<R> {
    /// What each node, and all together, have done and hold. It looks at each node once.
    pub fn statistics(&self) -> Statistics {
        let mut report = Statistics::default();
        let nodes = self.nodes();
        for node in 0..NODES_MAX {
            let now = nodes.iter().find(|(member, _)| member.address.node == node);
            let activity = self.activity(node, now);
            report.total.add(&activity);
            if let Some((member, holds)) = now {
                let mut holds = *holds;
                // The memory of a node that failed is gone: who asks how full the others are is not to count it.
                if member.state == State::Failed {
                    holds.bytes_max = 0;
                }
                report.holds.hold(&holds);
                report.nodes.push(NodeReport { node, is_live: member.state == State::Live, holds, activity });
            }
        }
        [report.gossip_rounds, report.gossip_items, report.gossip_bytes] = self.counters().gossip();
        report.latency = Call::ALL.map(|call| self.counters().latency(call));
        report
    }

    /// How many entries fell off the end of each node that belongs to the cache, in all its lives, and their bytes.
    pub fn evicted(&self) -> Vec<(NodeId, u64, u64)> {
        let of_node = |(member, stats): (Member, NodeStats)| {
            let mut done = self.counters().past(member.address.node);
            done.count(&stats);
            (member.address.node, done.evictions, done.evicted_bytes)
        };
        self.nodes().into_iter().map(of_node).collect()
    }

    fn activity(&self, node: NodeId, now: Option<&(Member, NodeStats)>) -> Activity {
        let Counted { hits, misses, puts, puts_refused, removes, removes_refused, unanswered } =
            self.counters().counted(node);
        let mut done = self.counters().past(node);
        if let Some((_, stats)) = now {
            done.count(stats);
        }
        Activity {
            hits: done.hits.wrapping_add(hits),
            misses,
            unanswered,
            puts,
            puts_refused,
            removes,
            removes_refused,
            evictions: done.evictions,
            evicted_bytes: done.evicted_bytes,
            expired: done.expired,
            repairs: done.repairs,
            fixes: done.fixes,
            lock_waits: self.runtime().waits(node),
        }
    }
}
