//! ```text
//!   node  --Compare--> partner      16 bytes each way, and done, when both have seen the same
//!         --Pull-----> partner      for each partition that differs, chunk after chunk
//!         --Fix------> partner      what it did not know
//!
//!   a node that owns a partition no longer: all owners have seen what it has?  --Release-->
//! ```
//! The exchange that makes nodes agree: what gossip decided is carried out here, one message at a time, with no lock held
//! between two messages.

use std::borrow::Cow;
use std::time::Instant;

use rayon::prelude::*;

use super::Cluster;
use super::view::View;
use crate::clock::Clock;
use crate::entry::{NodeId, PartitionId};
use crate::gossip;
use crate::message::{Address, Reply, Request};
use crate::runtime::{Runtime, Unreached, Wait, workers};
use crate::stats::SyncReport;

/// `sync` gives up after so many rounds without agreement: something is cut, or writes go on faster than they spread.
const ROUNDS_MAX: u64 = 64;

/// After so many rounds in which nothing was moved there is nothing left to be said that can be reached: clocks that differ
/// only in what they have forgotten of lives that are over agree in a round or two.
const QUIET_ROUNDS: u64 = 4;

impl<R: Runtime> Cluster<R> {
    /// One round of gossip now: every live node compares notes with one partner.
    pub fn gossip(&self) -> SyncReport {
        let started = Instant::now();
        let mut report = self.round();
        report.converged = self.is_converged();
        report.seconds = started.elapsed().as_secs_f64();
        report
    }

    /// One round, as the background drives it.
    pub(super) fn round(&self) -> SyncReport {
        let view = self.view();
        let round = self.next_round();
        let mut report = SyncReport { rounds: 1, ..SyncReport::default() };
        for node in view.live().iter() {
            let partners = view.partners(node);
            if let Some((partner, shared)) = gossip::partner(round, partners.len()).and_then(|at| partners.get(at)) {
                report.add(&self.exchange(&view, node, *partner, shared));
            }
        }
        self.release_handed_over();
        report
    }

    /// Rounds of gossip, each node with all its partners, until all live owners have seen the same.
    pub fn sync(&self) -> SyncReport {
        let started = Instant::now();
        let (mut report, mut quiet) = (SyncReport::default(), 0);
        loop {
            let moved = self.sync_round();
            report.rounds += 1;
            report.add(&moved);
            report.converged = self.is_converged();
            quiet = if moved.items == 0 { quiet + 1 } else { 0 };
            if report.converged || quiet == QUIET_ROUNDS || report.rounds == ROUNDS_MAX {
                report.seconds = started.elapsed().as_secs_f64();
                log::info!(
                    "sync finished after {} rounds: {} items, {} bytes, {}",
                    report.rounds,
                    report.items,
                    report.bytes,
                    if report.converged { "converged" } else { "not converged" }
                );
                return report;
            }
        }
    }

    fn sync_round(&self) -> SyncReport {
        let view = self.view();
        let live: Vec<NodeId> = view.live().iter().collect();
        let of_node = |&node: &NodeId| self.pull_all(&view, node);
        let sum = |mut sum: SyncReport, one: SyncReport| {
            sum.add(&one);
            sum
        };
        let mut moved = workers::divide(|| live.par_iter().map(of_node).reduce(SyncReport::default, sum));
        self.release_handed_over();
        moved.rounds = 1;
        moved
    }

    /// A node compares notes with everyone it shares a partition with.
    pub(super) fn pull_all(&self, view: &View, node: NodeId) -> SyncReport {
        let mut moved = SyncReport::default();
        for (partner, shared) in view.partners(node) {
            moved.add(&self.exchange(view, node, *partner, shared));
        }
        moved
    }

    /// A node compares notes with one partner.
    fn exchange(&self, view: &View, node: NodeId, partner: NodeId, shared: &[PartitionId]) -> SyncReport {
        let mut moved = SyncReport::default();
        if view.is_cut(node, partner) {
            return moved;
        }
        let (asker, answerer) = (view.address(node), view.address(partner));
        // A node that went down meanwhile ends the exchange; nothing is left half done, because each step stands alone.
        let _ = self.compare_and_pull(asker, answerer, shared, &mut moved);
        moved
    }

    fn compare_and_pull(
        &self,
        asker: Address,
        answerer: Address,
        shared: &[PartitionId],
        moved: &mut SyncReport,
    ) -> Result<(), Unreached> {
        let (mut topics, mut mine, mut fingerprint) = (gossip::topics(&[], |_| true), Vec::new(), 0);
        self.runtime.look(asker, &mut |node| {
            topics = gossip::topics(shared, |id| node.clock(id).is_some_and(|(_, synced)| synced));
            mine = node.fingerprints(&topics.compare);
            fingerprint = node.fingerprint(&topics.compare);
        })?;
        if !topics.compare.is_empty() {
            let request = Request::Compare { from: asker, partitions: &topics.compare, fingerprint };
            moved.bytes += 32;
            match self.ask(answerer, &request)? {
                Reply::Compared(Some(theirs)) => {
                    moved.bytes += 8 * theirs.len() as u64;
                    topics.pull.extend(gossip::differing(&topics.compare, &mine, &theirs));
                }
                _ => self.runtime.look(asker, &mut |node| node.heard_same(answerer, &topics.compare))?,
            }
        }
        for id in topics.pull {
            self.pull(asker, answerer, id, moved)?;
        }
        Ok(())
    }

