//! ```text
//! walks of all ids 0..=5      node 3 is no member        a node at its bound is passed over
//! 4  0 | 3  5  1  2           4  0 | 5  1  2             4  0 | 5  1  2
//! 3  1 | 5  0  2  4           1  5 | 0  2  4             1 (5) 0 | 5  2  4       5 holds the most it may
//! ```
//! Consistent hashing with virtual nodes and bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2017): a partition goes
//! to the first nodes on its walk that have room. The walks (`walks.rs`) are even already for the nodes 0 to n, so the
//! bound is there for what they cannot foresee: holes in the numbering, and unequal weights. A bound that hardly ever
//! binds hardly ever moves anything.
//!
//! Promise: a node holds at most 9/8 of its share, or its share rounded up if that is more, and at least 9/10 of it,
//! rounded down; of the copies and of the primaries, and as far as the weights leave a way. One of equal nodes that
//! joins or leaves moves its own copies and next to nothing else (tests_rs/placement.rs measures it for all N).

use super::walks::{Walks, order_of};
use crate::NodeId;
use crate::node_set::NodeSet;

/// The walks of all partitions, one after the other. The first `replicas` nodes on each own the partition.
pub(super) fn place(partitions: usize, replicas: usize, members: &[(NodeId, u64)]) -> Vec<NodeId> {
    let copies = replicas.min(members.len());
    let shares = Shares::new(partitions, copies, members);
    // Absent nodes enter too: nobody's place depends on who has left.
    let everybody = Walks::of_all(partitions, replicas, shares.ids());
    let mut walks = bound(&everybody, copies, &shares);
    level_copies(&mut walks, &shares);
    level_primaries(&mut walks, &Shares::new(partitions, 1, members));
    walks.mix_seconds();
    walks.into_nodes()
}

/// How many copies a node should hold.
#[derive(Clone, Default)]
struct Share {
    /// The share, rounded down.
    whole: u32,
    /// 9/10 of it, rounded down.
    least: u32,
    /// 9/8 of it, rounded down, or the share rounded up. For 16 copies that is 18: with two of slack, the copies of a
    /// node that has left find room where they come first, and need not push others on.
    most: u32,
}

struct Shares {
    members: NodeSet,
    /// By node id, up to the highest member.
    by_node: Vec<Share>,
}

impl Shares {
    /// In proportion to the weights. A node whose part would be more than one copy of each partition gets exactly that,
    /// and the rest is for the others.
    fn new(partitions: usize, copies: usize, weights: &[(NodeId, u64)]) -> Self {
        let members: NodeSet = weights.iter().map(|&(node, _)| node).collect();
        let mut by_node = vec![Share::default(); members.iter().last().map_or(0, usize::from) + 1];
        let mut heaviest_first = weights.to_vec();
        heaviest_first.sort_unstable_by_key(|&(node, weight)| (core::cmp::Reverse(weight), node));

        let each = partitions as u128;
        let mut copies_left = each * copies as u128;
        let mut weight_left: u128 = weights.iter().map(|&(_, weight)| u128::from(weight)).sum();
        for (node, weight) in heaviest_first {
            let weight = u128::from(weight);
            let part = copies_left * weight; // over weight_left
            by_node[usize::from(node)] = if part >= each * weight_left {
                copies_left -= each;
                weight_left -= weight;
                Share { whole: each as u32, least: each as u32, most: each as u32 }
            } else {
                let most = (part * 9 / (weight_left * 8)).max(part.div_ceil(weight_left)).min(each);
                let least = part * 9 / (weight_left * 10);
                Share { whole: (part / weight_left) as u32, least: least as u32, most: most as u32 }
            };
        }
        Self { members, by_node }
    }

    fn of(&self, node: NodeId) -> &Share {
        &self.by_node[usize::from(node)]
    }

    /// The ids up to the highest member's, there or not.
    fn ids(&self) -> usize {
        self.by_node.len()
    }
}

/// The walks of the members alone. A node that holds the most it may is passed over, and comes among the stand-ins.
fn bound(everybody: &Walks, copies: usize, shares: &Shares) -> Walks {
    let partitions = everybody.partitions();
    let mut held = vec![0; shares.ids()];
    let mut owners = vec![Vec::new(); partitions];
    // Place by place, not partition by partition: whoever stands far behind on a walk, as behind a hole, is the one
    // who finds no room. So those who stood in front without the hole stay where they are.
    for place in 0..shares.ids() {
        for (partition, owners) in owners.iter_mut().enumerate() {
            let node = everybody.walk(partition)[place];
            let held = &mut held[usize::from(node)];
            if owners.len() < copies && shares.members.contains(node) && *held < shares.of(node).most {
                owners.push(node);
                *held += 1;
            }
        }
    }
    let mut nodes = Vec::with_capacity(partitions * shares.members.len());
    for (partition, mut owners) in owners.into_iter().enumerate() {
        let mut stand_ins = shares.members.difference(owners.iter().copied().collect());
        while owners.len() < copies {
            // Whoever has room owns it already. The one that is least above its share takes it nevertheless.
            let above = |node: &NodeId| i64::from(held[usize::from(*node)]) - i64::from(shares.of(*node).whole);
            let node = stand_ins.iter().min_by_key(above).expect("there are at least as many members as copies");
            stand_ins.remove(node);
            held[usize::from(node)] += 1;
            owners.push(node);
        }
        nodes.extend(owners);
        nodes.extend(everybody.walk(partition).iter().filter(|&&node| stand_ins.contains(node)));
    }
    Walks::given(nodes, shares.members.len(), copies, shares.ids())
}

/// Nodes below their share relieve those above their bound; then nodes below the least take from those above it.
/// Of equal nodes without holes, none is either.
fn level_copies(walks: &mut Walks, shares: &Shares) {
    let mut level = |wants: fn(&Share) -> u32, keeps: fn(&Share) -> u32| {
        for node in shares.members {
            let wanted = wants(shares.of(node)).saturating_sub(walks.held[usize::from(node)]);
            let can_give = |other| walks.held[usize::from(other)] > keeps(shares.of(other));
            if wanted > 0 && shares.members.iter().any(can_give) {
                walks.take(node, wanted, &order_of(node, walks.partitions()), |other| keeps(shares.of(other)));
            }
        }
    };
    level(|share| share.whole, |share| share.most);
    level(|share| share.least, |share| share.least);
}

/// The same for who comes first, by changing the order of the owners and nothing else.
fn level_primaries(walks: &mut Walks, shares: &Shares) {
    for node in shares.members {
        let wanted = shares.of(node).least.saturating_sub(walks.primaries[usize::from(node)]);
        if wanted > 0 {
            walks.lead(node, wanted, &order_of(node, walks.partitions()), |other| shares.of(other).least);
        }
    }
    for node in shares.members {
        let has_room = |primaries: &[u32], heir: NodeId| primaries[usize::from(heir)] < shares.of(heir).most;
        // Weights can leave no way. A node that is first too often is a little busier, nothing else.
        while walks.primaries[usize::from(node)] > shares.of(node).most && walks.leave_lead(node, has_room) {}
    }
}
