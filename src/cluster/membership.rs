//! ```text
//!   fail     stop the node (or leave its memory)  ->  the next live nodes on the walk stand in
//!   recover  a new life (or the old memory)       ->  it owns again, pulls what it missed, then speaks with authority
//!   add      a new node                           ->  it owns its share and pulls it
//!   remove   it owns nothing any more             ->  the new owners pull from it, it gives up, and is gone
//!
//!   each: a new picture (view.rs), told to every node that holds something (Hold), then published
//! ```
//! Nodes that come and go. One mechanism serves all: a node that owns a partition newly pulls it, and a node that owns it
//! no longer keeps serving it until every owner has seen all that it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::view::{Member, State, View};
use super::walk::{GoOn, STEP};
use super::{Cluster, Now};
use crate::config::check_node_bytes;
use crate::error::Error;
use crate::events::What;
use crate::ids::{NODES_MAX, NodeId, PartitionId};
use crate::message::{Address, Request};
use crate::node::partition_bytes;
use crate::node_set::NodeSet;
use crate::runtime::Runtime;
use crate::stats::SyncReport;

/// A node that comes back pulls so many times at most, before it leaves the rest to gossip.
const PULLS_MAX: u32 = 4;

/// A node that leaves hands over in so many rounds at most.
const HANDOVER_ROUNDS_MAX: u32 = 16;

impl<R: Runtime> Cluster<R> {
    /// Takes a node down: with `lose_memory` it crashes, without it is cut off from everyone and keeps what it has.
    /// The next live nodes on the ring stand in. A node that is down already only loses its memory, if asked to.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`] and [`Error::Closed`]; nothing was done.
    pub fn fail_node(&self, node: usize, lose_memory: bool) -> Result<(), Error> {
        let changes = self.changes.lock();
        let member = self.find_open(node)?;
        let state = if lose_memory || member.state == State::Failed { State::Failed } else { State::CutOff };
        if state == member.state && !member.is_outgrown {
            return Ok(());
        }
        let id = member.address.node;
        if state == State::Failed {
            self.stop(id);
        }
        self.change_member(Member { state, is_outgrown: false, ..member });
        drop(changes);
        log::info!("node {id} {}", if state == State::Failed { "failed" } else { "is cut off" });
        self.events().tell(|| What::NodeFailed { node: id, memory_lost: state == State::Failed });
        Ok(())
    }

    /// Brings a node back: one that was cut off with its memory, one that crashed in a new life with none. When it returns
    /// the node has pulled what it missed from everyone it can reach: how much that was is returned. A live node stays as
    /// it is.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`] and [`Error::Closed`]; nothing was done.
    pub fn recover_node(&self, node: usize) -> Result<SyncReport, Error> {
        self.recover_node_while(node, &mut || true)
    }

    /// The same, as long as it is to go on. When it ended early, the node is back, and the next rounds of gossip have it pull
    /// the rest.
    ///
    /// # Errors
    /// Those of [`Cluster::recover_node`].
    pub fn recover_node_while(&self, node: usize, go_on: GoOn<'_>) -> Result<SyncReport, Error> {
        let _pulling = Pulling::begin(&self.pulling);
        let mut moved = SyncReport::default();
        if self.readmit_node(node)? {
            moved = self.pull_missing(&mut paced(go_on));
            log::info!("node {node} recovered and pulled {} items", moved.items);
            self.events().tell(|| What::NodeRecovered { node: node as NodeId, items: moved.items });
        }
        Ok(moved)
    }

    /// The first half of [`Cluster::recover_node`]: the node is back, and has pulled nothing yet. False for a live node.
    ///
    /// # Errors
    /// Those of [`Cluster::recover_node`].
    pub fn readmit_node(&self, node: usize) -> Result<bool, Error> {
        let _changes = self.changes.lock();
        let mut member = self.find_open(node)?;
        if member.state == State::Live {
            return Ok(false);
        }
        let id = member.address.node;
        if member.state == State::Failed {
            let incarnation = self.start(id, member.bytes_max, self.view().partitions());
            member.address = Address { node: id, incarnation };
        }
        self.change_member(Member { state: State::Live, is_outgrown: false, ..member });
        Ok(true)
    }

    /// Adds a node of so many bytes (as the others have, if `None`) and returns its number: the lowest that is free. When it
    /// returns, the node has pulled its share.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are 100 nodes or the capacity is out of range, and [`Error::Closed`]; nothing was done.
    pub fn add_node(&self, bytes_max: Option<u64>) -> Result<NodeId, Error> {
        self.add_node_while(bytes_max, &mut || true)
    }