    /// Pulls what a partner has seen of one partition and the asker has not, chunk after chunk.
    fn pull(
        &self,
        asker: Address,
        answerer: Address,
        id: PartitionId,
        moved: &mut SyncReport,
    ) -> Result<(), Unreached> {
        let mut begun = None;
        self.runtime.look(asker, &mut |node| begun = node.begin_pull(id))?;
        let Some((ticket, clock)) = begun else { return Ok(()) };
        let mut after = None;
        let mut seen_at_first: Option<Clock> = None;
        loop {
            let request = Request::Pull { from: asker, partition: id, ticket, clock: &clock, after };
            let Reply::Delta(mut delta) = self.ask(answerer, &request)? else { return Ok(()) };
            moved.items += delta.items.len() as u64;
            moved.bytes += (clock.message_bytes() + delta.items.message_bytes() + delta.clock.message_bytes()) as u64;
            // What arrived between two chunks may lie before the place where the next one begins: only what the partner
            // had seen at the first chunk is known to be complete at the last.
            delta.clock = seen_at_first.get_or_insert(delta.clock).clone();
            let mut newer = None;
            self.runtime.look(asker, &mut |node| newer = node.apply(id, &delta))?;
            // An answer that was overtaken is asked for again in the next round.
            let Some(items) = newer else { return Ok(()) };
            if !items.is_empty() {
                moved.items += items.len() as u64;
                moved.bytes += items.message_bytes() as u64;
                self.ask(answerer, &Request::Fix { items: Cow::Owned(items) })?;
            }
            match delta.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Nodes that hold what they no longer own give it up, once every owner has seen all they have. Nobody comes to own
    /// anything meanwhile.
    pub(super) fn release_handed_over(&self) {
        let holds_more = |view: &View, id| view.holders(id).iter().any(|holder| view.live().contains(holder));
        let view = self.view();
        if !(0..view.partitions()).any(|id| holds_more(&view, id)) {
            return;
        }
        let _changes = self.changes.lock();
        let view = self.view();
        let mut released = Vec::new();
        for id in (0..view.partitions()).filter(|&id| holds_more(&view, id)) {
            for holder in view.holders(id).iter().filter(|&holder| view.live().contains(holder)) {
                if self.is_handed_over(&view, id, view.address(holder)).unwrap_or(false) {
                    released.push((holder, id));
                }
            }
        }
        if !released.is_empty() {
            self.publish(view.without_holders(&released));
        }
    }

    fn is_handed_over(&self, view: &View, id: PartitionId, holder: Address) -> Result<bool, Unreached> {
        if view.owners(id).is_empty() {
            return Ok(false);
        }
        let mut held = None;
        self.runtime.look(holder, &mut |node| held = node.clock(id).map(|(clock, _)| clock.clone()))?;
        let Some(held) = held else { return Ok(true) };
        for &owner in view.owners(id) {
            let mut covers = false;
            self.runtime.look(view.address(owner), &mut |node| {
                covers = node.clock(id).is_some_and(|(clock, synced)| synced && clock.covers(&held));
            })?;
            if !covers || view.is_cut(owner, holder.node) {
                return Ok(false);
            }
        }
        match self.ask(holder, &Request::Release { partition: id, clock: Cow::Owned(held) })? {
            Reply::Released(released) => Ok(released),
            _ => Ok(false),
        }
    }

    /// All live owners have seen the same, are synced, and nobody is left to hand something over.
    pub(super) fn is_converged(&self) -> bool {
        let view = self.view();
        let seen = |owner: NodeId, id: PartitionId| {
            let mut seen = None;
            let looked = self.runtime.look(view.address(owner), &mut |node| {
                seen = node.clock(id).filter(|&(_, synced)| synced).map(|(clock, _)| clock.fingerprint());
            });
            looked.ok().and(seen)
        };
        (0..view.partitions()).all(|id| {
            let mut prints = view.owners(id).iter().map(|&owner| seen(owner, id));
            let first = prints.next().flatten();
            let handed_over = view.holders(id).iter().all(|holder| !view.live().contains(holder));
            handed_over
                && (view.owners(id).is_empty() || first.is_some())
                && prints.all(|print| print.is_some() && print == first)
        })
    }

    /// Sends a request of the background, which may wait its turn.
    pub(super) fn ask(&self, to: Address, request: &Request<'_>) -> Result<Reply, Unreached> {
        self.runtime.carry(to, request, Wait::ForTurn)
    }
}
