//! ```text
//!   a key  ->  its first owner: synced, and has it?  ->  done: nearly always
//!                                      |
//!                                      +-> get.rs: whom to ask next  ->  done: counted, a miss with its reason
//! ```
//! Reads, from the call to the answer.
//!
//! Promise: a read ends after a bounded number of messages; what it finds was asked for at most once of each owner, unless
//! nodes came or went.

use super::Cluster;
use super::get::{Answer, Get};
use crate::config::Quorum;
use crate::counters::{self, Gone, Miss};
use crate::entry::Key;
use crate::error::Error;
use crate::ids::{NodeId, PartitionId};
use crate::message::{Known, Lent, Read};
use crate::miss_ratio::Use;
use crate::node::{Take, entry_bytes};
use crate::runtime::{Runtime, Unread, Wait};
use crate::version::Timestamp;

impl<R: Runtime> Cluster<R> {
    /// Reads. On a hit `take` has been lent the value, the last time it was called; `touch` counts it as a use.
    #[inline]
    pub fn read(&self, key: Key<'_>, touch: bool, quorum: Option<Quorum>, wait: Wait, take: Take<'_>) -> Answer {
        if self.is_closed() {
            return Answer::Closed;
        }
        self.tell_time_without_beat();
        let (epoch, quorum) = (self.routes.epoch(), quorum.unwrap_or(self.config.reads()));
        let partition = key.hash().partition(self.routes.partitions());
        // Nearly always the first owner is synced and has the value, and nobody else need be asked.
        let first = match self.routes.owner(partition, 0) {
            Some(owner) => match self.runtime.read(owner, key, touch, wait, take) {
                Ok(Read { known: Known::Live(version), synced: true })
                    if quorum == Quorum::One && !version.lifetime.ends() =>
                {
                    if touch && self.sample.uses(key.hash()) {
                        self.sample_hit(key);
                    }
                    return Answer::Hit(version.timestamp);
                }
                Err(Unread::Busy) => return Answer::Busy,
                first => first.ok().map(|read| (owner.node, read)),
            },
            None => None,
        };
        self.read_more(Get::new(partition, quorum, epoch), first, key, touch, wait, take)
    }

    /// The rest of a read whose first owner's answer was not all, and the count of it.
    #[inline]
    pub(super) fn read_more(
        &self,
        mut get: Get,
        first: Option<(NodeId, Read)>,
        key: Key<'_>,
        touch: bool,
        wait: Wait,
        take: Take<'_>,
    ) -> Answer {
        if let Some((owner, read)) = first {
            if let Read { known: Known::Live(version), synced: true } = read
                && get.wants_one()
                && !self.has_ended(version.lifetime)
            {
                if touch && self.sample.uses(key.hash()) {
                    self.sample_hit(key);
                }
                return Answer::Hit(version.timestamp);
            }
            get.went_on_to(1);
            self.hear(&mut get, owner, read, touch);
        }
        let answer = self.read_on(&mut get, key, touch, wait, take);
        if touch {
            self.count_read(&get, key, answer);
        }
        answer
    }

    /// A read that asked more than one owner, or found nothing, is over.
    #[inline]
    fn count_read(&self, get: &Get, key: Key<'_>, answer: Answer) {
        let partition = get.partition();
        let asked_first = || self.routes.owner(partition, 0).map_or(0, |owner| owner.node);
        match answer {
            Answer::Hit(_) => {
                self.counters.hit(get.holder());
                self.sample_if_hit(key);
            }
            Answer::Miss if counters::ON => {
                let why = self.why_missed(get, key, partition);
                self.counters.miss(asked_first(), why);
                if self.sample.watches(key.hash()) {
                    let of_size = matches!(why, Miss::NeverSeen | Miss::Evicted | Miss::Superseded);
                    self.sample.tell(key.hash(), if of_size { Use::Miss } else { Use::Gone }, || 0);
                }
            }
            Answer::TooFew { .. } => self.counters.unanswered(asked_first()),
            Answer::Miss | Answer::Busy | Answer::Closed => {}
        }
    }

    #[inline]
    pub(super) fn sample_if_hit(&self, key: Key<'_>) {
        if self.sample.uses(key.hash()) {
            self.sample_hit(key);
        }
    }

