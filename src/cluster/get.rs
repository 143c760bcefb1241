//! ```text
//!   start --Get--> owner 1: live?  done          (when one answer is enough)
//!            | marker, nothing, not synced, down
//!            v
//!         --Get--> owner 2: ...   the newest of what was heard, unless a marker is newer
//!            v
//!         --Get--> all that serve on, while partitions move
//!            v
//!           miss
//! ```
//! A read, as a conversation: it takes what owners answer, in their order, and says when it has heard enough. What has ended
//! is a marker by the time it comes here (`Read::at`): nothing older is an answer.
//!
//! Promise: the value that comes back is not older than anything an asked owner knows. Only owners that are synced speak
//! with authority; the others are heard when there is nobody else. While partitions move, who owned one and serves on speaks
//! for the owners that have not pulled yet.

use super::routes::Routes;
use crate::config::Quorum;
use crate::counters::Miss;
use crate::error::Error;
use crate::ids::{NodeId, PartitionId};
use crate::message::{Address, Known, Read};
use crate::node_set::NodeSet;
use crate::version::{Kind, Timestamp, Version};

/// How a read ended. Small, because it is returned in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The value was lent: it is of this version's time.
    Hit(Timestamp),
    /// No live value is known.
    Miss,
    /// A node was busy and the read was not to wait.
    Busy,
    /// Fewer owners answered than were asked for.
    TooFew {
        /// How many had to.
        wanted: u8,
        /// How many did.
        reached: u8,
    },
    /// The cache is closed.
    Closed,
}

impl Answer {
    /// The time of the value that was lent, or nothing for a miss.
    ///
    /// # Errors
    /// [`Error::Quorum`] and [`Error::Closed`].
    pub const fn found(self) -> Result<Option<Timestamp>, Error> {
        match self {
            Self::Hit(timestamp) => Ok(Some(timestamp)),
            Self::Miss | Self::Busy => Ok(None),
            Self::TooFew { wanted, reached } => {
                Err(Error::Quorum { wanted: wanted as usize, reached: reached as usize })
            }
            Self::Closed => Err(Error::Closed),
        }
    }
}

/// A read on its way.
#[derive(Clone, Debug)]
pub struct Get {
    partition: PartitionId,
    quorum: Quorum,
    /// The view it is under.
    epoch: u64,
    /// The next of the owners to be asked.
    at: usize,
    /// So many of those that serve on were asked.
    served: usize,
    /// All were asked, and are asked a second time.
    again: bool,
    /// Who answered and is synced, and who answered and is not.
    authorities: NodeSet,
    unsynced: NodeSet,
    /// The newest that a synced owner has live, and the newest that any other has.
    live: Option<Version>,
    doubtful: Option<Version>,
    marker: Option<Version>,
    /// Who has the value that counts most so far.
    holder: NodeId,
}

impl Get {
    /// A read in a partition, begun in this epoch, that wants as many owners to answer as the quorum says.
    #[inline]
    pub const fn new(partition: PartitionId, quorum: Quorum, epoch: u64) -> Self {
        Self {
            partition,
            quorum,
            epoch,
            at: 0,
            served: 0,
            again: false,
            authorities: NodeSet::new(),
            unsynced: NodeSet::new(),
            live: None,
            doubtful: None,
            marker: None,
            holder: 0,
        }
    }

    /// So many owners were asked already.
    #[inline]
    pub(super) const fn went_on_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Whom to ask next; nobody, when enough was heard or all were asked.
    #[inline]
    pub fn next(&mut self, routes: &Routes) -> Option<Address> {
        if self.has_enough(routes) {
            return None;
        }
        match routes.owner(self.partition, self.at) {
            Some(owner) => {
                self.at += 1;
                Some(owner)
            }
            None => self.next_serving(routes),
        }
    }

