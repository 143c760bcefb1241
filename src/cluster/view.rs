//! ```text
//!   members   0 live, 1 failed, 2 live, 3 cut off ..      ring: each partition's walk over the members
//!                        |                                     |
//!                        +---------------+---------------------+
//!                                        v
//!   partition 17:  owners 2 0 4     the first R live nodes of the walk
//!                  leaving 3        holds it too: has not handed it over, or cannot be reached
//!                  serving 3        owned it, and is asked until every owner has pulled
//! ```
//! Who is there, and who owns what: one immutable picture, replaced as a whole when something changes.
//!
//! Promise: reads, writes, repair and hand-over ask this and nothing else where a key lives.

use std::sync::{Arc, OnceLock};

use crate::clock::Incarnation;
use crate::config::Config;
use crate::error::Error;
use crate::ids::{NODES_MAX, NodeId, PartitionId};
use crate::message::Address;
use crate::node::entry_bytes_max;
use crate::node_set::NodeSet;
use crate::ring::Ring;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Live,
    /// It cannot be reached and keeps its memory.
    CutOff,
    /// It is down and its memory is lost.
    Failed,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CutOff => "cut off",
            Self::Failed => "failed",
        }
    }
}

/// A node that belongs to the cache, whatever its state.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its present life.
    pub address: Address,
    /// How it is.
    pub state: State,
    /// Its memory, in bytes.
    pub bytes_max: u64,
    /// It is on its way out: it owns nothing and hands over what it has.
    pub leaving: bool,
    /// It failed because knowledge outgrew it, and comes back when that fits.
    pub is_outgrown: bool,
}

/// The nodes that a node shares partitions with, and which.
type Partners = Vec<(NodeId, Vec<PartitionId>)>;

/// One picture of the cluster.
#[derive(Clone)]
pub struct View {
    epoch: u64,
    replicas: u8,
    partitions: u16,
    ring: Arc<Ring>,
    members: Vec<Option<Member>>,
    live: NodeSet,
    /// For each node that ever was its present life, or, when that is over, the least that a later one can be.
    lives: Vec<Address>,
    /// So many owners each partition has: the replicas, or all live nodes if they are fewer.
    owners_each: usize,
    owners: Vec<NodeId>,
    /// Nodes that hold a partition and do not own it.
    holders: Vec<NodeSet>,
    /// Those of them that serve on: live since they owned it, and not every owner has pulled yet.
    serving: Vec<NodeSet>,
    /// From which nodes each node is cut.
    cuts: Vec<NodeSet>,
    entry_bytes_max: u64,
    /// Those of the largest node that there ever was: what it took may still be here.
    node_bytes_max: u64,
    /// For each node: with whom it shares which partitions.
    partners: OnceLock<Vec<Partners>>,
}

impl View {
    /// The first picture: `config.nodes()` live nodes in these lives.
    pub fn new(config: &Config, partitions: u16, lives: &[Incarnation]) -> Self {
        let bytes_max = config.bytes_of_a_node();
        let member = |(node, &incarnation): (usize, &Incarnation)| {
            let address = Address { node: node as NodeId, incarnation };
            Some(Member { address, state: State::Live, bytes_max, leaving: false, is_outgrown: false })
        };
        let mut members: Vec<_> = lives.iter().enumerate().map(member).collect();
        members.resize(usize::from(NODES_MAX), None);
        let mut view = Self {
            epoch: 0,
            replicas: config.replicas(),
            partitions,
            ring: Arc::new(Ring::new(partitions, config.replicas(), &weights(&members))),
            members,
            live: NodeSet::new(),
            lives: Vec::new(),
            owners_each: 0,
            owners: Vec::new(),
            holders: vec![NodeSet::new(); usize::from(partitions)],
            serving: vec![NodeSet::new(); usize::from(partitions)],
            cuts: vec![NodeSet::new(); usize::from(NODES_MAX)],
            entry_bytes_max: 0,
            node_bytes_max: 0,
            partners: OnceLock::new(),
        };
        view.place();
        view.lives = view.members().map(|member| member.address).collect();
        view
    }

