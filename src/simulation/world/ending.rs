//! ```text
//!   faults end  ->  all messages arrive  ->  nodes come back  ->  rounds of gossip until all agree and are silent
//!                                                                        ->  the oracle looks at everything
//! ```
//! How a simulation ends: whatever happened, all must agree in the end.

use super::{Counts, EPOCH_MS, Fault, World};
use crate::cluster::Cluster;
use crate::cluster::view::State;
use crate::entry::{Key, Value};
use crate::ids::NodeId;
use crate::message::{Address, Known, Write};
use crate::runtime::Runtime;
use crate::runtime::Wait;
use crate::runtime::embedded::Embedded;
use crate::runtime::simulated::Weather;
use crate::simulation::oracle::Violation;
use crate::version::Timestamp;

/// After the faults have stopped, all must agree, and then be silent until each pair has met twice, within so many rounds
/// of gossip; and so many more for each node.
pub const ROUNDS_MAX: (u64, u64) = (40, 8);

/// Nodes that agree, and are written to as all see at once, are silent within so many rounds, or once each pair has met.
const SILENT_WITHIN: u64 = 10;

/// So many keys are written for that, at timestamps that nobody used before.
const SILENCE_KEYS: usize = 32;
const SILENCE_TIME: u64 = 1 << 40;