    /// The same, as long as it is to go on. When it ended early, the node is there, and the next rounds of gossip have it pull
    /// the rest.
    ///
    /// # Errors
    /// Those of [`Cluster::add_node`].
    pub fn add_node_while(&self, bytes_max: Option<u64>, go_on: GoOn<'_>) -> Result<NodeId, Error> {
        let _pulling = Pulling::begin(&self.pulling);
        let id = self.admit_node(bytes_max)?;
        let moved = self.pull_missing(&mut paced(go_on));
        log::info!("node {id} joined and pulled {} items", moved.items);
        self.events().tell(|| What::NodeJoined { node: id, items: moved.items });
        Ok(id)
    }

    /// The first half of [`Cluster::add_node`]: the node is there, and has pulled nothing yet.
    ///
    /// # Errors
    /// Those of [`Cluster::add_node`].
    pub fn admit_node(&self, bytes_max: Option<u64>) -> Result<NodeId, Error> {
        let bytes_max = check_node_bytes("capacity", bytes_max.unwrap_or(self.config().bytes_of_a_node()))?;
        let _changes = self.changes.lock();
        self.check_open()?;
        let view = self.view();
        let Some(id) = (0..NODES_MAX).find(|&node| view.member(node).is_none()) else {
            let expected = format!("at most {NODES_MAX}");
            return Err(Error::Invalid {
                argument: "the number of nodes",
                value: (NODES_MAX + 1).to_string(),
                expected,
            });
        };
        let incarnation = self.start(id, bytes_max, view.partitions());
        let address = Address { node: id, incarnation };
        let member = Member { address, state: State::Live, bytes_max, leaving: false, is_outgrown: false };
        self.change_member(member);
        Ok(id)
    }

    /// Takes a node out for good. A live one hands over first what the others lack; one that is down takes along what only
    /// it had.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`], [`Error::Closed`], and [`Error::Invalid`] for the last node; nothing was done.
    pub fn remove_node(&self, node: usize) -> Result<(), Error> {
        self.remove_node_while(node, &mut || true).map(drop)
    }

    /// The same, as long as it is to go on. False when it ended early: the node is still there and hands over what it has, but
    /// owns nothing any more; removing it once more goes on.
    ///
    /// # Errors
    /// Those of [`Cluster::remove_node`].
    pub fn remove_node_while(&self, node: usize, go_on: GoOn<'_>) -> Result<bool, Error> {
        let _pulling = Pulling::begin(&self.pulling);
        self.retire_node(node)?;
        let mut go_on = paced(go_on);
        for _ in 0..HANDOVER_ROUNDS_MAX {
            self.pull_missing(&mut go_on);
            if self.has_handed_over(node) {
                break;
            }
            if !go_on() {
                return Ok(false);
            }
        }
        self.dismiss_node(node).map(|()| true)
    }

    /// The first step of [`Cluster::remove_node`]: the node owns nothing any more, and hands over what it has.
    ///
    /// # Errors
    /// Those of [`Cluster::remove_node`].
    pub fn retire_node(&self, node: usize) -> Result<(), Error> {
        let _changes = self.changes.lock();
        let member = self.find_open(node)?;
        let id = member.address.node;
        if self.view().members().filter(|other| !other.leaving || other.address.node == id).count() == 1 {
            let expected = "at least 1 after one is removed".to_owned();
            return Err(Error::Invalid { argument: "the number of nodes", value: "1".to_owned(), expected });
        }
        self.change_member(Member { leaving: true, ..member });
        Ok(())
    }

    /// Whether a node has nothing, or cannot be reached, to hand over.
    pub fn has_handed_over(&self, node: usize) -> bool {
        let view = self.view();
        let Ok(member) = view.find(node) else { return true };
        let id = member.address.node;
        member.state != State::Live || (0..view.partitions()).all(|partition| !view.holders(partition).contains(id))
    }

    /// The last step of [`Cluster::remove_node`]: the node is gone, with what it still has.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`] and [`Error::Closed`]; nothing was done.
    pub fn dismiss_node(&self, node: usize) -> Result<(), Error> {
        let changes = self.changes.lock();
        let id = self.find_open(node)?.address.node;
        self.publish(self.view().with_members(|members| members[usize::from(id)] = None));
        self.stop(id);
        drop(changes);
        log::info!("node {id} left");
        self.events().tell(|| What::NodeLeft { node: id });
        Ok(())
    }