    /// Tells the sample of a hit. What the entry takes is asked for once more, if it has to be known.
    #[cold]
    fn sample_hit(&self, key: Key<'_>) {
        let bytes = || {
            let mut bytes = 0;
            let partition = key.hash().partition(self.routes.partitions());
            let serving = (0..).map_while(|at| self.routes.serving(partition, at));
            for owner in self.routes.owners(partition).chain(serving) {
                let take = &mut |_: Read, lent: Lent<'_>| bytes = lent.bytes();
                if matches!(self.runtime.read(owner, key, false, Wait::Never, take), Ok(read) if read.known.is_live()) {
                    break;
                }
            }
            entry_bytes(key.bytes().len(), bytes)
        };
        self.sample.tell(key.hash(), Use::Hit, bytes);
    }

    /// Why a read found nothing.
    #[inline]
    pub(super) fn why_missed(&self, get: &Get, key: Key<'_>, partition: PartitionId) -> Miss {
        get.why_missed(|| self.runtime.now_ms()).unwrap_or_else(|| {
            if self.routes.is_orphaned(partition) {
                return Miss::OwnerDown;
            }
            match self.counters.forgotten().why(key.hash()) {
                Some(Gone::Evicted) => Miss::Evicted,
                Some(Gone::Expired) => Miss::Expired,
                Some(Gone::Removed) => Miss::Removed,
                None => Miss::NeverSeen,
            }
        })
    }

    /// The rest of a read, after what the first owner said.
    #[inline]
    fn read_on(&self, get: &mut Get, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Answer {
        match self.ask_owners(get, key, touch, wait, take) {
            Some(answer) => answer,
            None if wait == Wait::Never => Answer::Busy,
            None => self.read_again(get, key, touch, take),
        }
    }

    /// Asks owners until enough was heard; nothing when nodes came or went meanwhile.
    #[inline]
    pub(super) fn ask_owners(
        &self,
        get: &mut Get,
        key: Key<'_>,
        touch: bool,
        wait: Wait,
        take: Take<'_>,
    ) -> Option<Answer> {
        while let Some(owner) = get.next(&self.routes) {
            let better = &mut |read: Read, lent: Lent<'_>| {
                let improves = if read.known.ends() { get.improves(self.as_of_now(read)) } else { get.improves(read) };
                if improves {
                    take(read, lent);
                }
            };
            match self.runtime.read(owner, key, touch, wait, better) {
                Ok(read) => self.hear(get, owner.node, read, touch),
                Err(Unread::Busy) => return Some(Answer::Busy),
                Err(Unread::Down) => {}
            }
        }
        get.answer(&self.routes)
    }

    /// What an owner said, as of now.
    #[inline]
    fn hear(&self, get: &mut Get, from: NodeId, read: Read, touch: bool) {
        if touch && read.known.is_live() {
            self.counters.not_yet_a_hit(from);
        }
        if read.known.ends() { get.hear(from, self.as_of_now(read)) } else { get.hear(from, read) }
    }

    /// What an entry that ends comes to now.
    #[cold]
    fn as_of_now(&self, read: Read) -> Read {
        read.at(self.runtime.now_ms())
    }

    /// Begins a read again, and again, because nodes come and go.
    #[cold]
    pub(super) fn read_again(&self, get: &mut Get, key: Key<'_>, touch: bool, take: Take<'_>) -> Answer {
        let (mut restarts, mut quiet) = (0, None);
        loop {
            self.be_patient(restarts, &mut quiet);
            restarts += 1;
            if self.is_closed() {
                return Answer::Closed;
            }
            if let Some(answer) = self.ask_owners(get, key, touch, Wait::ForTurn, take) {
                return answer;
            }
        }
    }

    /// Begins a read whose messages the caller carries: [`Get::next`] says whom to ask, [`Get::answer`] how it ended.
    pub fn begin_read(&self, key: Key<'_>, quorum: Option<Quorum>) -> Get {
        let partition = key.hash().partition(self.routes.partitions());
        Get::new(partition, quorum.unwrap_or(self.config.reads()), self.routes.epoch())
    }

    /// What one node knows of a key, as if connected to it. It does not count as a use.
    ///
    /// # Errors
    /// [`Error::NodeDown`] and [`Error::Closed`].
    pub fn read_at(&self, node: NodeId, key: Key<'_>, take: Take<'_>) -> Result<Option<Timestamp>, Error> {
        self.check_open()?;
        let view = self.view();
        self.check_live(&view, node)?;
        match self.runtime.read(view.address(node), key, false, Wait::ForTurn, take) {
            Ok(read) => Ok(match read.at(self.runtime.now_ms()).known {
                Known::Live(version) => Some(version.timestamp),
                Known::Marker(_) | Known::Nothing => None,
            }),
            Err(_) => Err(Error::NodeDown { node }),
        }
    }
}
