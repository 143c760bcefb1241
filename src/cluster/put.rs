//! ```text
//!   start --Write--> coordinator: the first live owner that can tell what is newest; if none can, who serves on for them
//!            | Accepted (the write has a dot)      | Superseded: done, False     | cannot tell, Down: the next one
//!            v
//!         --Update--> each other owner that it can reach, until the quorum is met, and who serves on
//!            | Seen
//!            v
//!         --Settle--> coordinator: everyone has seen it
//! ```
//! A put or a remove, as a conversation: it says what to send next and takes what comes back. Whoever drives it decides
//! how messages travel. If the owners change meanwhile it begins again under the new view, which is harmless: the same
//! write twice is one write.
//!
//! Promise: when it ends well, the write is on as many owners as the quorum asked for, or something newer is.

use super::routes::Routes;
use crate::clock::{Dot, Incarnation};
use crate::config::Quorum;
use crate::entry::Items;
use crate::error::Error;
use crate::ids::{NodeId, PartitionId};
use crate::message::{Address, Known, Reply, Request, Used, Write, Written};
use crate::node_set::NodeSet;
use crate::runtime::Unreached;
use crate::version::Version;
use std::borrow::Cow;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The write is the newest known; false when something newer is.
    pub newest: bool,
    /// It replaced or removed a value.
    pub was_live: bool,
    /// So many owners hold it.
    pub reached: u8,
}

/// What a write wants.
pub enum Step<'a> {
    /// Send this, and tell it what comes back.
    Send(Address, Request<'a>),
    /// It is over.
    Done,
}

/// A write on its way.
pub struct Put<'a> {
    write: Write<'a>,
    quorum: Quorum,
    /// The view it is under.
    epoch: u64,
    partition: PartitionId,
    stage: Stage,
    /// The node the caller is connected to, when it is connected to one.
    via: Option<NodeId>,
    /// Its version was decided before, elsewhere: it is not made to win.
    is_copy: bool,
    /// The next of those to be asked, and then of the owners to be told.
    next: usize,
    /// The coordinator is no owner: it serves on, because no owner can tell what is newest.
    serves_on: bool,
    /// So many of those that serve on were told.
    told: usize,
    coordinator: Address,
    dot: Dot,
    stable_upto: u64,
    used: Used,
    /// The last change of the membership that the coordinator knew of.
    accepted_in: u64,
    seen_by: NodeSet,
    newer: Option<Box<Items>>,
    before: Known,
    /// An owner that might have coordinated did not answer in time.
    silent: bool,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Looking for an owner that accepts it; `force` when none is synced.
    Accept {
        force: bool,
    },
    /// Telling the other owners.
    Spread,
    /// Telling the coordinator what came of it.
    Settle,
    /// Giving the owners what one of them knew to be newer.
    Fix,
    Done,
    /// An owner was gone, or is no owner any more.
    Stranded,
}

impl<'a> Put<'a> {
    /// Begins a write among the present owners.
    #[inline]
    pub fn new(write: Write<'a>, quorum: Quorum, routes: &Routes) -> Self {
        let partition = write.key.hash().partition(routes.partitions());
        let nowhere = Address { node: 0, incarnation: Incarnation(0) };
        Self {
            write,
            quorum,
            epoch: routes.epoch(),
            partition,
            stage: Stage::Accept { force: false },
            via: None,
            is_copy: false,
            next: 0,
            serves_on: false,
            told: 0,
            coordinator: nowhere,
            dot: Dot { incarnation: Incarnation(0), counter: 0 },
            stable_upto: 0,
            used: Used::NONE,
            accepted_in: 0,
            seen_by: NodeSet::new(),
            newer: None,
            before: Known::Nothing,
            silent: false,
            outcome: Outcome { newest: false, was_live: false, reached: 0 },
        }
    }

    /// Begins at a node: it is the coordinator if it is an owner that can tell what is newest, and else knows only those it
    /// is not cut from.
    pub fn through(mut self, node: NodeId) -> Self {
        self.via = Some(node);
        self
    }

    /// It was decided before, elsewhere, and wins or loses with the version it has.
    pub const fn as_copy(mut self) -> Self {
        self.is_copy = true;
        self
    }

    /// Begins again under a newer view. What was found out stays: who held a value, and that somebody may have accepted it.
    pub fn restart(&mut self, routes: &Routes) {
        self.epoch = routes.epoch();
        self.stage = Stage::Accept { force: false };
        self.next = 0;
        self.told = 0;
        self.seen_by = NodeSet::new();
        self.outcome.reached = 0;
    }