    /// Owners have not told enough: those that serve on are asked, all of them, because it is not known which of them was
    /// the last to own the partition.
    fn next_serving(&mut self, routes: &Routes) -> Option<Address> {
        if let Some(serving) = routes.serving(self.partition, self.served) {
            self.served += 1;
            return Some(serving);
        }
        // Owners may have pulled since they were asked, and the others have given up the partition.
        if self.served > 0 && !self.again && usize::from(self.wanted(routes)) > self.authorities.len() {
            (self.at, self.served, self.again) = (0, 0, true);
            return self.next(routes);
        }
        None
    }

    /// The answer, when nobody is left to ask. If nodes came or went meanwhile and not enough was heard, there is none: it
    /// begins again.
    #[inline]
    pub fn answer(&mut self, routes: &Routes) -> Option<Answer> {
        if self.has_enough(routes) || routes.is_still(self.epoch) {
            return Some(self.outcome(routes));
        }
        *self = Self::new(self.partition, self.quorum, routes.epoch());
        None
    }

    fn wanted(&self, routes: &Routes) -> u8 {
        let all = || routes.owners(self.partition).count() as u8;
        self.quorum.wanted(routes.replicas()).unwrap_or_else(all)
    }

    /// The same, when all that could be asked were: where all owners are wanted, those that have yet to pull have nothing to
    /// add to what others said.
    fn wanted_of_synced(&self, routes: &Routes) -> u8 {
        let wanted = self.wanted(routes);
        if self.quorum != Quorum::All || self.authorities.is_empty() {
            return wanted;
        }
        let pulling = self.unsynced.difference(self.authorities);
        wanted
            - routes.owners(self.partition).filter(|owner| pulling.contains(owner.node)).count().min(wanted.into())
                as u8
    }

    /// Whether owners have told enough.
    fn has_enough(&self, routes: &Routes) -> bool {
        self.live.is_some()
            && self.live >= self.marker
            && self.served == 0
            && !self.again
            && self.authorities.len() >= usize::from(self.wanted(routes))
    }

    /// What one owner knows.
    #[inline]
    pub fn hear(&mut self, from: NodeId, read: Read) {
        if read.known.is_live() && self.improves(read) {
            self.holder = from;
        }
        if read.synced {
            self.authorities.insert(from);
        } else {
            self.unsynced.insert(from);
        }
        match read.known {
            Known::Live(version) if read.synced => self.live = self.live.max(Some(version)),
            Known::Live(version) => self.doubtful = self.doubtful.max(Some(version)),
            Known::Marker(version) => self.marker = self.marker.max(Some(version)),
            Known::Nothing => {}
        }
    }

    /// The partition of its key.
    pub(super) const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// One answer with authority is enough.
    pub(super) fn wants_one(&self) -> bool {
        self.quorum == Quorum::One
    }

    /// Who has the value of a hit.
    pub const fn holder(&self) -> NodeId {
        self.holder
    }

    /// Why it is a miss, as far as owners told: nothing when synced owners know nothing of the key.
    pub fn why_missed(&self, now_ms: impl FnOnce() -> u64) -> Option<Miss> {
        let Some(marker) = self.marker else {
            return match (self.authorities.is_empty(), self.unsynced.is_empty()) {
                (true, true) => Some(Miss::OwnerDown),
                (_, false) => Some(Miss::NotSynced),
                (false, true) => None,
            };
        };
        Some(match marker.kind() {
            Kind::Remove => Miss::Removed,
            Kind::Put if marker.lifetime.ends() && marker.lifetime.has_ended(now_ms()) => Miss::Expired,
            Kind::Put if self.live.is_some() || self.doubtful.is_some() => Miss::Superseded,
            Kind::Put => Miss::Evicted,
        })
    }

    /// True when this answer counts more than those before it, so that its value is the one to keep: a synced owner's
    /// more than any other's, and then the newer one.
    #[inline]
    pub fn improves(&self, read: Read) -> bool {
        match read.known {
            Known::Live(version) if read.synced => Some(version) > self.live,
            Known::Live(version) => self.authorities.is_empty() && Some(version) > self.doubtful,
            Known::Marker(_) | Known::Nothing => false,
        }
    }

