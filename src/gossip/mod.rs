//! ```text
//!   whom?   everyone, in turn
//!           not synced:          and 7 more with whom it shares what it has not pulled
//!           audits that are due: and 7 more with whom it is to audit
//!           writes not all saw:  every other round one of those others with whom it shares them
//!
//!   what?   same fingerprint     ->  nothing to say
//!           another              ->  each pulls from the other the partitions whose clocks differ
//! ```
//! Whom a node compares notes with, and about what. It decides; others carry it out.
//!
//! Promise: in turn, not by chance: after twice as many rounds as there are partners, all were asked; and who needs
//! something, or has something that others need, does not wait for its turn.

use crate::clock::sum_of_fingerprints;
use crate::ids::PartitionId;

/// So many partners a node that is not synced asks in a round: with 100 nodes it shares its partitions with all others, a
/// few with each, and is synced after a dozen rounds.
const PULLS_MAX: usize = 8;

/// So many partners a node has in a round in which it is to audit.
const AUDITS_MAX: usize = 8;

/// What there is to talk about with a partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There are partitions of which this node has not pulled what it missed.
    Unsynced,
    /// Something is to be audited with the partner. Then what it may not have seen is pulled first.
    Audit,
    /// There are writes here that the partner may not have seen.
    Unseen,
    /// Nothing is known.
    Nothing,
}

/// The partners of a round.
pub fn partners(round: u64, needs: &[Need]) -> Vec<usize> {
    let turn = |of: &[usize], turn: u64, most: usize| {
        let first = (turn * most as u64 % of.len().max(1) as u64) as usize;
        of[first..].iter().chain(&of[..first]).take(most).copied().collect::<Vec<_>>()
    };
    let with = |need: Need| (0..needs.len()).filter(|&at| needs[at] == need).collect::<Vec<_>>();
    let (all, unsynced, unseen) = ((0..needs.len()).collect::<Vec<_>>(), with(Need::Unsynced), with(Need::Unseen));
    let audits = with(Need::Audit);
    // Somebody has its turn whatever the needs are: one that cannot be met must not keep the others waiting.
    if !unsynced.is_empty() {
        let mut chosen = turn(&all, round, 1);
        let others: Vec<usize> = unsynced.into_iter().filter(|at| !chosen.contains(at)).collect();
        chosen.extend(turn(&others, round, PULLS_MAX - 1));
        return chosen;
    }
    let mut chosen = match round.is_multiple_of(2) && !unseen.is_empty() {
        true => turn(&unseen, round / 2, 1),
        false if unseen.is_empty() => turn(&all, round, 1),
        false => turn(&all, round / 2, 1),
    };
    let audits: Vec<usize> = audits.into_iter().filter(|at| !chosen.contains(at)).collect();
    chosen.extend(turn(&audits, round, AUDITS_MAX - 1));
    chosen
}

/// What to talk about with a partner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    /// Partitions whose clocks are compared.
    pub compare: Vec<PartitionId>,
    /// The asker's fingerprints of their clocks, and whether it is synced.
    pub looked: Vec<(u64, bool)>,
    /// Those that both have seen the same of.
    pub agreed: Vec<PartitionId>,
    /// Those that are pulled.
    pub pull: Vec<PartitionId>,
}

impl Topics {
    /// The partitions shared with a partner, and what the asker has seen of them.
    pub fn new(shared: &[PartitionId], looked: Vec<(u64, bool)>) -> Self {
        Self { compare: shared.to_vec(), looked, ..Self::default() }
    }

    /// One fingerprint of all clocks that are compared.
    pub fn fingerprint(&self) -> u128 {
        sum_of_fingerprints(&self.compare, &self.looked.iter().map(|&(print, _)| print).collect::<Vec<_>>())
    }

    /// The asker's fingerprints of these clocks.
    pub fn prints(&self, partitions: &[PartitionId]) -> Vec<u64> {
        let looked = self.compare.iter().zip(&self.looked).filter(|(id, _)| partitions.contains(id));
        looked.map(|(_, &(print, _))| print).collect()
    }

    /// The partner's clocks are the same, and it is synced in all of them.
    pub fn agree(&mut self) {
        self.agreed = self.compare.clone();
    }

    /// What the partner has seen: what differs is pulled. So is what neither is synced in.
    pub fn differ(&mut self, theirs: &[(u64, bool)]) {
        for (&id, (&(mine, is_synced), &(other, is_other_synced))) in
            self.compare.iter().zip(self.looked.iter().zip(theirs))
        {
            let is_agreed = mine == other && (is_synced || is_other_synced);
            if is_agreed { self.agreed.push(id) } else { self.pull.push(id) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Need::{Nothing, Unseen, Unsynced};

    #[test]
    fn every_partner_has_its_turn() {
        let asked: Vec<_> = (0..6).flat_map(|round| partners(round, &[Nothing; 3])).collect();
        assert_eq!(asked, [0, 1, 2, 0, 1, 2]);
        assert_eq!(partners(5, &[]), [0_usize; 0]);
        let asked: Vec<_> = (0..8).flat_map(|round| partners(round, &[Unseen, Nothing, Nothing, Unseen])).collect();
        assert!([0, 1, 2, 3].iter().all(|partner| asked.contains(partner)), "{asked:?}");
    }

    #[test]
    fn who_is_not_synced_asks_many_at_once_and_those_first_that_it_needs() {
        assert_eq!(partners(0, &[Nothing, Unsynced, Unseen, Unsynced]), [0, 1, 3]);
        let mut asked: Vec<_> = (0..6).flat_map(|round| partners(round, &[Unsynced; 40])).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 40);
        assert_eq!(partners(4, &[Nothing, Unseen, Nothing]), [1]);
    }

    #[test]
    fn who_has_to_audit_with_many_has_done_so_within_a_few_rounds() {
        let mut asked: Vec<_> = (0..12).flat_map(|round| partners(round, &[Need::Audit; 80])).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 80);
        assert_eq!(partners(1, &[Nothing, Need::Audit, Nothing]), [1]);
        assert_eq!(partners(0, &[Nothing, Need::Audit, Need::Audit]), [0, 1, 2]);
    }

    #[test]
    fn what_is_the_same_is_agreed_and_what_differs_is_pulled() {
        let mut topics = Topics::new(&[1, 2, 3, 4], vec![(7, true), (5, false), (8, true), (9, false)]);
        topics.differ(&[(7, true), (5, true), (6, true), (9, false)]);
        assert_eq!((topics.agreed, topics.pull), (vec![1, 2], vec![3, 4]));
    }
}
