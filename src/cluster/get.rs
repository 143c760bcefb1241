//! ```text
//!   start --Get--> owner 1: live?  done          (when one answer is enough)
//!            | marker, nothing, not synced, down
//!            v
//!         --Get--> owner 2: ...   the newest of what was heard, unless a marker is newer
//!            v
//!           miss
//! ```
//! A read, as a conversation: it takes what owners answer, in their order, and says when it has heard enough. What has ended
//! is a marker by the time it comes here (`Read::at`): nothing older is an answer.
//!
//! Promise: the value that comes back is not older than anything an asked owner knows. Only owners that are synced speak
//! with authority; the others are heard when there is nobody else.

use super::routes::Routes;
use crate::config::Quorum;
use crate::entry::PartitionId;
use crate::error::Error;
use crate::message::{Address, Known, Read};
use crate::version::{Timestamp, Version};

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
    /// Synced owners that answered.
    authorities: u8,
    /// The newest that a synced owner has live, and the newest that any other has.
    live: Option<Version>,
    doubtful: Option<Version>,
    marker: Option<Version>,
}

impl Get {
    /// A read in a partition, begun in this epoch, that wants as many owners to answer as the quorum says.
    #[inline]
    pub const fn new(partition: PartitionId, quorum: Quorum, epoch: u64) -> Self {
        Self { partition, quorum, epoch, at: 0, authorities: 0, live: None, doubtful: None, marker: None }
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
        let owner = routes.owner(self.partition, self.at)?;
        self.at += 1;
        Some(owner)
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

    fn has_enough(&self, routes: &Routes) -> bool {
        self.authorities > 0
            && self.live.is_some()
            && self.live >= self.marker
            && self.authorities >= self.wanted(routes)
    }

    /// What one owner knows.
    #[inline]
    pub fn hear(&mut self, read: Read) {
        self.authorities += u8::from(read.synced);
        match read.known {
            Known::Live(version) if read.synced => self.live = self.live.max(Some(version)),
            Known::Live(version) => self.doubtful = self.doubtful.max(Some(version)),
            Known::Marker(version) => self.marker = self.marker.max(Some(version)),
            Known::Nothing => {}
        }
    }

    /// True when this answer counts more than those before it, so that its value is the one to keep: a synced owner's
    /// more than any other's, and then the newer one.
    #[inline]
    pub fn improves(&self, read: Read) -> bool {
        match read.known {
            Known::Live(version) if read.synced => Some(version) > self.live,
            Known::Live(version) => self.authorities == 0 && Some(version) > self.doubtful,
            Known::Marker(_) | Known::Nothing => false,
        }
    }

    /// How it ended. On a hit the caller has been lent the value.
    #[inline]
    pub(super) fn outcome(&self, routes: &Routes) -> Answer {
        let wanted = self.wanted(routes);
        if self.authorities < wanted && wanted > 1 {
            return Answer::TooFew { wanted, reached: self.authorities };
        }
        let newest = if self.authorities > 0 { self.live } else { self.doubtful };
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
        let mut heard = answers.iter();
        while get.next(&routes).is_some()
            && let Some(&(known, synced)) = heard.next()
        {
            get.hear(Read { known, synced });
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
        for (timestamp, synced) in answers {
            let read = Read { known: Known::Live(at(timestamp)), synced };
            kept = if get.improves(read) { Some(timestamp) } else { kept };
            get.hear(read);
        }
        assert_eq!((kept.map(hit), get.outcome(&routes())), (Some(hit(4)), hit(4)));
    }

    #[test]
    fn a_quorum_takes_the_newest_and_fails_when_too_few_answer() {
        assert_eq!(hear(2, &[(Known::Live(at(3)), true), (Known::Live(at(4)), true)]), (true, hit(4)));
        assert_eq!(hear(2, &[(Known::Live(at(3)), true)]).1, Answer::TooFew { wanted: 2, reached: 1 });
    }
}
