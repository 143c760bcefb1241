//! ```text
//!   crash, suspect, recover   block, split   cut, heal   join, leave   ->  the cluster, or the network behind its back
//!   save, restore                                                     ->  the cluster, step by step (snapshots.rs)
//! ```
//! What goes wrong in a simulated cluster.

use std::fmt;

use super::{Event, World};
use crate::cluster::view::State;
use crate::ids::{NODES_MAX, NodeId};
use crate::message::Address;
use crate::runtime::Runtime;

/// What can happen to nodes and to the network between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node loses its memory at once; after `noticed_us` the cluster knows.
    Crash {
        /// Which node.
        node: NodeId,
        /// How long nobody notices.
        noticed_us: u64,
    },
    /// A node that is down, or thought to be, comes back: with its memory if it kept it.
    Recover {
        /// Which node.
        node: NodeId,
    },
    /// A node is thought to be down and is not: it keeps its memory, and messages under way reach it.
    Suspect {
        /// Which node.
        node: NodeId,
    },
    /// Messages from one node to another are lost, and nobody knows.
    Block {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
    },
    /// Messages between two sides are lost, both ways, and nobody knows. A node is on the side that its bit says.
    Split {
        /// One bit for each node.
        sides: u128,
    },
    /// All links work again.
    Unblock,
    /// Two sides are cut from each other, and the cluster knows.
    Cut {
        /// One bit for each node.
        sides: u128,
    },
    /// The cluster's cuts are undone.
    Heal,
    /// A new node of so many bytes joins.
    Join {
        /// Its memory.
        bytes: u64,
    },
    /// A node begins to leave: it hands over what it has.
    Leave {
        /// Which node.
        node: NodeId,
    },
    /// A node that leaves is gone, if it has handed over everything; else it stays for now.
    Dismiss {
        /// Which node.
        node: NodeId,
    },
    /// What the cluster holds is saved, a step at a time.
    Save {
        /// So many events happen between two steps.
        events: u32,
    },
    /// What was saved last, if anything was, is restored, a step at a time.
    Restore {
        /// So many events happen between two steps.
        events: u32,
    },
}

impl Fault {
    /// Whether it is of the links between nodes, and nobody knows of it.
    pub const fn is_of_network(&self) -> bool {
        matches!(self, Self::Block { .. } | Self::Split { .. } | Self::Unblock)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl World<'_> {
    /// The cluster learns that a life is over.
    pub(super) fn notice(&mut self, life: Address) {
        self.failures += 1;
        let view = self.cluster.view();
        let known = view.member(life.node).filter(|member| member.address == life && member.state == State::Live);
        if known.is_some() && self.cluster.runtime().life(life.node) != Some(life.incarnation) {
            let noticed = self.cluster.fail_node(life.node.into(), true).is_ok();
            self.must(noticed);
        }
    }

    pub(super) fn apply(&mut self, fault: &Fault) {
        self.failures +=
            u64::from(matches!(fault, Fault::Crash { .. } | Fault::Recover { .. } | Fault::Suspect { .. }));
        let view = self.cluster.view();
        let member = |node: NodeId| view.member(node);
        let is_last = |node: NodeId| view.members().filter(|member| member.address.node != node).count() == 0;
        match *fault {
            Fault::Save { events } => self.save(events),
            Fault::Restore { events } => self.restore(events),
            Fault::Crash { node, noticed_us } => {
                if let Some(member) = member(node) {
                    self.count_life(node);
                    self.cluster.runtime().stop(node);
                    self.network.after(noticed_us, Event::Notice { life: member.address });
                }
            }
            Fault::Recover { node } => {
                if let Some(member) = member(node) {
                    // What kept its memory in the cluster's eyes may have lost it since.
                    let life = self.cluster.runtime().life(node);
                    if life != Some(member.address.incarnation) {
                        let noticed = self.cluster.fail_node(node.into(), true).is_ok();
                        self.must(noticed);
                    }
                    let back = self.cluster.readmit_node(node.into()).is_ok();
                    self.must(back);
                }
            }
            Fault::Suspect { node } => {
                if member(node).is_some_and(|member| member.state == State::Live) {
                    let suspected = self.cluster.fail_node(node.into(), false).is_ok();
                    self.must(suspected);
                }
            }
            Fault::Block { from, to } => self.network.block(from, to),
            Fault::Split { sides } => {
                for (from, to) in pairs(sides) {
                    self.network.block(from, to);
                    self.network.block(to, from);
                }
            }
            Fault::Unblock => self.network.unblock(),
            Fault::Cut { sides } => {
                let of = |side: u128| {
                    let nodes = view.members().map(|member| member.address.node);
                    nodes.filter(|node| sides >> node & 1 == side).map(usize::from).collect::<Vec<_>>()
                };
                let cut = self.cluster.cut(&of(0), &of(1)).is_ok();
                self.must(cut);
            }
            Fault::Heal => {
                let healed = self.cluster.heal().is_ok();
                self.must(healed);
            }
            Fault::Join { bytes } => {
                if let Ok(node) = self.cluster.admit_node(Some(bytes)) {
                    self.rounds[usize::from(node)] = 0;
                    self.network.after(1, Event::Beat { node });
                }
            }
            Fault::Leave { node } => {
                if member(node).is_some() && !is_last(node) {
                    // The last that stays may not leave.
                    let _ = self.cluster.retire_node(node.into());
                }
            }
            Fault::Dismiss { node } => {
                if member(node).is_some_and(|member| member.leaving) && self.cluster.has_handed_over(node.into()) {
                    self.count_life(node);
                    let gone = self.cluster.dismiss_node(node.into()).is_ok();
                    self.must(gone);
                }
            }
        }
    }

    /// Adds what a life counted, before it ends.
    fn count_life(&mut self, node: NodeId) {
        let Some(incarnation) = self.cluster.runtime().life(node) else { return };
        self.oracle.end(incarnation);
        let counts = &mut self.counts;
        // It is alive: nobody else is there to end it.
        let _ = self.cluster.runtime().look(Address { node, incarnation }, &mut |node| {
            let stats = node.stats();
            counts.evictions += stats.evictions;
            counts.expired += stats.expired;
            counts.markers_lost += stats.markers_lost;
        });
    }
}

/// Every pair of nodes on different sides.
fn pairs(sides: u128) -> impl Iterator<Item = (NodeId, NodeId)> {
    let side = move |node: NodeId| sides >> node & 1;
    (0..NODES_MAX)
        .flat_map(move |from| (from..NODES_MAX).map(move |to| (from, to)))
        .filter(move |&(a, b)| side(a) != side(b))
}
