//! ```text
//!   key  ->  partition  ->  its owners in the order in which they are asked, those that serve on, and those that are down
//!                             live? synced? what does it know of the key?      ->  what a get answers, and why
//! ```
//! Why a key is found, or not.
//!
//! Promise: nothing changes, and nothing counts as a use.

use std::time::Duration;

use super::Cluster;
use super::get::Answer;
use super::view::State;
use crate::counters::Miss;
use crate::entry::Key;
use crate::error::Error;
use crate::hybrid_clock;
use crate::ids::{NodeId, PartitionId};
use crate::message::Known;
use crate::node::inventory::Described;
use crate::runtime::{Runtime, Wait};
use crate::version::{Kind, Timestamp};

/// Nodes are told the time every so many milliseconds, at least: to more than that it is not known when something was used.
const TOLD_MS: u64 = 100;

/// What a read of a key would answer, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The slice of the hash space that the key is in.
    pub partition: PartitionId,
    /// Who owns it, in the order in which they are asked; then those that serve it on until the owners have pulled; after them
    /// the nodes that it belongs on and that are down.
    pub owners: Vec<OwnerReport>,
    /// What a read answers now.
    pub answer: Result<Option<Timestamp>, Error>,
    /// Why it finds nothing, if it does not.
    pub miss: Option<Miss>,
}

/// What one owner knows of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnerReport {
    /// Which node.
    pub node: NodeId,
    /// How it is.
    pub state: State,
    /// What it says; nothing when it does not answer.
    pub says: Option<Described>,
    /// What it knows, as of now: what has ended is a marker.
    pub known: Known,
    /// When what it knows was written, by its timestamp: only if that is one of the cache's own clock.
    pub age: Option<Duration>,
    /// How long its value goes on living; nothing when it does not end.
    pub left: Option<Duration>,
    /// How long ago its value was last used there, to a tenth of a second or a part in ten thousand; what repair brought,
    /// since it came.
    pub idle: Option<Duration>,
}

impl Explanation {
    /// The name of the reason why a read finds nothing; `quorum` when too few owners answer, nothing for a hit.
    pub fn reason(&self) -> Option<&'static str> {
        match (&self.answer, self.miss) {
            (Err(_), _) => Some("quorum"),
            (Ok(_), miss) => miss.map(Miss::name),
        }
    }

    /// What a read answers and why, in words.
    pub fn sentence(&self) -> String {
        let why = match (&self.answer, self.miss) {
            (Ok(Some(timestamp)), _) => return format!("a get finds the value of timestamp {}", timestamp.get()),
            (Err(_), _) => return "a get raises QuorumError: too few owners answer".to_owned(),
            (Ok(None), Some(Miss::Removed)) => "the key was removed",
            (Ok(None), Some(Miss::Expired)) => "its ttl is over",
            (Ok(None), Some(Miss::Evicted)) => "it fell off the end, as what was used least recently",
            (Ok(None), Some(Miss::Superseded)) => {
                "something newer is known, and only older copies are left, which are not served"
            }
            (Ok(None), Some(Miss::OwnerDown)) => "the nodes that it belongs on are down",
            (Ok(None), Some(Miss::NotSynced)) => "an owner has yet to pull what it missed",
            (Ok(None), Some(Miss::NeverSeen) | None) => {
                "no live node knows of it: it was never put, or forgotten long ago"
            }
        };
        format!("a get misses: {why}")
    }
}

impl OwnerReport {
    /// The timestamp of what it knows.
    pub fn timestamp(&self) -> Option<u64> {
        self.known.rank().0.map(|version| version.timestamp.get())
    }

    /// Bytes of its value, as they are kept, if it has one.
    pub fn value_bytes(&self) -> Option<usize> {
        self.says.filter(|_| self.known.is_live()).map(|says| says.value_bytes)
    }

    /// Bytes that what it knows takes in the node.
    pub fn bytes(&self) -> Option<usize> {
        self.says.filter(|_| self.known.rank().0.is_some()).map(|says| says.bytes)
    }

    /// What it knows, in a word or two.
    pub fn knows(&self) -> &'static str {
        match (self.says.is_some(), self.known, self.known.rank().0) {
            (false, ..) => "no answer",
            (true, Known::Live(_), _) => "live",
            (true, Known::Marker(_), Some(version)) if version.kind() == Kind::Remove => "removed",
            (true, Known::Marker(_), Some(version)) if version.lifetime.ends() => "expired",
            (true, Known::Marker(_), _) => "evicted",
            (true, Known::Nothing, _) => "nothing",
        }
    }
}

impl<R: Runtime> Cluster<R> {
    /// What each owner knows of a key, what a read would answer, and why. Not a use.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn explain(&self, key: Key<'_>) -> Result<Explanation, Error> {
        self.check_open()?;
        let view = self.view();
        let partition = key.hash().partition(view.partitions());
        let mut nodes: Vec<NodeId> = view.asked(partition).collect();
        nodes.extend(view.homes(partition).filter(|home| !view.live().contains(*home)));
        let now_ms = self.runtime.now_ms();
        let report = |node: NodeId| {
            let member = view.member(node);
            let (state, mut says) = (member.map_or(State::Failed, |member| member.state), None);
            if state == State::Live {
                // One that goes down this moment says nothing.
                let _ = self.runtime.look(view.address(node), &mut |node| says = Some(node.describe(key)));
            }
            let known = says.map_or(Known::Nothing, |says: Described| says.known.at(now_ms));
            let version = known.rank().0;
            let left = version.filter(|_| known.is_live()).and_then(|version| version.lifetime.left(now_ms));
            let age = version.and_then(|version| age(version.timestamp));
            let last_use_ms = says.filter(|_| known.is_live()).and_then(|says| says.last_use_ms);
            let idle =
                last_use_ms.map(|used_ms| Duration::from_millis(now_ms.saturating_sub(used_ms) / TOLD_MS * TOLD_MS));
            OwnerReport { node, state, says, known, age, left, idle }
        };
        let owners = nodes.into_iter().map(report).collect();
        let mut get = self.begin_read(key, None);
        let answer = match self.ask_owners(&mut get, key, false, Wait::ForTurn, &mut |_, _| ()) {
            Some(answer) => answer,
            None => self.read_again(&mut get, key, false, &mut |_, _| ()),
        };
        let miss = (answer == Answer::Miss).then(|| self.why_missed(&get, key, partition));
        Ok(Explanation { partition, owners, answer: answer.found(), miss })
    }
}

/// How long ago something was written, if its timestamp can be one of the cache's own clock: microseconds of this century.
pub fn age(timestamp: Timestamp) -> Option<Duration> {
    const CENTURY_US: u64 = 946_684_800_000_000;
    let (then, now) = (timestamp.get(), hybrid_clock::reading_us());
    (CENTURY_US..=now).contains(&then).then(|| Duration::from_micros(now - then))
}
