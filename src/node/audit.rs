//! ```text
//!   asker     says of each partition that is due: what it has seen, and what it holds, as one number each
//!   answerer  has seen the same, and holds the same     ->  done
//!             has seen the same, and holds other things ->  the asker lists (name of the key, version)
//!               where it holds something newer          ->  names it anew
//!               where the asker does                    ->  says so, and the asker names it anew
//!             has seen other things                     ->  not now: a pull comes first
//! ```
//! Audits find what clocks cannot: two nodes that have seen the same and hold different versions of a key. That happens when
//! a user puts below a version that the coordinator has forgotten, while another owner remembers it.
//!
//! An owner that remembers the newer version finds the older one when it is sent it, and names the newer anew. Only one that
//! took over from a pull that it was seen, without being sent it, does not. So a pull that tells of more than it brings is a
//! reason to audit that partition with everybody who holds it, and so is that others come to hold it. Nor does one to which
//! the newer version comes last: so a write that was accepted below what was forgotten is a reason once all have seen that.
//! Other writes are none.
//! An audit counts when both have seen the same: then neither takes any more what the other took over as seen.
//!
//! Promise: where nothing is due, nothing is sent; and nothing falls due by writing and evicting.

use super::Node;
use super::slot::At;
use crate::clock::Clock;
use crate::hash::{KeyHash, digest, point};
use crate::ids::{NodeId, PartitionId};
use crate::message::{Brief, Compared, KeyName, Listing, Older};
use crate::version::Version;

/// So many keys are hashed for one message, and a partition more: a few milliseconds.
const KEYS_MAX: usize = 8192;

/// The name of a key: 128 bits, so that two keys of one hash are two.
fn name(key: &[u8]) -> KeyName {
    KeyName(KeyHash::of(key), digest(key))
}

/// One number for a key and what is known of it.
fn print(key: KeyName, version: Version) -> u64 {
    let lifetime = version.lifetime;
    let kept = [lifetime.shortened(), lifetime.ends_ms()];
    point(&[5, key.0.0, key.1, version.timestamp.get(), version.digest, kept[0], kept[1]])
}

impl Node {
    /// What this node has seen and holds of partitions that are to be audited with a partner, from one partition on, as one
    /// number each; and where to go on. `None` when nothing is due.
    pub(super) fn brief(
        &mut self,
        with: NodeId,
        partitions: &[PartitionId],
    ) -> Option<(Vec<Brief>, Option<PartitionId>)> {
        let (mut briefs, mut keys) = (Vec::new(), 0);
        for &id in partitions {
            let Some(place) = self.place(id) else { continue };
            let Some(due) = self.held[place].1.audit_due(with) else { continue };
            if keys >= KEYS_MAX {
                return Some((briefs, Some(id)));
            }
            keys += self.held[place].1.table.len();
            let (seen, held) = self.prints(place);
            briefs.push(Brief { partition: id, due, seen, held });
        }
        (!briefs.is_empty()).then_some((briefs, None))
    }

    /// How a partner's briefs compare with what is here. Where both have seen and hold the same, this node's own reasons to
    /// audit with that partner are settled, too.
    pub(super) fn compare_briefs(&mut self, from: NodeId, briefs: &[Brief]) -> Vec<Compared> {
        let mut answers = Vec::with_capacity(briefs.len());
        for brief in briefs {
            let Some(place) = self.place(brief.partition) else {
                answers.push(Compared::NotNow);
                continue;
            };
            if self.held[place].1.clock.fingerprint() != brief.seen {
                answers.push(Compared::NotNow);
                continue;
            }
            let is_same = self.prints(place).1 == brief.held;
            if is_same {
                self.held[place].1.audited(from, None);
                self.account(place);
            }
            answers.push(if is_same { Compared::Same } else { Compared::Differ });
        }
        answers
    }

    /// A part of what this node holds of a partition: names of keys and versions.
    pub(super) fn list(&self, id: PartitionId, part: u32) -> Option<Box<Listing>> {
        let partition = &self.held[self.place(id)?].1;
        let parts = (partition.table.len() / KEYS_MAX + 1) as u32;
        let named = partition.table.iter().map(|&at| (name(self.memory.key(at)), self.memory.version(at)));
        let held = named.filter(|(key, _)| key.0.0 as u32 % parts == part).collect();
        Some(Box::new(Listing { partition: id, clock: partition.clock.clone(), held, is_last: part + 1 >= parts }))
    }

    /// What of a partner's listing is older here, with this node's clock. What is newer here, and was seen there, is named
    /// anew, so that it comes to everyone who has the older.
    pub(super) fn audit(&mut self, listing: &Listing) -> Older {
        let Some(place) = self.place(listing.partition) else { return Older::default() };
        let (mut keys, mut again) = (Vec::new(), false);
        for &(key, version) in &listing.held {
            let Some(at) = self.find_name(place, key) else { continue };
            if self.memory.version(at) < version {
                keys.push(key);
            } else if self.memory.version(at) > version {
                again |= !self.name_anew_if_seen(place, at, &listing.clock);
            }
        }
        self.keep_bound();
        let clock = if keys.is_empty() { Clock::new() } else { self.held[place].1.clock.clone() };
        Older { keys, clock, again }
    }

    /// The answer to a listing: what is older at the partner. False when that cannot be mended yet.
    pub(super) fn mend(&mut self, id: PartitionId, older: &Older) -> bool {
        let Some(place) = self.place(id) else { return true };
        let mut again = older.again;
        for &key in &older.keys {
            if let Some(at) = self.find_name(place, key) {
                again |= !self.name_anew_if_seen(place, at, &older.clock);
            }
        }
        self.keep_bound();
        !again
    }

    /// These partitions were audited with a partner, for reasons up to these.
    pub(super) fn audited(&mut self, with: NodeId, done: &[(PartitionId, u64)]) {
        for &(id, due) in done {
            if let Some(place) = self.place(id) {
                self.held[place].1.audited(with, Some(due));
                self.account(place);
            }
        }
    }

    /// Whether something is to be audited with a partner.
    pub fn has_audit_due(&self, with: NodeId, partition: PartitionId) -> bool {
        self.place(partition).is_some_and(|place| self.held[place].1.audit_due(with).is_some())
    }

    /// There is a reason to audit a partition with everybody who holds it.
    pub(super) fn fall_due(&mut self, place: usize) {
        self.audit_reasons += 1;
        self.held[place].1.fall_due(self.audit_reasons);
        self.account(place);
    }

    /// What was seen and what is held, as one number each.
    fn prints(&self, place: usize) -> (u64, u64) {
        let partition = &self.held[place].1;
        let of = |&at: &At| print(name(self.memory.key(at)), self.memory.version(at));
        (partition.clock.fingerprint(), partition.table.iter().map(of).fold(0, u64::wrapping_add))
    }

    fn find_name(&self, place: usize, key: KeyName) -> Option<At> {
        self.memory.find_hash_where(&self.held[place].1.table, key.0, |bytes| digest(bytes) == key.1)
    }

    /// Someone with this clock holds something older: if it has seen what is held here, no pull will bring it there. False
    /// if it has not, and a pull may.
    fn name_anew_if_seen(&mut self, place: usize, at: At, clock: &Clock) -> bool {
        let is_seen = clock.has(self.held[place].1.lengthen(self.memory.dot(at)));
        if is_seen {
            self.name_anew(place, at);
        }
        is_seen
    }
}