    /// Cuts the nodes of one side from those of the other; both sides stay reachable for callers.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`], [`Error::Invalid`] for a node on both sides, and [`Error::Closed`]; nothing was done.
    pub fn cut(&self, side_a: &[usize], side_b: &[usize]) -> Result<(), Error> {
        let _changes = self.changes.lock();
        self.check_open()?;
        let side = |nodes: &[usize]| {
            nodes.iter().map(|&node| Ok(self.view().find(node)?.address.node)).collect::<Result<NodeSet, _>>()
        };
        let (a, b) = (side(side_a)?, side(side_b)?);
        if let Some(both) = a.iter().find(|&node| b.contains(node)) {
            let expected = "on one side only".to_owned();
            return Err(Error::Invalid { argument: "a node of a cut", value: both.to_string(), expected });
        }
        self.publish(self.view().with_cuts(|cuts| {
            for (node, other) in a.iter().flat_map(|node| b.iter().map(move |other| (node, other))) {
                cuts[usize::from(node)].insert(other);
                cuts[usize::from(other)].insert(node);
            }
        }));
        Ok(())
    }

    /// Undoes every cut. What the sides missed of each other travels with the next rounds of gossip.
    ///
    /// # Errors
    /// [`Error::Closed`]; nothing was done.
    pub fn heal(&self) -> Result<(), Error> {
        let _changes = self.changes.lock();
        self.check_open()?;
        self.publish(self.view().with_cuts(|cuts| cuts.fill(NodeSet::new())));
        Ok(())
    }

    /// A node that knowledge has outgrown is down from then on. It comes back, in a new life, when what it would have to know
    /// fits: others have closed lives that are over, or are gone. True when a node went or came.
    pub fn mind_outgrown(&self) -> bool {
        if !self.view().members().any(|member| self.is_outgrown(&member)) {
            return false;
        }
        let _changes = self.changes.lock();
        self.replace_outgrown()
    }

    /// The same, for who has changes wait.
    pub(super) fn replace_outgrown(&self) -> bool {
        let outgrown: Vec<Member> = self.view().members().filter(|member| self.is_outgrown(member)).collect();
        let mut is_changed = false;
        for member in outgrown.into_iter().filter(|_| !self.is_closed()) {
            let id = member.address.node;
            if member.state == State::Live {
                self.stop(id);
                log::warn!("node {id} forgot everything: what it had to know of others' lives did not fit any more");
                self.events().tell(|| What::NodeFailed { node: id, memory_lost: true });
            }
            let back = Member { state: State::Live, is_outgrown: false, ..member };
            if self.can_know_all(back) {
                let incarnation = self.start(id, member.bytes_max, self.view().partitions());
                self.change_member(Member { address: Address { node: id, incarnation }, ..back });
            } else if member.state == State::Live {
                self.change_member(Member { state: State::Failed, is_outgrown: true, ..member });
            } else {
                continue;
            }
            is_changed = true;
        }
        is_changed
    }

    fn is_outgrown(&self, member: &Member) -> bool {
        match member.state {
            State::Live => self.runtime.has_outgrown(member.address.node),
            State::CutOff | State::Failed => member.is_outgrown,
        }
    }

    /// Whether what a node would have to know, if it were live, takes no more than three quarters of it.
    fn can_know_all(&self, member: Member) -> bool {
        let (view, node) = (self.view(), member.address.node);
        let next = view.with_members(|members| members[usize::from(node)] = Some(member));
        let clock_bytes = |id: PartitionId| {
            let mut most = 0;
            for holder in view.all_holders(id).iter().filter(|&holder| holder != node && view.live().contains(holder)) {
                // A node that went down this moment has nothing to tell.
                let _ = self.runtime.look(view.address(holder), &mut |holder| {
                    most = most.max(holder.clock(id).map_or(0, |(clock, _)| clock.heap_bytes()));
                });
            }
            most
        };
        let owned = (0..next.partitions()).filter(|&id| owned(&next, id, node));
        let bytes = owned.map(|id| partition_bytes(clock_bytes(id)) as u64).sum::<u64>();
        bytes <= member.bytes_max / 4 * 3
    }

    fn find_open(&self, node: usize) -> Result<Member, Error> {
        self.check_open()?;
        self.view().find(node)
    }

    fn change_member(&self, member: Member) {
        let at = usize::from(member.address.node);
        self.publish(self.view().with_members(|members| members[at] = Some(member)));
    }

