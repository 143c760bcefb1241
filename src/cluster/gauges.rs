//! ```text
//!   partition by partition:  what each owner holds  x  what each owner has seen  ->  copies, markers, unseen writes
//! ```
//! How well the cache keeps its promises just now, counted from what the nodes really hold and have really seen, not from
//! what they believe of each other.

use std::collections::HashMap;

use super::Cluster;
use super::view::View;
use crate::clock::{Clock, Dot};
use crate::entry::PartitionId;
use crate::error::Error;
use crate::message::Known;
use crate::runtime::{Runtime, workers};
use crate::stats::Gauges;
use crate::version::{Timestamp, Version};
use rayon::prelude::*;

/// What an owner holds of a partition, and its clock.
struct Owned {
    clock: Clock,
    held: Vec<(u64, Known, Dot)>,
}

impl<R: Runtime> Cluster<R> {
    /// Copies that are really there, markers that cannot be dropped yet, writes that not every owner has seen. It looks at
    /// every key of every node, one partition at a time, on all cores: not for the hot path.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn gauges(&self) -> Result<Gauges, Error> {
        self.check_open()?;
        let view = self.view();
        let now_ms = self.runtime.now_ms();
        let of_partition = |id| self.gauges_of(&view, id, now_ms);
        let sum = |a: Gauges, b: Gauges| a.and(b);
        let mut gauges =
            workers::divide(|| (0..view.partitions()).into_par_iter().map(of_partition).reduce(Gauges::default, sum));
        for node in view.live().iter() {
            // A node that went down this moment counts nothing.
            let _ =
                self.runtime.look(view.address(node), &mut |node| gauges.unstable_markers += node.unstable_markers());
        }
        Ok(gauges)
    }

    fn gauges_of(&self, view: &View, id: PartitionId, now_ms: u64) -> Gauges {
        let mut owners = Vec::new();
        for &owner in view.owners(id) {
            // An owner that went down this moment holds nothing.
            let _ = self.runtime.look(view.address(owner), &mut |node| {
                if let Some((clock, _)) = node.clock(id) {
                    let mut owned = Owned { clock: clock.clone(), held: Vec::new() };
                    node.each(id, |hash, known, dot| owned.held.push((hash.0, known.at(now_ms), dot)));
                    owners.push(owned);
                }
            });
        }
        let mut newest: HashMap<u64, (Known, u64)> = HashMap::new();
        let mut unseen: HashMap<(u64, Version), Timestamp> = HashMap::new();
        for (hash, known, dot) in owners.iter().flat_map(|owned| &owned.held) {
            let entry = newest.entry(*hash).or_insert((Known::Nothing, 0));
            if known.rank() > entry.0.rank() {
                *entry = (*known, 0);
            }
            entry.1 += u64::from(known.is_live() && *known == entry.0);
            if let Some(version) = known.rank().0
                && !owners.iter().all(|owned| owned.clock.has(*dot))
            {
                unseen.insert((*hash, version), version.timestamp);
            }
        }
        let live = newest.values().filter(|(known, _)| known.is_live());
        Gauges {
            keys: live.clone().count() as u64,
            copies: live.map(|(_, copies)| copies).sum(),
            unstable_markers: 0,
            unseen_writes: unseen.len() as u64,
            oldest_unseen: unseen.into_values().min(),
        }
    }
}