impl World<'_> {
    /// Ends the faults, brings back all nodes but those that are to stay `broken`, lets every message arrive, and gossips
    /// until all agree. Then the oracle looks at everything.
    ///
    /// # Errors
    /// The first promise that was broken, now or before.
    pub fn settle(&mut self, broken: impl Fn(NodeId) -> bool) -> Result<Counts, Violation> {
        self.is_quiet = true;
        self.network.weather = Weather::FINE;
        self.network.unblock();
        self.drain()?;
        let healed = self.cluster.heal().is_ok();
        self.must(healed);
        let members: Vec<_> = self.cluster.view().members().collect();
        let any_broken = members.iter().any(|member| broken(member.address.node));
        for member in members {
            let node = member.address.node;
            if broken(node) {
                self.apply(&Fault::Suspect { node });
            } else {
                self.notice(member.address);
                self.apply(&Fault::Recover { node });
            }
        }
        self.observe_all();
        self.drain()?;
        // Each pair has met twice in so many rounds.
        let nodes = self.cluster.view().members().count() as u64;
        let (silence, rounds_max) = (2 + 2 * nodes, ROUNDS_MAX.0 + ROUNDS_MAX.1 * nodes);
        let mut silent = 0;
        for round in 1..=rounds_max {
            let (items, bytes) = self.gossip_once()?;
            let live = self.cluster.view().live().len() as u64;
            // Nobody can say what a broken node has: those in doubt ask again and again, and get clocks.
            let quiet = items == 0 && (bytes <= 64 * live || any_broken);
            if quiet && self.is_agreed(any_broken) {
                if silent == 0 {
                    self.counts.rounds = round;
                }
                silent += 1;
            } else {
                silent = 0;
            }
            if silent == silence {
                break;
            }
        }
        if silent < silence {
            let what = self.disagreement();
            self.oracle.fail("I7", || format!("no agreement, or no silence, after {rounds_max} rounds: {what}"));
        }
        self.conclude(any_broken);
        // What is read from now on is read by the slowest clock.
        self.cluster.runtime().set_now_ms(EPOCH_MS + self.network.now_us() / 1000);
        self.result()
    }

    /// Nodes that agree, all of them there, are written to, as all see at once: within ten rounds, or once each
    /// pair has met, they say nothing more.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn stay_silent(&mut self) -> Result<Counts, Violation> {
        let view = self.cluster.view();
        let (nodes, some) = (view.live().len() as u64, self.oracle.keys().len().min(SILENCE_KEYS));
        if view.members().any(|member| member.state != State::Live) {
            return self.result();
        }
        for number in 0..some {
            let key = self.oracle.keys()[number].clone();
            let (Ok(key), Ok(value)) = (Key::new(&key), Value::new(b"silence")) else { continue };
            // Of keys that are written one after the other some rise, some fall, and some are equal.
            let timestamp = Timestamp::new(SILENCE_TIME + number as u64 * 7 % 5).unwrap_or_default();
            let write = Write::put(key, timestamp, value);
            self.oracle.issue(number, write.version, None);
            // A node of which clocks take most may have no room for it.
            let _ = self.cluster.write(write, None, None);
        }
        self.observe_writes();
        let silent_within = SILENT_WITHIN.max(nodes);
        for round in 1..=silent_within + 4 {
            let (items, bytes) = self.gossip_once()?;
            if round > silent_within && (items > 0 || bytes > 64 * nodes) {
                self.oracle.fail("I11", || {
                    format!("{items} items and {bytes} bytes in round {round} after writes that all saw at once")
                });
            }
        }
        self.result()
    }

    /// Nodes give up what they no longer own. Every owner must have seen what they had.
    pub(super) fn release_handed_over(&mut self) {
        let clock = |cluster: &Cluster<Embedded>, address: Address, id| {
            let mut seen = None;
            // A node that is down has nothing to say.
            let _ = cluster.runtime().look(address, &mut |node| seen = node.clock(id).map(|(clock, _)| clock.clone()));
            seen
        };
        let view = self.cluster.view();
        let of = |id| view.holders(id).iter().map(move |holder| (holder, id)).collect::<Vec<_>>();
        let held: Vec<_> = (0..view.partitions()).flat_map(of).collect();
        let held: Vec<_> =
            held.into_iter().map(|(holder, id)| (holder, id, clock(&self.cluster, view.address(holder), id))).collect();
        self.cluster.release_handed_over();
        let now = self.cluster.view();
        for (holder, id, had) in held.iter().filter(|(holder, id, _)| !now.holders(*id).contains(*holder)) {
            let had = had.clone().unwrap_or_default();
            for &owner in now.owners(*id) {
                if !clock(&self.cluster, now.address(owner), *id).is_some_and(|seen| seen.covers(&had)) {
                    self.oracle.fail("I9", || format!("{holder} gave up {id} though {owner} has not seen {had:?}"));
                }
            }
        }
    }

    /// One round of every node, to its end. Items and bytes that were moved.
    fn gossip_once(&mut self) -> Result<(u64, u64), Violation> {
        let before = self.moved;
        let live = self.cluster.view().live();
        for node in live.iter() {
            self.gossip(node);
        }
        self.drain()?;
        let epoch = self.cluster.view().epoch();
        self.release_handed_over();
        self.counts.outgrown += u64::from(self.cluster.mind_outgrown());
        if !self.is_large || self.cluster.view().epoch() != epoch {
            self.observe_all();
        }
        Ok((self.moved.0 - before.0, self.moved.1 - before.1))
    }

    /// All live owners have seen the same, and so have all that still hold something. If no node is to stay broken, that is the cluster's own word; else what a broken
    /// node has cannot be known, and the others may remain in doubt about it, but not about each other.
    fn is_agreed(&self, broken: bool) -> bool {
        if !broken {
            return self.cluster.is_converged();
        }
        let view = self.cluster.view();
        let clock = |node: NodeId, id| {
            let mut seen = None;
            // A node that is down has nothing to say.
            let _ = self.cluster.runtime().look(view.address(node), &mut |node| {
                node.note_held(id);
                seen = node.clock(id).map(|(clock, _)| clock.clone());
            });
            seen.unwrap_or_default()
        };
        (0..view.partitions()).all(|id| {
            let owners = view.owners(id);
            let Some(first) = owners.first().map(|&owner| clock(owner, id)) else { return true };
            owners.iter().all(|&owner| clock(owner, id).fingerprint() == first.fingerprint())
                && view
                    .holders(id)
                    .iter()
                    .filter(|&holder| view.live().contains(holder))
                    .all(|holder| first.covers(&clock(holder, id)))
        })
    }

    fn disagreement(&self) -> String {
        let view = self.cluster.view();
        let mut all = String::new();
        for id in 0..view.partitions() {
            for node in view.all_holders(id).iter() {
                // A node that is down has nothing to say.
                let _ = self.cluster.runtime().look(view.address(node), &mut |node| {
                    let owns = view.owners(id).contains(&node.address().node);
                    let is_live = view.live().contains(node.address().node);
                    all += &format!(
                        "\n  partition {id} {:?} live {is_live} owner {owns}: {:?}",
                        node.address(),
                        node.clock(id)
                    );
                });
            }
        }
        all
    }

    fn conclude(&mut self, any_broken: bool) {
        let view = self.cluster.view();
        if let Some(member) = view.members().find(|member| !any_broken && member.state != State::Live) {
            self.oracle.fail("I15", || format!("all is well, and {member:?} has not come back"));
        }
        let mut living = Vec::new();
        for member in view.members().filter(|member| member.state == State::Live) {
            living.push(member.address.incarnation);
            let (oracle, counts) = (&mut self.oracle, &mut self.counts);
            // It is live.
            let _ = self.cluster.runtime().look(member.address, &mut |node| {
                node.check();
                let stats = node.stats();
                counts.evictions += stats.evictions;
                counts.expired += stats.expired;
                counts.markers_lost += stats.markers_lost;
                for partition in node.partitions() {
                    let Some((clock, synced)) = node.clock(partition) else { continue };
                    if !any_broken && (clock.gaps() > 0 || !synced) {
                        let address = node.address();
                        let peers = view.all_holders(partition);
                        oracle.fail("I12", || {
                            format!("{address:?}, synced {synced}, has gaps in {partition} of {peers:?}: {clock:?}")
                        });
                    }
                }
            });
        }
        let cluster = &self.cluster;
        let owners_of = |key: &[u8]| {
            let Ok(key) = Key::new(key) else { return Vec::new() };
            let owners = view.owners(key.hash().partition(view.partitions()));
            let known = |&node: &NodeId| {
                let address = view.address(node);
                let read = cluster.runtime().read(address, key, false, Wait::ForTurn, &mut |_, _| {});
                (address, read.map_or(Known::Nothing, |read| read.known))
            };
            owners.iter().map(known).collect()
        };
        self.oracle.conclude(&living, owners_of, any_broken);
        self.counts.late_keys = (0..self.oracle.keys().len()).filter(|&key| self.oracle.is_late(key)).count() as u64;
        self.counts.node_us = self.network.now_us() * living.len() as u64;
    }
}