    /// What it writes.
    pub const fn write(&self) -> &Write<'a> {
        &self.write
    }

    /// The partition of its key.
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The version that it writes now.
    pub const fn version(&self) -> Version {
        self.write.version
    }

    /// Whether it is to win over what an owner knows though that counts as newer. A copy does not when it is of the same
    /// value: that had its lifetime decided since.
    fn may_outlive(&self, known: Version) -> bool {
        let version = self.write.version;
        version.may_outlive(known) && !(self.is_copy && version.is_same_value(known))
    }

    /// An owner knows a put of the same time whose lifetime counts as decided later. It was decided before, so the write
    /// begins again with one that counts as later still.
    fn outlive(&mut self, known: Version) {
        match self.write.version.lifetime.after(known.lifetime) {
            Some(lifetime) if self.may_outlive(known) => {
                self.write.version.lifetime = lifetime;
                self.stage = Stage::Stranded;
            }
            _ => {
                self.outcome.newest = false;
                self.stage = Stage::Done;
            }
        }
    }

    /// True when it must begin again: an owner it counted on was gone, or owners changed while it was accepted.
    #[inline]
    pub fn is_outdated(&self, routes: &Routes) -> bool {
        self.stage == Stage::Stranded || (self.outcome.newest && !routes.is_still(self.epoch))
    }

    /// How it ended. The clock is asked only if what was there before ends.
    ///
    /// # Errors
    /// [`Error::NoLiveNode`] when nobody accepted it, [`Error::Quorum`] when too few hold it.
    pub fn outcome(&self, routes: &Routes, now_ms: impl FnOnce() -> u64) -> Result<Outcome, Error> {
        let reached = usize::from(self.outcome.reached);
        if self.outcome.newest && reached == 0 && (self.silent || self.serves_on) {
            // It may have been accepted, and no owner can say so.
            return Err(Error::Quorum {
                wanted: usize::from(self.quorum.wanted(routes.replicas()).unwrap_or(1)),
                reached,
            });
        }
        if self.outcome.newest && reached == 0 {
            return Err(Error::NoLiveNode);
        }
        match self.quorum.wanted(routes.replicas()) {
            Some(wanted) if self.outcome.newest && reached < usize::from(wanted) => {
                Err(Error::Quorum { wanted: usize::from(wanted), reached })
            }
            // What had ended was no value any more.
            _ if self.before.ends() => Ok(Outcome { was_live: self.before.at(now_ms()).is_live(), ..self.outcome }),
            _ => Ok(self.outcome),
        }
    }

    /// The next that might coordinate; with `force` the next owner.
    #[inline]
    fn next_to_ask(&mut self, routes: &Routes, force: bool) -> Option<Address> {
        self.serves_on = false;
        match routes.owner(self.partition, self.next) {
            Some(owner) if self.via.is_none() => Some(owner),
            _ => self.next_of_all(routes, force),
        }
    }

    /// The same, looking at all: a node the caller is connected to comes first if it is an owner, and knows only those it is
    /// not cut from. After the owners come those that serve on and can pass the write on to one of them.
    #[cold]
    fn next_of_all(&mut self, routes: &Routes, force: bool) -> Option<Address> {
        let is_reached = |other: &Address| self.via.is_none_or(|via| !routes.is_cut(via, other.node));
        let is_via = |owner: &Address| self.via == Some(owner.node);
        let own = routes.owners(self.partition).find(is_via);
        if force && own.is_some() {
            return own.filter(|_| self.next == 0);
        }
        let others = routes.owners(self.partition).filter(|owner| !is_via(owner) && is_reached(owner));
        let owners: Vec<Address> = own.into_iter().chain(others).collect();
        if self.next < owners.len() || force {
            return owners.get(self.next).copied();
        }
        let reaches_owner = |from: &Address| owners.iter().any(|owner| !routes.is_cut(from.node, owner.node));
        let serving = (0..).map_while(|at| routes.serving(self.partition, at));
        let next = serving.filter(|node| is_reached(node) && reaches_owner(node)).nth(self.next - owners.len());
        self.serves_on = next.is_some();
        next
    }

    /// The next that is to have the write: owners until they are enough, then all that serve on, who are asked what is newest
    /// until the owners have pulled.
    #[inline]
    fn next_to_tell(&mut self, routes: &Routes) -> Option<Address> {
        let enough = self.quorum.wanted(routes.replicas()).unwrap_or(u8::MAX);
        while self.outcome.reached < enough
            && let Some(owner) = routes.owner(self.partition, self.next)
        {
            self.next += 1;
            if owner != self.coordinator && !routes.is_cut(self.coordinator.node, owner.node) {
                return Some(owner);
            }
        }
        while let Some(other) = routes.serving(self.partition, self.told) {
            self.told += 1;
            if other != self.coordinator && !routes.is_cut(self.coordinator.node, other.node) {
                return Some(other);
            }
        }
        None
    }

    /// The next owner that is to have what is newer.
    fn next_to_fix(&mut self, routes: &Routes) -> Option<Address> {
        loop {
            let owner = routes.owner(self.partition, self.next)?;
            self.next += 1;
            if !routes.is_cut(self.coordinator.node, owner.node) {
                return Some(owner);
            }
        }
    }

    /// What an owner knew before: what the newest of them knew is what the write replaced.
    #[inline]
    fn learn(&mut self, before: Known) {
        if before.rank() > self.before.rank() {
            self.before = before;
        }
        self.outcome.was_live = self.before.is_live();
    }

    /// An owner knows something newer, which the others are to have.
    #[cold]
    fn heard_of_newer(&mut self, newer: Box<Items>) {
        let outlived = newer.iter().map(|item| item.version).find(|&known| self.may_outlive(known));
        match outlived {
            Some(known) => self.outlive(known),
            None => {
                self.outcome.newest = false;
                self.newer = Some(newer);
            }
        }
    }

    fn spread(&mut self, coordinator: Address, dot: Dot, stable_upto: u64) {
        (self.coordinator, self.dot, self.stable_upto) = (coordinator, dot, stable_upto);
        self.outcome.newest = true;
        self.outcome.reached = u8::from(!self.serves_on);
        self.seen_by.insert(coordinator.node);
        self.next = 0;
        self.stage = Stage::Spread;
    }

    fn written(&mut self, from: Address, written: Written) {
        match written {
            Written::Accepted { dot, stable_upto, before, used, epoch } => {
                self.accepted_in = epoch;
                self.learn(before);
                self.used = used;
                self.spread(from, dot, stable_upto);
            }
            // It may be on its way to the others still: they hear of it again, under the name it has.
            Written::Same { dot, stable_upto, epoch } => {
                self.accepted_in = epoch;
                self.spread(from, dot, stable_upto);
            }
            Written::Superseded => {
                self.outcome.newest = false;
                self.stage = Stage::Done;
            }
            Written::Outlived(by) => self.outlive(by),
            Written::Unsynced => self.next += 1,
            Written::NotHeld => self.stage = Stage::Stranded,
        }
    }

    /// What to send next.
    #[inline(always)]
    pub fn next(&mut self, routes: &Routes) -> Step<'a> {
        loop {
            match self.stage {
                Stage::Accept { force } => match self.next_to_ask(routes, force) {
                    Some(owner) => return Step::Send(owner, Request::Write { write: self.write, force }),
                    // Nobody is synced: the first owner that is there must do.
                    None if !force && self.next > 0 => {
                        self.stage = Stage::Accept { force: true };
                        self.next = 0;
                    }
                    None => {
                        self.outcome.newest = true;
                        let nobody_answers = self.next == 0 || self.silent;
                        self.stage = if nobody_answers { Stage::Done } else { Stage::Stranded };
                    }
                },
                Stage::Spread => match self.next_to_tell(routes) {
                    Some(owner) => {
                        let item = self.write.item(self.dot);
                        return Step::Send(
                            owner,
                            Request::Update {
                                from: self.coordinator,
                                item,
                                stable_upto: self.stable_upto,
                                used: self.used,
                                epoch: self.accepted_in,
                            },
                        );
                    }
                    None => self.stage = Stage::Settle,
                },
                Stage::Settle => {
                    self.stage = if self.newer.is_some() { Stage::Fix } else { Stage::Done };
                    self.next = 0;
                    let (partition, dot, seen_by) = (self.partition, self.dot, self.seen_by);
                    if self.outcome.reached > 1 || self.told > 0 {
                        return Step::Send(self.coordinator, Request::Settle { partition, dot, seen_by });
                    }
                }
                Stage::Fix => match (self.next_to_fix(routes), &self.newer) {
                    (Some(owner), Some(items)) => match items.try_clone() {
                        Ok(items) => return Step::Send(owner, Request::Fix { items: Cow::Owned(items) }),
                        // Gossip will tell.
                        Err(_) => self.stage = Stage::Done,
                    },
                    _ => self.stage = Stage::Done,
                },
                Stage::Done | Stage::Stranded => return Step::Done,
            }
        }
    }

    /// What came back, or why nothing did.
    ///
    /// # Errors
    /// What ends the write without having changed anything.
    #[inline(always)]
    pub fn reply(&mut self, from: Address, reply: Result<Reply, Unreached>) -> Result<(), Error> {
        match (self.stage, reply) {
            (_, Err(Unreached::Refused(error))) => return Err(error),
            (Stage::Accept { .. }, Ok(Reply::Written(written))) => self.written(from, written),
            (Stage::Spread, Ok(Reply::Seen { before, quiet, newer })) => {
                // Those that serve on come after the owners, and do not count.
                self.outcome.reached += u8::from(self.told == 0);
                self.learn(before);
                // One that has seen what the coordinator may not have seen is not counted: gossip will tell.
                if quiet {
                    self.seen_by.insert(from.node);
                }
                if let Some(newer) = newer {
                    self.heard_of_newer(newer);
                }
            }
            // The next may answer: it is the same write there, whatever became of it here.
            (Stage::Accept { .. }, Err(Unreached::Silent)) => {
                self.silent = true;
                self.next += 1;
            }
            // It does not count as reached. If it has it, gossip will tell.
            (Stage::Spread, Err(Unreached::Silent)) => {}
            // The owner has another life, or does not count this coordinator among its peers: the view is old.
            (Stage::Accept { .. } | Stage::Spread, _) => self.stage = Stage::Stranded,
            _ => {}
        }
        Ok(())
    }
}
