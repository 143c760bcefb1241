//! ```text
//!   round, sync  ->  an Exchange for each node and partner  ->  converged?
//!
//!   a node that owns a partition no longer: all owners have seen what it has?  --Release-->
//! ```
//! Rounds of gossip: who compares notes with whom, carried by a plain call, with no lock held between two messages; and
//! the end of a hand-over.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rayon::prelude::*;

use super::Cluster;
use super::exchange::Exchange;
use super::view::View;
use super::walk::GoOn;
use crate::events::What;
use crate::gossip::{self, Need};
use crate::ids::{NodeId, PartitionId};
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
        self.study();
        let started = Instant::now();
        let mut report = self.round();
        report.converged = self.is_converged();
        report.seconds = started.elapsed().as_secs_f64();
        report
    }

    /// One round, as the background drives it.
    pub(super) fn round(&self) -> SyncReport {
        self.mind_outgrown();
        let view = self.view();
        let round = self.next_round();
        let mut report = SyncReport { rounds: 1, ..SyncReport::default() };
        for node in view.live().iter() {
            self.reclaim(view.address(node));
            for (partner, shared) in self.partners_of(&view, node, round) {
                report.add(&self.exchange(&view, node, partner, shared, true, &mut || true));
            }
        }
        self.release_handed_over();
        self.counters().gossiped(1, 0, 0);
        report
    }

    /// A node's part in a round, to be carried by the caller: conversations with the partners whose turn it is.
    pub fn exchanges_of(&self, node: NodeId, round: u64) -> Vec<Exchange> {
        let view = self.view();
        self.reclaim(view.address(node));
        let exchange = |(partner, shared): (NodeId, &[PartitionId])| {
            Exchange::new(view.address(node), view.address(partner), shared).with_audit()
        };
        self.partners_of(&view, node, round).into_iter().map(exchange).collect()
    }

    /// The partners of a live node in a round, and what it shares with each.
    fn partners_of<'v>(&self, view: &'v View, node: NodeId, round: u64) -> Vec<(NodeId, &'v [PartitionId])> {
        let reached = |(partner, _): &&(NodeId, Vec<PartitionId>)| !view.is_cut(node, *partner);
        let partners: Vec<_> = view.partners(node).iter().filter(reached).collect();
        let mut needs = Vec::new();
        // A node that went down this moment needs nothing.
        let _ = self.runtime.look(view.address(node), &mut |node| {
            let need = |partner: NodeId, shared: &[PartitionId]| {
                let unsynced = |&id: &PartitionId| node.clock(id).is_some_and(|(_, synced)| !synced);
                if shared.iter().any(unsynced) {
                    Need::Unsynced
                } else if shared.iter().any(|&id| node.has_audit_due(partner, id)) {
                    Need::Audit
                } else if shared.iter().any(|&id| node.has_unseen(id)) {
                    Need::Unseen
                } else {
                    Need::Nothing
                }
            };
            needs = partners.iter().map(|(partner, shared)| need(*partner, shared)).collect();
        });
        gossip::partners(round, &needs).into_iter().map(|at| (partners[at].0, &partners[at].1[..])).collect()
    }

    /// Rounds of gossip, each node with all its partners, until all live owners have seen the same.
    pub fn sync(&self) -> SyncReport {
        self.sync_while(&mut || true)
    }

    /// The same, as long as it is to go on. When it ended early, what was pulled until then is there, and the next round goes
    /// on from there.
    pub fn sync_while(&self, go_on: GoOn<'_>) -> SyncReport {
        self.study();
        let started = Instant::now();
        let (mut report, mut quiet) = (SyncReport::default(), 0);
        loop {
            let moved = self.sync_round(go_on);
            report.rounds += 1;
            report.add(&moved);
            if !go_on() {
                report.seconds = started.elapsed().as_secs_f64();
                return report;
            }
            report.converged = self.is_converged() && !self.mind_outgrown();
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
                let SyncReport { items, converged, .. } = report;
                self.events().tell(|| What::SyncFinished { items, converged });
                return report;
            }
        }
    }

    fn sync_round(&self, go_on: GoOn<'_>) -> SyncReport {
        self.mind_outgrown();
        let view = self.view();
        let live: Vec<NodeId> = view.live().iter().collect();
        let sum = |mut sum: SyncReport, one: SyncReport| {
            sum.add(&one);
            sum
        };
        let mut moved = workers::divide_while(go_on, |is_over| {
            let of_node = |&node: &NodeId| self.pull_all(&view, node, true, &mut || !is_over.load(Ordering::Relaxed));
            live.par_iter().map(of_node).reduce(SyncReport::default, sum)
        });
        self.release_handed_over();
        self.counters().gossiped(1, 0, 0);
        moved.rounds = 1;
        moved
    }

    /// A node compares notes with everyone it shares a partition with, as long as it is to go on.
    pub(super) fn pull_all(&self, view: &View, node: NodeId, audits: bool, go_on: GoOn<'_>) -> SyncReport {
        let mut moved = SyncReport::default();
        for (partner, shared) in view.partners(node) {
            if !go_on() {
                break;
            }
            moved.add(&self.exchange(view, node, *partner, shared, audits, go_on));
        }
        moved
    }

    /// A node compares notes with one partner.
    fn exchange(
        &self,
        view: &View,
        node: NodeId,
        partner: NodeId,
        shared: &[PartitionId],
        audits: bool,
        go_on: GoOn<'_>,
    ) -> SyncReport {
        if view.is_cut(node, partner) {
            return SyncReport::default();
        }
        let mut exchange = Exchange::new(view.address(node), view.address(partner), shared);
        if audits {
            exchange = exchange.with_audit();
        }
        while let Some((to, request)) = exchange.next() {
            let reply = self.ask(to, &request);
            exchange.reply(reply);
            // As when what follows is lost: what came is there, and is not pulled again.
            if !go_on() {
                break;
            }
        }
        let moved = exchange.moved();
        self.counters().gossiped(0, moved.items, moved.bytes);
        moved
    }

    /// Nodes that hold what they no longer own give it up, once every owner has seen all they have; and once every owner has
    /// pulled they are asked no more. Nobody comes to own anything meanwhile.
    pub fn release_handed_over(&self) {
        let holds_more = |view: &View, id| view.holders(id).iter().any(|holder| view.live().contains(holder));
        let view = self.view();
        if !(0..view.partitions()).any(|id| holds_more(&view, id)) {
            return;
        }
        let _changes = self.changes.lock();
        let view = self.view();
        let (mut released, mut pulled) = (Vec::new(), Vec::new());
        for id in (0..view.partitions()).filter(|&id| holds_more(&view, id)) {
            for holder in view.holders(id).iter().filter(|&holder| view.live().contains(holder)) {
                if self.is_handed_over(&view, id, view.address(holder)).unwrap_or(false) {
                    released.push((holder, id));
                }
            }
            if !view.serving(id).is_empty() && self.has_pulled(&view, id) {
                pulled.push(id);
            }
        }
        if !released.is_empty() || !pulled.is_empty() {
            self.publish(view.handed_over(&released, &pulled));
        }
    }

    /// Every owner of a partition speaks with authority.
    fn has_pulled(&self, view: &View, id: PartitionId) -> bool {
        let is_synced = |&owner: &NodeId| {
            let mut is_synced = false;
            let looked = self.runtime.look(view.address(owner), &mut |node| {
                is_synced = node.clock(id).is_some_and(|(_, synced)| synced);
            });
            looked.is_ok() && is_synced
        };
        !view.owners(id).is_empty() && view.owners(id).iter().all(is_synced)
    }

    fn is_handed_over(&self, view: &View, id: PartitionId, holder: Address) -> Result<bool, Unreached> {
        if view.owners(id).is_empty() {
            return Ok(false);
        }
        let mut held = None;
        self.runtime.look(holder, &mut |node| {
            node.note_held(id);
            held = node.clock(id).map(|(clock, _)| clock.clone());
        })?;
        let Some(held) = held else { return Ok(true) };
        for &owner in view.owners(id) {
            let mut covers = false;
            self.runtime.look(view.address(owner), &mut |node| {
                node.note_held(id);
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
    pub fn is_converged(&self) -> bool {
        let view = self.view();
        let seen = |owner: NodeId, id: PartitionId| {
            let mut seen = None;
            let looked = self.runtime.look(view.address(owner), &mut |node| {
                node.note_held(id);
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