    /// The picture after `change` to the members. What a node held and no longer owns, it still holds, unless its memory
    /// is lost or it is gone.
    pub fn with_members(&self, change: impl FnOnce(&mut Vec<Option<Member>>)) -> Self {
        let mut view = self.clone();
        view.epoch += 1;
        view.partners = OnceLock::new();
        change(&mut view.members);
        if weights(&view.members) != weights(&self.members) {
            view.ring = Arc::new(Ring::new(self.partitions, self.replicas, &weights(&view.members)));
        }
        view.place();
        view.lives = (0..NODES_MAX).filter_map(|node| self.life_after(&view, node)).collect();
        for partition in 0..self.partitions {
            let mut holders = self.all_holders(partition);
            for node in holders.iter() {
                // A new life has nothing of what the old one held.
                let same_life = view
                    .member(node)
                    .is_some_and(|now| now.state != State::Failed && now.address == self.address(node));
                if !same_life || view.owners(partition).contains(&node) {
                    holders.remove(node);
                }
            }
            view.holders[usize::from(partition)] = holders;
            // One that was away has missed what was written meanwhile.
            let was_asked: NodeSet = self.asked(partition).collect();
            let serving = holders.iter().filter(|&node| view.live.contains(node) && was_asked.contains(node)).collect();
            view.serving[usize::from(partition)] = serving;
        }
        view
    }

    /// The picture after these nodes gave up these partitions, and every owner of those has pulled.
    pub fn handed_over(&self, released: &[(NodeId, PartitionId)], pulled: &[PartitionId]) -> Self {
        let mut view = self.clone();
        view.epoch += 1;
        view.partners = OnceLock::new();
        for &(node, partition) in released {
            view.holders[usize::from(partition)].remove(node);
            view.serving[usize::from(partition)].remove(node);
        }
        for &partition in pulled {
            view.serving[usize::from(partition)] = NodeSet::new();
        }
        view
    }

    /// The picture with these cuts between nodes.
    pub fn with_cuts(&self, change: impl FnOnce(&mut [NodeSet])) -> Self {
        let mut view = self.clone();
        view.epoch += 1;
        change(&mut view.cuts);
        view
    }

    /// What is to be known of a node's lives once `next` follows.
    fn life_after(&self, next: &Self, node: NodeId) -> Option<Address> {
        let over = |member: Member| Address { node, incarnation: member.address.incarnation.successor() };
        match next.member(node) {
            Some(member) if member.state != State::Failed => Some(member.address),
            Some(member) => Some(over(member)),
            None => self.member(node).map(over).or_else(|| self.lives.iter().find(|life| life.node == node).copied()),
        }
    }

    fn place(&mut self) {
        let members = self.members.iter().flatten();
        self.live =
            members.clone().filter(|member| member.state == State::Live).map(|member| member.address.node).collect();
        let staying: NodeSet =
            members.clone().filter(|m| m.state == State::Live && !m.leaving).map(|m| m.address.node).collect();
        self.owners_each = usize::from(self.replicas).min(staying.len());
        self.owners = (0..self.partitions).flat_map(|partition| self.ring.owners(partition, staying)).collect();
        self.node_bytes_max = members.clone().map(|member| member.bytes_max).fold(self.node_bytes_max, u64::max);
        self.entry_bytes_max = members.map(|member| entry_bytes_max(member.bytes_max)).min().unwrap_or(0);
    }

    /// Which picture this is: each change has the next number.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Copies of each entry that are wanted.
    #[inline]
    pub const fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Slices of the hash space.
    #[inline]
    pub const fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The live owners of a partition, in the order in which they are asked.
    #[inline]
    pub fn owners(&self, partition: PartitionId) -> &[NodeId] {
        let start = usize::from(partition) * self.owners_each;
        &self.owners[start..start + self.owners_each]
    }

    /// The nodes that a partition belongs on when all are live, in order.
    pub fn homes(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        let staying: NodeSet =
            self.members().filter(|member| !member.leaving).map(|member| member.address.node).collect();
        self.ring.owners(partition, staying)
    }

    /// Whether every node that a partition belongs on is down, or cut off.
    pub fn is_orphaned(&self, partition: PartitionId) -> bool {
        let all_live = || self.members().all(|member| member.state == State::Live);
        partition < self.partitions && !all_live() && !self.homes(partition).any(|home| self.live.contains(home))
    }

