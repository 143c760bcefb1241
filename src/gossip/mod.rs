//! ```text
//!   round 1: 0 asks 1    round 2: 0 asks 2    round 3: 0 asks 1 ..     everyone, in turn
//!
//!   same fingerprint  ->  nothing to say
//!   another           ->  pull the partitions whose clocks differ
//!   not synced        ->  pull at once, without comparing
//! ```
//! Whom a node compares notes with, and about what. It decides; others carry it out.
//!
//! Promise: in turn, not by chance: after as many rounds as there are partners, all were asked.

use crate::entry::PartitionId;

/// The partner of a round, out of so many.
pub const fn partner(round: u64, partners: usize) -> Option<usize> {
    if partners == 0 { None } else { Some((round % partners as u64) as usize) }
}

/// What to talk about with a partner.
#[derive(Debug, PartialEq, Eq)]
pub struct Topics {
    /// Partitions whose clocks are compared first.
    pub compare: Vec<PartitionId>,
    /// Partitions that are pulled in any case.
    pub pull: Vec<PartitionId>,
}

/// Divides the partitions shared with a partner: those in which the asker is not synced it must pull.
pub fn topics(shared: &[PartitionId], is_synced: impl Fn(PartitionId) -> bool) -> Topics {
    let (compare, pull) = shared.iter().partition(|&&partition| is_synced(partition));
    Topics { compare, pull }
}

/// The partitions to pull after a comparison: those whose fingerprints differ.
pub fn differing(compared: &[PartitionId], mine: &[u64], theirs: &[u64]) -> Vec<PartitionId> {
    let prints = compared.iter().zip(mine.iter().zip(theirs));
    prints.filter(|(_, (mine, theirs))| mine != theirs).map(|(&partition, _)| partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partner_has_its_turn() {
        let asked: Vec<_> = (0..6).map(|round| partner(round, 3)).collect();
        assert_eq!(asked, [0, 1, 2, 0, 1, 2].map(Some));
        assert_eq!(partner(5, 0), None);
    }

    #[test]
    fn what_is_not_synced_is_pulled_without_asking() {
        let topics = topics(&[1, 2, 3], |partition| partition != 2);
        assert_eq!(topics, Topics { compare: vec![1, 3], pull: vec![2] });
        assert_eq!(differing(&[1, 3], &[7, 8], &[7, 9]), [3]);
    }
}
