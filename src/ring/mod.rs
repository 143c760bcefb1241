//! ```text
//! KeyHash -- top bits --> partition 17 --> its walk   4  0  7 | 2  5  1  3  6
//!                                                     owners  | stand-ins, in this order
//!                                                     4 is the primary
//! while node 0 is down                     its walk   4     7   2 | 5  1  3  6
//!                                                     owners      |
//! ```
//! The hash space is cut into equal partitions, and every partition has a walk: an order of all the nodes. The first
//! `replicas` live nodes on the walk own the partition. `walks.rs` makes the walks; `placement.rs` fits them to the
//! members.
//!
//! Promise: the same members give the same walks in every process and on every machine. No node owns much more than its
//! share, one node more or less moves hardly more than that node's own copies, and a node that fails moves nothing
//! between the healthy ones.
//!
//! No clock, no chance, no list of who is live: liveness comes in as an argument, and a ring never changes. When a node
//! is added or removed, a new ring is made and the two are compared.

mod placement;
mod walks;

use crate::NodeId;
use crate::node_set::NodeSet;

/// How many partitions a cache of `nodes` nodes of `node_bytes` bytes, with `replicas` copies of everything, is cut
/// into. It is asked once, when the cache is created: the number stays while nodes come and go.
///
/// It is a multiple of `nodes`, so that equal nodes can have equally many, if they can afford one each at all. Many partitions make the shares even after
/// nodes come and go; few keep the clocks small. So: as many as the formulas at the constants below wish for, but no
/// more than a node can keep clocks for.
pub fn partition_count(nodes: u8, replicas: u8, node_bytes: u64) -> u16 {
    assert!(nodes > 0 && replicas > 0, "a cache has at least one node and one copy");
    let (nodes, replicas) = (u64::from(nodes), u64::from(replicas));
    let with_many = CLOCK_BYTES + REPLICA_BYTES * replicas.saturating_sub(3);
    let fitting = node_bytes / CLOCK_PART_MAX / with_many;
    let clocks_max = (node_bytes / 100 * CLOCK_PERCENT_MAX / CLOCK_BYTES).min(fitting);
    let of_small = SMALL_NODE_CLOCKS.min(fitting);
    let affordable = (clocks_max / replicas).max((of_small / replicas).min(4));
    let wished = PER_NODE.max(IN_ALL_MIN.div_ceil(nodes));
    let per_node = wished.min(affordable).min(IN_ALL_MAX / nodes);
    if per_node == 0 {
        // Small nodes that each hold nearly everything: fewer partitions than nodes.
        return (clocks_max.max(of_small) * nodes / replicas).clamp(1, nodes) as u16;
    }
    (nodes * per_node) as u16
}

/// 16 a node: one partition more or less than the mean is 6 % of a node's share.
const PER_NODE: u64 = 16;

/// 64 in all, so that a cache that begins with one to three nodes can grow to ten and still give each of them 6 or 7.
const IN_ALL_MIN: u64 = 64;

/// Partition numbers fit into 11 bits.
const IN_ALL_MAX: u64 = 2000;

/// What a node spends on one partition that it holds with two others: clocks and the head of a small table, about 150 bytes.
const CLOCK_BYTES: u64 = 150;

/// And for each holder more: 16 bytes for its life and 8 for those that are over, in what was seen and in what is stable.
const REPLICA_BYTES: u64 = 48;

/// A node holds `partitions * replicas / nodes` clocks; with three lives in each they take at most 3 % of its bytes.
const CLOCK_PERCENT_MAX: u64 = 3;

/// With as many lives in each as there are copies they take at most an eighth of its bytes.
const CLOCK_PART_MAX: u64 = 8;

/// In a node below 60 KB, 3 % is less than 12 clocks. It keeps up to 12 all the same, for 4 partitions of 3 copies:
/// with fewer partitions than that, one more or less would be worth a quarter of the node.
const SMALL_NODE_CLOCKS: u64 = 12;

/// Which nodes hold which partition.
///
/// ```
/// # use distributed_consistent_cache::{node_set::NodeSet, ring::Ring};
/// let ring = Ring::new(80, 3, &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
/// let mut live: NodeSet = (0..5).collect();
/// let owners: Vec<_> = ring.owners(17, live).collect();
///
/// live.remove(owners[0]); // the primary fails: the others stay and one more steps in
/// assert_eq!(ring.owners(17, live).collect::<Vec<_>>(), [owners[1], owners[2], ring.walk(17)[3]]);
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    replicas: usize,
    members: NodeSet,
    /// One walk after the other, each as long as there are members.
    walks: Vec<NodeId>,
}

impl Ring {
    /// The largest node id that a ring takes.
    pub const ID_MAX: NodeId = 99;

    /// Places `partitions` partitions, `replicas` copies of each, on the members: pairs of a node id and a weight. A
    /// node's share of the copies is in proportion to its weight (say, its bytes), but never more than one copy of each.
    ///
    /// The order of the members does not matter. Ids that are given out from 0 up, the lowest free one first, move the
    /// fewest copies; others are correct too.
    ///
    /// # Panics
    /// If there are no partitions, replicas or members, if an id is above [`Ring::ID_MAX`] or there twice, or if a
    /// weight is 0.
    pub fn new(partitions: u16, replicas: u8, members: &[(NodeId, u64)]) -> Ring {
        assert!(partitions > 0 && replicas > 0 && !members.is_empty(), "a ring needs partitions, replicas and members");
        let mut ids = NodeSet::new();
        for &(node, weight) in members {
            assert!(node <= Self::ID_MAX, "node id {node} is above {}", Self::ID_MAX);
            assert!(weight > 0, "node {node} has no weight");
            assert!(ids.insert(node), "node {node} is there twice");
        }
        let walks = placement::place(usize::from(partitions), usize::from(replicas), members);
        let ring = Ring { replicas: usize::from(replicas), members: ids, walks };
        debug_assert_eq!(ring.partitions(), partitions);
        ring
    }

    /// How many partitions the hash space is cut into.
    #[inline]
    pub fn partitions(&self) -> u16 {
        (self.walks.len() / self.members.len()) as u16
    }

    /// How many owners a partition has while so many nodes are live.
    #[inline]
    pub fn replicas(&self) -> u8 {
        self.replicas as u8
    }

    /// The nodes of this ring, live or not.
    #[inline]
    pub fn members(&self) -> NodeSet {
        self.members
    }

    /// All members, each once, in the order in which they are asked to own this partition. The first is its primary.
    #[inline]
    pub fn walk(&self, partition: u16) -> &[NodeId] {
        let start = usize::from(partition) * self.members.len();
        &self.walks[start..start + self.members.len()]
    }

    /// The owners of a partition: the first `replicas` live nodes on its walk, or all live ones if there are fewer.
    #[inline]
    pub fn owners(&self, partition: u16, live: NodeSet) -> impl Iterator<Item = NodeId> + '_ {
        self.walk(partition).iter().copied().filter(move |&node| live.contains(node)).take(self.replicas)
    }

    /// Panics unless every walk names every member exactly once.
    pub fn check(&self) {
        for partition in 0..self.partitions() {
            let walk = self.walk(partition);
            let named: NodeSet = walk.iter().copied().collect();
            assert_eq!((named, walk.len()), (self.members, self.members.len()), "the walk of partition {partition}");
        }
    }
}