    /// Nodes that hold a partition without owning it.
    pub fn holders(&self, partition: PartitionId) -> NodeSet {
        self.holders[usize::from(partition)]
    }

    /// Those of them that serve on: live since they owned it, and not every owner has pulled yet.
    pub fn serving(&self, partition: PartitionId) -> NodeSet {
        self.serving[usize::from(partition)]
    }

    /// Whom to ask what is in a partition: its owners, and those that serve on. Together they know all that was
    /// acknowledged, however far a planned change has come.
    pub fn asked(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        self.owners(partition).iter().copied().chain(self.serving(partition).iter())
    }

    /// Owners and other holders.
    pub fn all_holders(&self, partition: PartitionId) -> NodeSet {
        self.owners(partition).iter().copied().chain(self.holders(partition).iter()).collect()
    }

    /// The present life of a node.
    #[inline]
    pub fn address(&self, node: NodeId) -> Address {
        let nobody = Address { node, incarnation: Incarnation(0) };
        self.members[usize::from(node)].map_or(nobody, |member| member.address)
    }

    /// A node, if it belongs to the cache.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members.get(usize::from(node)).copied().flatten()
    }

    /// All nodes that belong to the cache.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().flatten().copied()
    }

    /// A node by the number a caller gave.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`] when there is none.
    pub fn find(&self, node: usize) -> Result<Member, Error> {
        let found = NodeId::try_from(node).ok().and_then(|node| self.member(node));
        found.ok_or_else(|| Error::NoSuchNode {
            node: node.to_string(),
            nodes: self.members().map(|member| member.address.node).collect(),
        })
    }

    /// For each node that ever was its present life, or, when that is over, the least that a later one can be.
    pub fn lives(&self) -> &[Address] {
        &self.lives
    }

    /// Nodes that answer.
    pub const fn live(&self) -> NodeSet {
        self.live
    }

    /// Whether two nodes are cut from each other.
    #[inline]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts[usize::from(from)].contains(to)
    }

    /// The nodes that a node is cut from.
    pub fn cut_from(&self, node: NodeId) -> NodeSet {
        self.cuts[usize::from(node)]
    }

    /// The most an entry may take: what fits in the smallest node fits in all.
    pub const fn entry_bytes_max(&self) -> u64 {
        self.entry_bytes_max
    }

    /// Bytes of the largest node that there is or was.
    pub const fn node_bytes_max(&self) -> u64 {
        self.node_bytes_max
    }

    /// With whom a live node shares which partitions that it owns: the nodes it gossips with.
    pub fn partners(&self, node: NodeId) -> &[(NodeId, Vec<PartitionId>)] {
        &self.partners.get_or_init(|| self.all_partners())[usize::from(node)]
    }

    /// Other owners come first, then those that only hold a partition: a stand-in that was full knows of entries it has
    /// no value of, and who hears of such an entry from it first would not take the value from the owner after it.
    fn all_partners(&self) -> Vec<Partners> {
        let nobody = || vec![Vec::new(); usize::from(NODES_MAX)];
        let (mut owners, mut holders): (Vec<Partners>, Vec<Partners>) = (nobody(), nobody());
        for partition in 0..self.partitions {
            for &owner in self.owners(partition) {
                let others = self.all_holders(partition);
                for other in others.iter().filter(|&other| other != owner && self.live.contains(other)) {
                    let all = if self.owners(partition).contains(&other) { &mut owners } else { &mut holders };
                    share(&mut all[usize::from(owner)], other, partition);
                }
            }
        }
        owners.iter_mut().zip(holders).for_each(|(owners, holders)| owners.extend(holders));
        owners
    }
}

fn share(partners: &mut Partners, other: NodeId, partition: PartitionId) {
    match partners.iter_mut().find(|(partner, _)| *partner == other) {
        Some((_, shared)) => shared.push(partition),
        None => partners.push((other, vec![partition])),
    }
}

/// What the ring places partitions by: the members that stay, and their memory.
fn weights(members: &[Option<Member>]) -> Vec<(NodeId, u64)> {
    let staying = members.iter().flatten().filter(|member| !member.leaving);
    staying.map(|member| (member.address.node, member.bytes_max)).collect()
}
