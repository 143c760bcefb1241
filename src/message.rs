//! ```text
//!   client ---(read)---------> owner          Read
//!   client ---Write----------> coordinator    Written       the write has a dot
//!   coordinator ---Update----> other owners   Seen          they have seen the dot
//!   client ---Settle---------> coordinator                  every owner has seen it: it is stable
//!
//!   owner  ---Compare--------> owner          Compared      16 bytes each: are our clocks the same?
//!   owner  ---Pull-----------> owner          Delta         what I have not seen, and your clock
//!   owner  ---Fix------------> owner                        you gave me something older than this
//!
//!   cluster ---Hold, Release-> node                         you hold this partition with these peers; you no longer do
//! ```
//! What nodes say to each other and what they answer. Every message is addressed to one life of a node and names the life
//! it comes from, so that nothing said to or by an earlier life is taken for the present one's.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::{Clock, Dot, Incarnation};
use crate::entry::{Held, Item, Items, Key, NodeId, PartitionId, Value};
use crate::node_set::NodeSet;
use crate::version::{Timestamp, Version};

/// One life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Which node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A write as the user gave it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Which key.
    pub key: Key<'a>,
    /// The version of the write.
    pub version: Version,
    /// The value of a put, nothing for a remove.
    pub value: Option<Value<'a>>,
}

impl<'a> Write<'a> {
    /// A put. Its digest is computed here, once for all owners.
    #[inline]
    pub fn put(key: Key<'a>, timestamp: Timestamp, value: Value<'a>) -> Self {
        Self { key, version: Version::put(timestamp, value.digest()), value: Some(value) }
    }

    /// A remove.
    #[inline]
    pub fn remove(key: Key<'a>, timestamp: Timestamp) -> Self {
        Self { key, version: Version::remove(timestamp), value: None }
    }

    /// What travels to the other owners once the write has its dot.
    #[inline]
    pub fn item(&self, dot: Dot) -> Item<'a> {
        let held = self.value.map_or(Held::Removed, Held::Live);
        Item { key: self.key, version: self.version, dot, held }
    }
}

/// What is asked of a node.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Accept this write. An owner that is not synced refuses unless `force` is set, which says that none is.
    Write {
        /// The write.
        write: Write<'a>,
        /// Accept it even if not synced.
        force: bool,
    },
    /// A write that a coordinator accepted.
    Update {
        /// Whose life accepted it.
        from: Address,
        /// The write under its dot.
        item: Item<'a>,
        /// Every dot of that life up to this one is stable.
        stable_upto: u64,
    },
    /// Every owner has seen this dot of yours.
    Settle {
        /// In which partition.
        partition: PartitionId,
        /// The dot.
        dot: Dot,
        /// Who acknowledged it.
        seen_by: NodeSet,
    },
    /// Are our clocks of these partitions the same?
    Compare {
        /// Who asks.
        from: Address,
        /// The partitions that both hold.
        partitions: &'a [PartitionId],
        /// The fingerprint of the asker's clocks of them.
        fingerprint: u128,
    },
    /// Send what this clock has not seen.
    Pull {
        /// Who asks.
        from: Address,
        /// In which partition.
        partition: PartitionId,
        /// Which pull this is: the answer must name it.
        ticket: u64,
        /// What the asker has seen.
        clock: &'a Clock,
        /// Send items after this hash of a key: where the chunk before ended.
        after: Option<u64>,
    },
    /// Something newer than what you sent.
    Fix {
        /// The newer items.
        items: Cow<'a, Items>,
    },
    /// You hold this partition from now on, together with these peers.
    Hold {
        /// Which partition.
        partition: PartitionId,
        /// Every other node that holds it: owners, and those that have not handed it over or cannot be reached.
        peers: &'a [Address],
        /// What you have of it may be incomplete: pull before you speak with authority.
        doubt: bool,
    },
    /// Every owner has what you have of this partition: forget it.
    Release {
        /// Which partition.
        partition: PartitionId,
        /// The clock that they all cover. A node that has seen more since keeps the partition.
        clock: Cow<'a, Clock>,
    },
}

