//! ```text
//!   asker     lists a slice: (hash of the key, version) of all it holds, and its clock
//!   answerer  where it holds something newer that this clock has seen: names it anew
//!             where the asker does: says so, and the asker names it anew
//! ```
//! Audits find what clocks cannot: two nodes that have seen the same and hold different versions of a key. That happens when
//! a user puts below a version that the coordinator has forgotten, while another owner remembers it.
//!
//! Somebody must have forgotten the newer version to take the older. So there is a reason to audit when something is taken
//! that is no newer than what was forgotten here; when seeing is taken over from others, who may have forgotten; and when
//! nodes come or go. Plain writes whose timestamps rise are none, however many are evicted for them.
//!
//! Promise: a node with which everything was audited, with no reason to do it again since, is sent nothing.

use super::Node;
use crate::clock::Clock;
use crate::entry::{NodeId, PartitionId};
use crate::hash::{KeyHash, point};
use crate::message::{Listing, Slice};
use crate::version::Timestamp;

/// A listing has about so many keys: 12 KiB, and a few microseconds to make.
const KEYS_MAX: usize = 512;

/// So many reasons there never are: what was audited then is to be audited again.
const NEVER: u64 = u64::MAX;

/// How far an audit with one partner has come.
#[derive(Clone, Copy)]
pub(super) struct Sweep {
    with: NodeId,
    /// Which partitions both hold, in one number: when these are others, it begins anew.
    shared: u64,
    /// The next partition, and the next slice of it.
    at: (PartitionId, u32),
    /// Reasons for audits before it began.
    reasons: u64,
    is_done: bool,
}

impl Node {
    /// The next part of what this node holds, for an audit with a partner, or nothing when all was audited and
    /// there is no reason to do it again.
    pub(super) fn list(&mut self, with: NodeId, partitions: &[PartitionId]) -> Option<Box<Listing>> {
        let reasons = self.audit_reasons;
        let shared = point(&partitions.iter().map(|&id| u64::from(id)).collect::<Vec<_>>());
        let fresh = Sweep { with, shared, at: (0, 0), reasons, is_done: false };
        let known = self.sweeps.iter().position(|sweep| sweep.with == with);
        let number = known.unwrap_or_else(|| {
            let before = self.remembered_bytes();
            self.sweeps.reserve_exact(1);
            self.sweeps.push(fresh);
            self.memory.account(before, self.remembered_bytes());
            self.keep_bound();
            self.sweeps.len() - 1
        });
        let sweep = &mut self.sweeps[number];
        if sweep.is_done && sweep.shared == shared && sweep.reasons == reasons {
            return None;
        }
        if sweep.is_done || sweep.shared != shared {
            *sweep = fresh;
        }
        let from = sweep.at;
        let mut at = from;
        let (mut slices, mut keys) = (Vec::new(), 0);
        for &id in partitions.iter().filter(|&&id| id >= from.0) {
            let Some(place) = self.place(id) else { continue };
            let partition = &self.held[place].1;
            let parts = (partition.table.len() / KEYS_MAX + 1) as u32;
            let mut part = if id == from.0 { from.1 } else { 0 };
            while part < parts && keys < KEYS_MAX {
                let hashed = partition.table.iter().map(|&slot| (KeyHash::of(self.memory.key(slot)), slot));
                let of_part = hashed.filter(|(hash, _)| hash.0 as u32 % parts == part);
                let held: Vec<_> = of_part.map(|(hash, slot)| (hash.0, self.memory.version(slot))).collect();
                keys += held.len();
                if !held.is_empty() {
                    slices.push(Slice { partition: id, clock: partition.clock.clone(), held });
                }
                part += 1;
            }
            at = if part < parts { (id, part) } else { (id + 1, 0) };
            if keys >= KEYS_MAX {
                break;
            }
        }
        let is_last = !partitions.iter().any(|&id| id >= at.0);
        if slices.is_empty() && is_last {
            self.sweeps[number].is_done = true;
            return None;
        }
        Some(Box::new(Listing { slices, next: at, is_last }))
    }

    /// What of a partner's listing is older here, partition by partition, with this node's clock. What is newer here, and
    /// was seen there, is named anew, so that it comes to everyone who has the older.
    pub(super) fn audit(&mut self, listing: &Listing) -> (Vec<(PartitionId, Clock, Vec<u64>)>, bool) {
        let (mut older, mut again) = (Vec::new(), false);
        for slice in &listing.slices {
            let Some(place) = self.place(slice.partition) else { continue };
            let mut hashes = Vec::new();
            for &(hash, version) in &slice.held {
                let Some(at) = self.find_hash(place, hash) else { continue };
                if self.memory.version(at) < version {
                    hashes.push(hash);
                } else if self.memory.version(at) > version {
                    again |= !self.name_anew_if_seen(place, at, &slice.clock);
                }
            }
            if !hashes.is_empty() {
                older.push((slice.partition, self.held[place].1.clock.clone(), hashes));
            }
        }
        self.keep_bound();
        (older, again)
    }

    /// The answer to a listing: what is older at the partner. The next listing goes on from there.
    pub(super) fn audited(
        &mut self,
        with: NodeId,
        (next, is_last): ((PartitionId, u32), bool),
        older: &[(PartitionId, Clock, Vec<u64>)],
        mut again: bool,
    ) {
        for (id, clock, hashes) in older {
            let Some(place) = self.place(*id) else { continue };
            for &hash in hashes {
                if let Some(at) = self.find_hash(place, hash) {
                    again |= !self.name_anew_if_seen(place, at, clock);
                }
            }
        }
        if let Some(sweep) = self.sweeps.iter_mut().find(|sweep| sweep.with == with) {
            sweep.at = next;
            sweep.is_done = is_last;
            sweep.reasons = if again { NEVER } else { sweep.reasons };
        }
        self.keep_bound();
    }

    /// Something of this timestamp is taken: a reason to audit, if it may be older than what was forgotten here.
    #[inline]
    pub(super) fn audit_if_old(&mut self, timestamp: Timestamp) {
        self.audit_reasons += u64::from(self.forgotten_upto.is_some_and(|forgotten| timestamp <= forgotten));
    }

    /// No trace of a version of this timestamp is left here, though it was seen.
    #[inline]
    pub(super) fn note_forgotten(&mut self, timestamp: Timestamp) {
        self.forgotten_upto = self.forgotten_upto.max(Some(timestamp));
    }

    /// A partner begins anew: so does the audit with it.
    pub(super) fn forget_sweep(&mut self, with: NodeId) {
        self.sweeps.retain(|sweep| sweep.with != with);
    }

    fn find_hash(&self, place: usize, hash: u64) -> Option<u32> {
        self.memory.find_hash(&self.held[place].1.table, KeyHash(hash))
    }

    /// Someone with this clock holds something older: if it has seen what is held here, no pull will bring it there. False
    /// if it has not, and a pull may.
    fn name_anew_if_seen(&mut self, place: usize, at: u32, clock: &Clock) -> bool {
        let is_seen = clock.has(self.held[place].1.lengthen(self.memory.dot(at)));
        if is_seen {
            self.name_anew(place, at);
        }
        is_seen
    }
}
