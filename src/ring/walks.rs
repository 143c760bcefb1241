//! ```text
//! 4 partitions, 1 copy       partition 0      1      2      3        copies held
//! node 0 enters                        0 |    0 |    0 |    0 |      4
//! node 1 takes 2 from node 0           1|0    0|1    1|0    0|1      2 2
//! node 2 takes 1 from a fullest        1|2 0  0|1 2  2|1 0  0|2 1    2 1 1
//! ```
//! The walks of all partitions, and how a node enters them. A node has one virtual node on every partition: its place
//! on that walk. Which places it gets is hashed; how many of them are among the owners, and how many first, is counted:
//! its share and no more, from those that hold the most.
//!
//! Promise: after nodes 0 to n have entered, each holds equally many copies, to within one, whatever n is; and whoever
//! enters after them changes nothing in who would own what without it.

use crate::NodeId;
use crate::hash::point;
use crate::node_set::NodeSet;

pub(super) struct Walks {
    /// One walk after the other, `room` apart.
    nodes: Vec<NodeId>,
    room: usize,
    /// How many nodes are on each walk.
    length: usize,
    /// How many of them, from the first on, own the partition.
    copies: usize,
    /// How many copies each node holds, by node id.
    pub(super) held: Vec<u32>,
    /// In how many partitions each node is first, by node id.
    pub(super) primaries: Vec<u32>,
}

impl Walks {
    /// Walks on which the nodes below `ids` have entered, one after the other.
    pub(super) fn of_all(partitions: usize, replicas: usize, ids: usize) -> Self {
        let nodes = vec![0; partitions * ids];
        let mut walks = Self { nodes, room: ids, length: 0, copies: 0, held: vec![0; ids], primaries: vec![0; ids] };
        for node in 0..ids as NodeId {
            walks.enter(node, partitions, replicas);
        }
        walks
    }

    /// Walks that are given, `length` nodes each, of which the first `copies` are owners.
    pub(super) fn given(nodes: Vec<NodeId>, length: usize, copies: usize, ids: usize) -> Self {
        let mut walks = Self { nodes, room: length, length, copies, held: vec![0; ids], primaries: vec![0; ids] };
        for walk in walks.nodes.chunks_exact(length) {
            walks.primaries[usize::from(walk[0])] += 1;
            for &owner in &walk[..copies] {
                walks.held[usize::from(owner)] += 1;
            }
        }
        walks
    }

    pub(super) fn into_nodes(self) -> Vec<NodeId> {
        self.nodes
    }

    pub(super) fn partitions(&self) -> usize {
        self.nodes.len() / self.room
    }

    pub(super) fn walk(&self, partition: usize) -> &[NodeId] {
        &self.nodes[partition * self.room..][..self.length]
    }

    fn walk_mut(&mut self, partition: usize) -> &mut [NodeId] {
        &mut self.nodes[partition * self.room..][..self.length]
    }

    fn enter(&mut self, node: NodeId, partitions: usize, replicas: usize) {
        self.length += 1;
        self.copies = self.length.min(replicas);
        let (length, copies, id) = (self.length, self.copies, usize::from(node));
        let points = virtual_nodes(node, partitions);
        let order = shuffled(&points);
        for partition in 0..partitions {
            self.walk_mut(partition)[length - 1] = node;
        }
        // Up to `replicas` nodes all own everything, and the first of them has nobody to take the lead from.
        self.held[id] = if length == copies { partitions as u32 } else { 0 };
        self.primaries[id] = if length == 1 { partitions as u32 } else { 0 };

        // First from those above the mean rounded up, then from those above it rounded down.
        let share = (partitions * copies / length) as u32;
        for keep in [(partitions * copies).div_ceil(length) as u32, share] {
            self.take(node, share.saturating_sub(self.held[id]), &order, |_| keep);
        }
        let share = (partitions / length) as u32;
        for keep in [partitions.div_ceil(length) as u32, share] {
            self.lead(node, share.saturating_sub(self.primaries[id]), &order, |_| keep);
        }
        // Where it owns nothing, it enters anywhere among the stand-ins, so that a failed node's work falls on many.
        for (partition, &point) in points.iter().enumerate() {
            let stand_ins = &mut self.walk_mut(partition)[copies..];
            if stand_ins.last() == Some(&node) {
                let place = below(stand_ins.len(), point >> 32);
                stand_ins[place..].rotate_right(1);
            }
        }
    }