/// What a node answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To [`Request::Write`].
    Written(Written),
    /// To [`Request::Update`]: the dot is in this node's clock.
    Seen {
        /// What the node knew of the key before.
        before: Known,
        /// All that the node has seen from others than this coordinator is stable.
        quiet: bool,
        /// What the node knows that is newer.
        newer: Option<Box<Items>>,
    },
    /// To [`Request::Update`]: the sender's life is not one of this partition's peers here; nothing changed.
    Unknown,
    /// To [`Request::Compare`]: nothing when the clocks are the same, else a fingerprint for each partition.
    Compared(Option<Vec<u64>>),
    /// To [`Request::Pull`].
    Delta(Box<Delta>),
    /// To [`Request::Release`]: whether the partition was given up.
    Released(bool),
    /// To [`Request::Settle`], [`Request::Fix`] and [`Request::Hold`].
    Done,
}

/// What a node knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The newest version known, and whether its value is here.
    pub known: Known,
    /// Whether the node has pulled what it may have missed: only then does it speak with authority.
    pub synced: bool,
}

/// The newest that a node knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The value is here.
    Live(Version),
    /// The version was evicted or is a remove.
    Marker(Version),
    /// Nothing at all.
    Nothing,
}

impl Known {
    /// What counts more: the newer, and at the same version one that has the value.
    #[inline]
    pub fn rank(self) -> (Option<Version>, bool) {
        match self {
            Self::Live(version) => (Some(version), true),
            Self::Marker(version) => (Some(version), false),
            Self::Nothing => (None, false),
        }
    }

    /// Whether the value is here.
    #[inline]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live(_))
    }
}

/// What a coordinator answers to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Accepted under this dot; `stable_upto` is passed on with the updates.
    Accepted {
        /// The name of the write.
        dot: Dot,
        /// Every dot of this life up to this one is stable.
        stable_upto: u64,
        /// What was known of the key before.
        before: Known,
    },
    /// The very same write is in place already, under this dot.
    Same {
        /// The name under which it was accepted.
        dot: Dot,
        /// Every dot of this life up to this one is stable.
        stable_upto: u64,
    },
    /// A newer version is known; nothing changed.
    Superseded,
    /// Not synced: ask another owner first.
    Unsynced,
    /// This node does not hold the partition (any more).
    NotHeld,
}

/// What the asker of a pull has not seen, and what it may conclude from it.
#[derive(Clone, Debug)]
pub struct Delta {
    /// For which life it is: an answer to an earlier life must not be applied.
    pub to: Address,
    /// Who answers.
    pub from: Address,
    /// Which pull it answers.
    pub ticket: u64,
    /// Entries and markers with dots that the asker lacked.
    pub items: Items,
    /// Where to go on, when this was not all.
    pub next: Option<u64>,
    /// What the answerer has seen. To be joined only when the last chunk is in.
    pub clock: Clock,
    /// What every owner has seen, as far as the answerer knows: nobody holds anything older than these writes.
    pub stable: Clock,
    /// Whether the answerer is synced.
    pub synced: bool,
    /// Markers that the answerer had to drop, if the asker has not seen them all.
    pub lost: Option<Loss>,
}

/// What came with a delta of a node that had to drop markers.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What was dropped.
    pub lost: Lost,
    /// The live entries the answerer vouches for: hash of the key and version.
    pub confirmed: Vec<(u64, Version)>,
}

/// Markers dropped before every owner had seen them: which, and the highest timestamp among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The dots of the dropped markers.
    pub dots: Clock,
    /// No dropped marker had a higher timestamp.
    pub floor: Timestamp,
}

/// A value on its way out of a node, while the node still holds it.
#[derive(Clone)]
pub enum Lent<'a> {
    /// To be copied or decoded at once: the node waits.
    Now(Value<'a>),
    /// A share of a large value, to be copied when the node is no longer held.
    Share(Share),
}

/// A share of a large value's memory.
#[derive(Clone, Debug)]
pub struct Share {
    bytes: Arc<[u8]>,
    start: usize,
    unframed: bool,
}

impl Share {
    pub(crate) fn new(bytes: Arc<[u8]>, start: usize, unframed: bool) -> Self {
        Self { bytes, start, unframed }
    }

    /// The value.
    pub fn value(&self) -> Value<'_> {
        Value::stored(&self.bytes[self.start..], self.unframed)
    }
}