    /// Tells every node what the next picture means for it, then makes it the present one. Calls that run meanwhile find
    /// that a node does not know them, and begin again.
    pub(super) fn publish(&self, next: View) {
        let before: Now = self.view();
        self.introduce(Some(&before), &next);
        self.routes.publish(&next);
        self.view.store(Arc::new(next));
    }

    /// Tells each live node which lives are over, which dictionaries values need, which partitions it holds, and with whom.
    pub(super) fn introduce(&self, before: Option<&View>, next: &View) {
        for node in next.live().iter() {
            // A node that went down this moment will be told when it is back.
            let _ = self.ask(next.address(node), &Request::Meet { lives: next.lives(), epoch: next.epoch() });
            self.tell_dictionaries(next, node);
        }
        for id in 0..next.partitions() {
            let holders = next.all_holders(id);
            let same = |node: NodeId| {
                before.is_some_and(|before| owned(before, id, node) && before.address(node) == next.address(node))
            };
            let unchanged = before.is_some_and(|before| {
                before.all_holders(id) == holders
                    && before.owners(id) == next.owners(id)
                    && before.serving(id) == next.serving(id)
                    && holders.iter().all(|node| {
                        // One that was away was not told of what changed meanwhile.
                        let was_told = before.live().contains(node) || !next.live().contains(node);
                        was_told && before.address(node) == next.address(node)
                    })
            });
            if unchanged {
                continue;
            }
            for node in holders.iter().filter(|&node| next.live().contains(node)) {
                let peers: Vec<Address> =
                    holders.iter().filter(|&peer| peer != node).map(|peer| next.address(peer)).collect();
                // At the very start nobody has missed anything.
                let doubt = before.is_some() && owned(next, id, node) && !same(node);
                let serves = owned(next, id, node) || next.serving(id).contains(node);
                // A node that went down this moment will be told when it is back.
                let hold = Request::Hold { partition: id, peers: &peers, doubt, serves };
                let _ = self.ask(next.address(node), &hold);
            }
        }
    }

    /// Every node that owns what it has not pulled yet, or shares it with a node that leaves, compares notes with all. A
    /// change of one node can give partitions to others, too.
    fn pull_missing(&self, go_on: GoOn<'_>) -> SyncReport {
        self.mind_outgrown();
        let view = self.view();
        let mut moved = SyncReport::default();
        let missing = |view: &View| view.live().iter().filter(|&node| self.has_missing(view, node)).collect::<Vec<_>>();
        // Writes that overtake a pull make it begin again.
        for _ in 0..PULLS_MAX {
            for node in missing(&view) {
                moved.add(&self.pull_all(&view, node, false, go_on));
            }
            if !go_on() || !view.live().iter().any(|node| self.is_unsynced(&view, node)) {
                break;
            }
        }
        self.release_handed_over();
        moved
    }
}

impl<R: Runtime> Cluster<R> {
    /// Whether a node owns what it has not pulled yet, or what another is to hand over.
    fn has_missing(&self, view: &View, node: NodeId) -> bool {
        let is_handed = |id: PartitionId| !view.holders(id).is_empty() && owned(view, id, node);
        self.is_unsynced(view, node) || (0..view.partitions()).any(is_handed)
    }

    fn is_unsynced(&self, view: &View, node: NodeId) -> bool {
        let mut is_unsynced = false;
        // A node that went down this moment misses nothing.
        let _ = self.runtime.look(view.address(node), &mut |node| is_unsynced = node.unsynced().next().is_some());
        is_unsynced
    }
}

/// Asks now and then only: whoever is asked may need the GIL to answer.
fn paced<'a>(go_on: GoOn<'a>) -> impl FnMut() -> bool + Send + 'a {
    let (mut asked, mut goes_on) = (Instant::now(), true);
    move || {
        if goes_on && asked.elapsed() >= STEP {
            goes_on = go_on();
            asked = Instant::now();
        }
        goes_on
    }
}

/// While it lives, gossip in the background waits: it would pull the same once more.
struct Pulling<'a>(&'a AtomicU64);

impl<'a> Pulling<'a> {
    fn begin(pulling: &'a AtomicU64) -> Self {
        pulling.fetch_add(1, Ordering::Relaxed);
        Self(pulling)
    }
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        // A forked child began at 0.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pulling| pulling.checked_sub(1));
    }
}

fn owned(view: &View, id: PartitionId, node: NodeId) -> bool {
    view.owners(id).contains(&node)
}