    /// The node becomes an owner of up to `wanted` partitions more, the first in the order that will do. Each is given
    /// by the owner that is furthest above what it keeps, which becomes the first stand-in.
    pub(super) fn take(&mut self, node: NodeId, mut wanted: u32, order: &[u16], keeps: impl Fn(NodeId) -> u32) {
        for &partition in order {
            if wanted == 0 {
                return;
            }
            let walk = &mut self.nodes[usize::from(partition) * self.room..][..self.length];
            let (owners, stand_ins) = walk.split_at_mut(self.copies);
            let spare = |owner: NodeId| self.held[usize::from(owner)].saturating_sub(keeps(owner));
            // Of several, the last: the primary is the one that is asked first, and should rather stay.
            let Some((seat, giver)) = owners.iter().copied().enumerate().max_by_key(|&(_, owner)| spare(owner)) else {
                return;
            };
            if spare(giver) == 0 || owners.contains(&node) {
                continue;
            }
            let Some(place) = stand_ins.iter().position(|&other| other == node) else { continue };
            stand_ins[..=place].rotate_right(1);
            stand_ins[0] = giver;
            owners[seat] = node;
            hand_over(&mut self.held, giver, node);
            if seat == 0 {
                hand_over(&mut self.primaries, giver, node);
            }
            wanted -= 1;
        }
    }

    /// The node becomes first in up to `wanted` more of the partitions that it owns, in place of nodes that are first
    /// more often than they keep.
    pub(super) fn lead(&mut self, node: NodeId, mut wanted: u32, order: &[u16], keeps: impl Fn(NodeId) -> u32) {
        for &partition in order {
            if wanted == 0 {
                return;
            }
            let owners = &mut self.nodes[usize::from(partition) * self.room..][..self.copies];
            let first = owners[0];
            if first == node || self.primaries[usize::from(first)] <= keeps(first) {
                continue;
            }
            let Some(seat) = owners.iter().position(|&owner| owner == node) else { continue };
            owners.swap(0, seat);
            hand_over(&mut self.primaries, first, node);
            wanted -= 1;
        }
    }

    /// Makes a node first in one partition less, if there is any way to nodes that have room for it: it leaves a
    /// partition to an heir, who may leave another to a further heir, and so on. The shortest such chain is taken.
    pub(super) fn leave_lead(&mut self, node: NodeId, has_room: impl Fn(&[u32], NodeId) -> bool) -> bool {
        // Breadth first. A step is: the step before it, the partition that is left, and to whom.
        let mut steps = vec![(0, 0, node)];
        let mut reached: NodeSet = [node].into_iter().collect();
        let mut here = 0;
        while here < steps.len() {
            let (_, _, first) = steps[here];
            for partition in (0..self.partitions()).filter(|&partition| self.walk(partition)[0] == first) {
                for &heir in &self.walk(partition)[1..self.copies] {
                    if reached.insert(heir) {
                        steps.push((here, partition, heir));
                        if has_room(&self.primaries, heir) {
                            self.inherit(&steps);
                            return true;
                        }
                    }
                }
            }
            here += 1;
        }
        false
    }

    /// Carries out the chain that ends with the last of the steps.
    fn inherit(&mut self, steps: &[(usize, usize, NodeId)]) {
        let mut step = steps.len() - 1;
        while step > 0 {
            let (before, partition, heir) = steps[step];
            let walk = self.walk_mut(partition);
            let seat = walk.iter().position(|&owner| owner == heir).expect("an heir is an owner");
            walk.swap(0, seat);
            hand_over(&mut self.primaries, steps[before].2, heir);
            step = before;
        }
    }

    /// Orders the owners behind the first by hash, so that when a node fails its lead falls on many.
    pub(super) fn mix_seconds(&mut self) {
        for partition in 0..self.partitions() {
            let copies = self.copies;
            let seat = |node: &NodeId| point(&[partition as u64, u64::from(*node)]);
            self.walk_mut(partition)[1..copies].sort_by_cached_key(seat);
        }
    }
}

fn hand_over(counts: &mut [u32], from: NodeId, to: NodeId) {
    counts[usize::from(from)] -= 1;
    counts[usize::from(to)] += 1;
}

/// The order in which a node looks at the partitions when it takes from others.
pub(super) fn order_of(node: NodeId, partitions: usize) -> Vec<u16> {
    shuffled(&virtual_nodes(node, partitions))
}

/// A node's point on every partition.
fn virtual_nodes(node: NodeId, partitions: usize) -> Vec<u64> {
    (0..partitions as u64).map(|partition| point(&[u64::from(node), partition])).collect()
}

/// All partitions in an order drawn from the points (Fisher and Yates).
fn shuffled(points: &[u64]) -> Vec<u16> {
    let mut order: Vec<u16> = (0..points.len() as u16).collect();
    for last in (1..points.len()).rev() {
        order.swap(last, below(last + 1, points[last]));
    }
    order
}

/// A number below `bound`, drawn from the low half of a point (multiply and shift).
fn below(bound: usize, point: u64) -> usize {
    ((u64::from(point as u32) * bound as u64) >> 32) as usize
}