    /// How it ended. On a hit the caller has been lent the value.
    #[inline]
    pub(super) fn outcome(&self, routes: &Routes) -> Answer {
        let (wanted, reached) = (self.wanted_of_synced(routes), self.authorities.len() as u8);
        if reached < wanted && wanted > 1 {
            return Answer::TooFew { wanted, reached };
        }
        let newest = if reached > 0 { self.live } else { self.doubtful };
        match newest {
            Some(version) if newest >= self.marker => Answer::Hit(version.timestamp),
            _ => Answer::Miss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Incarnation;
    use crate::cluster::view::View;
    use crate::config::Config;

    fn at(timestamp: u64) -> Version {
        Version::put(Timestamp::new(timestamp).expect("small"), 0)
    }

    fn hit(timestamp: u64) -> Answer {
        Answer::Hit(at(timestamp).timestamp)
    }

    /// Three nodes own everything.
    fn routes() -> Routes {
        let config = Config::new(3, Some(3)).expect("valid");
        let lives = [0, 1, 2].map(|node| Incarnation::new(1, node));
        Routes::new(&View::new(&config, 1, &lives))
    }

    fn hear(wanted: u8, answers: &[(Known, bool)]) -> (bool, Answer) {
        let (mut get, routes) = (Get::new(0, Quorum::Count(wanted), 0), routes());
        let (mut heard, mut number) = (answers.iter(), 0);
        while get.next(&routes).is_some()
            && let Some(&(known, synced)) = heard.next()
        {
            get.hear(number, Read { known, synced });
            number += 1;
        }
        (get.has_enough(&routes), get.outcome(&routes))
    }

    #[test]
    fn the_first_synced_owner_that_has_the_value_is_enough() {
        assert_eq!(hear(1, &[(Known::Live(at(3)), true)]), (true, hit(3)));
        assert_eq!(hear(1, &[(Known::Nothing, true), (Known::Live(at(3)), true)]), (true, hit(3)));
    }

    #[test]
    fn a_value_older_than_a_marker_on_the_way_is_a_miss() {
        assert_eq!(hear(1, &[(Known::Marker(at(4)), true), (Known::Live(at(3)), true)]), (false, Answer::Miss));
        assert_eq!(hear(1, &[(Known::Marker(at(3)), true), (Known::Live(at(3)), true)]), (true, hit(3)));
    }

    #[test]
    fn an_owner_that_is_not_synced_is_heard_only_when_no_other_answers() {
        assert_eq!(hear(1, &[(Known::Live(at(9)), false), (Known::Nothing, true)]), (false, Answer::Miss));
        assert_eq!(hear(1, &[(Known::Live(at(9)), false)]), (false, hit(9)));
    }

    #[test]
    fn the_value_that_is_kept_is_the_one_that_is_answered_with() {
        let answers = [(9, false), (3, true), (5, false), (2, true), (4, true)];
        let (mut get, mut kept) = (Get::new(0, Quorum::One, 0), None);
        for (number, (timestamp, synced)) in (0..).zip(answers) {
            let read = Read { known: Known::Live(at(timestamp)), synced };
            kept = if get.improves(read) { Some(timestamp) } else { kept };
            get.hear(number, read);
        }
        assert_eq!((kept.map(hit), get.outcome(&routes())), (Some(hit(4)), hit(4)));
    }

    #[test]
    fn a_quorum_takes_the_newest_and_fails_when_too_few_answer() {
        assert_eq!(hear(2, &[(Known::Live(at(3)), true), (Known::Live(at(4)), true)]), (true, hit(4)));
        assert_eq!(hear(2, &[(Known::Live(at(3)), true)]).1, Answer::TooFew { wanted: 2, reached: 1 });
    }
}
