//! ```text
//!   client ---(read)---------> owner          Read
//!   client ---Write----------> coordinator    Written       the write has a dot
//!   coordinator ---Update----> other owners   Seen          they have seen the dot
//!   client ---Settle---------> coordinator                  every owner has seen it: it is stable
//!
//!   itself ---Look-----------> owner          Looked        what it has to say in a round of gossip
//!   owner  ---Touch----------> owner                        what was read here lately
//!   owner  ---Compare--------> owner          Compared      16 bytes each: are our clocks the same?
//!   itself ---Agreed---------> owner                        they are, if nothing was seen since
//!   itself ---Begin----------> owner          Begun         a pull: its ticket, and what was seen so far
//!   owner  ---Pull-----------> owner          Delta         what I have not seen, and your clock
//!   itself ---Apply----------> owner          Applied       the answer
//!   itself ---Brief----------> owner          Briefs        what is to be audited: one number for what it holds
//!   owner  ---CompareBriefs--> owner          BriefsCompared  is it the same there?
//!   itself ---List-----------> owner          Listed        names of keys and versions of what it holds
//!   owner  ---Audit----------> owner          Older         what of it is older there
//!   itself ---Mend-----------> owner          Mended        the same, for the one that asked
//!   itself ---Audited--------> owner                        so far it was audited
//!   client ---Fix------------> owner                        another owner knows something newer than this write
//!
//!   itself ---Reclaim--------> node                         what has ended gives back its space
//!   cluster ---Meet----------> node                         which lives are over
//!   cluster ---Hold, Release-> node                         you hold this partition with these peers; you no longer do
//!   cluster ---Learn---------> node           Learned       values may need these dictionaries, and no others
//! ```
//! What nodes say to each other and what they answer. Every message is addressed to one life of a node and names the life
//! it comes from, so that nothing said to or by an earlier life is taken for the present one's.

use std::borrow::Cow;

use crate::clock::{Clock, Dot, Incarnation};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::entry::{Form, Held, Item, Items, Key, Value};
use crate::hash::{KeyHash, KeyPrint};
use crate::ids::{NodeId, PartitionId};
use crate::lifetime::{LIFETIME_BYTES, Lifetime};
use crate::node_set::NodeSet;
use crate::shared::SharedBytes;
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
    #[inline(always)]
    pub fn put(key: Key<'a>, timestamp: Timestamp, value: Value<'a>) -> Self {
        Self::put_living(key, timestamp, value, Lifetime::NONE)
    }

    /// A put of a value that ends.
    #[inline(always)]
    pub fn put_living(key: Key<'a>, timestamp: Timestamp, value: Value<'a>, lifetime: Lifetime) -> Self {
        Self { key, version: Version::put(timestamp, value.digest()).living(lifetime), value: Some(value) }
    }

    /// A remove.
    #[inline]
    pub fn remove(key: Key<'a>, timestamp: Timestamp) -> Self {
        Self { key, version: Version::remove(timestamp), value: None }
    }

    /// Bytes of the value and of what is kept beside it.
    #[inline(always)]
    pub fn value_bytes(&self) -> usize {
        let lifetime = if self.version.lifetime.is_none() { 0 } else { LIFETIME_BYTES };
        self.value.map_or(0, |value| value.bytes().len()) + lifetime
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
        /// What was read lately at the coordinator.
        used: Used,
        /// The last change of the membership that the coordinator knew of when it accepted the write, or had it still.
        epoch: u64,
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
        partitions: Cow<'a, [PartitionId]>,
        /// The fingerprint of the asker's clocks of them.
        fingerprint: u128,
        /// The last change of the membership that the asker knew of then.
        epoch: u64,
    },
    /// What have you seen of these partitions? Asked of a node by itself, as a round of gossip begins.
    Look {
        /// The partitions it shares with its partner.
        partitions: Cow<'a, [PartitionId]>,
    },
    /// What was read lately at a partner, partition by partition.
    Touch {
        /// The keys.
        used: Cow<'a, [(PartitionId, Used)]>,
    },
    /// A partner's clocks of these partitions have these fingerprints. Where yours still have, it has seen what you have, and
    /// you are as synced as it is.
    Agreed {
        /// The partner.
        with: Address,
        /// The partitions that both hold.
        partitions: Cow<'a, [PartitionId]>,
        /// The fingerprints that both had.
        prints: Vec<u64>,
        /// The last change of the membership that the partner knew of then.
        epoch: u64,
    },
    /// Begin a pull: the next answer that counts is the one to it.
    Begin {
        /// Of which partition.
        partition: PartitionId,
    },
    /// The answer to a pull, for the node that asked.
    Apply {
        /// Of which partition.
        partition: PartitionId,
        /// The answer.
        delta: Cow<'a, Box<Delta>>,
    },
    /// Which of these partitions do you have to audit with this partner, and what have you seen and do you hold of them?
    Brief {
        /// The partner.
        with: NodeId,
        /// The partitions that both hold.
        partitions: Cow<'a, [PartitionId]>,
    },
    /// This is what I have seen and hold. Are they the same with you?
    CompareBriefs {
        /// Who asks.
        from: NodeId,
        /// Partition by partition.
        briefs: Cow<'a, [Brief]>,
    },
    /// List a part of what you hold of a partition.
    List {
        /// Which.
        partition: PartitionId,
        /// Which part.
        part: u32,
    },
    /// This is what I hold. What do you hold that is newer or older?
    Audit {
        /// A part of it.
        listing: Cow<'a, Listing>,
    },
    /// A partner has answered a listing: this is older there.
    Mend {
        /// In which partition.
        partition: PartitionId,
        /// What the partner answered.
        older: Cow<'a, Older>,
    },
    /// A partner and you have audited these partitions.
    Audited {
        /// The partner.
        with: NodeId,
        /// Which, and the last reason there was when it began.
        done: Cow<'a, [(PartitionId, u64)]>,
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
        clock: Cow<'a, Clock>,
        /// The last change of the membership that the asker knew of then.
        epoch: u64,
        /// Send items after this hash of a key: where the chunk before ended. Keys of one hash are never in two chunks.
        after: Option<u64>,
        /// End the chunk when it is longer than so many bytes.
        chunk_bytes: usize,
    },
    /// Something newer than what a client has just written: an owner that was told of the write knew it.
    Fix {
        /// The newer items.
        items: Cow<'a, Items>,
    },
    /// Entries that have ended give back their space, some of them. Asked of a node by itself, as a round of gossip begins.
    Reclaim,
    /// These are the present lives of nodes; of one that is down or gone, the least that a later one can be.
    Meet {
        /// A life for each node that ever was.
        lives: &'a [Address],
        /// The number of this change of the membership.
        epoch: u64,
    },
    /// You hold this partition from now on, together with these peers.
    Hold {
        /// Which partition.
        partition: PartitionId,
        /// Every other node that holds it: owners, and those that have not handed it over or cannot be reached.
        peers: &'a [Address],
        /// What you have of it may be incomplete: pull before you speak with authority.
        doubt: bool,
        /// You own it, or serve it on until the owners have pulled: you are told of every write. Who is not speaks with
        /// authority no more.
        serves: bool,
    },
    /// Values may need these dictionaries: keep them, and no others.
    Learn {
        /// All that there are.
        dictionaries: &'a [Dictionary],
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
    /// To [`Request::Compare`].
    Compared {
        /// Nothing when the clocks are the same and the node is synced in all of them, else for each partition a
        /// fingerprint, and whether it is synced.
        prints: Option<Vec<(u64, bool)>>,
        /// The last change of the membership that the node knows of.
        epoch: u64,
    },
    /// To [`Request::Look`].
    Looked {
        /// For each partition a fingerprint of the clock, and whether the node is synced in it.
        clocks: Vec<(u64, bool)>,
        /// What was read here lately.
        used: Vec<(PartitionId, Used)>,
        /// The last change of the membership that the node knows of.
        epoch: u64,
    },
    /// To [`Request::Begin`]: nothing when the partition is not held.
    Begun(Option<Begun>),
    /// To [`Request::Pull`].
    Delta(Box<Delta>),
    /// To [`Request::Brief`]: nothing when nothing is due; else briefs, and the partition to go on with.
    Briefs(Option<(Vec<Brief>, Option<PartitionId>)>),
    /// To [`Request::CompareBriefs`], one for each.
    BriefsCompared(Vec<Compared>),
    /// To [`Request::List`]: nothing when the partition is not held.
    Listed(Option<Box<Listing>>),
    /// To [`Request::Audit`].
    Older(Older),
    /// To [`Request::Mend`]: false when something is to be audited again.
    Mended(bool),
    /// To [`Request::Apply`]: false for an answer that does not count: to an earlier life, to another pull, or overtaken by
    /// what was forgotten since.
    Applied(bool),
    /// To [`Request::Release`]: whether the partition was given up.
    Released(bool),
    /// To [`Request::Learn`].
    Learned {
        /// Those that the node keeps: there is room for them.
        kept: Vec<DictionaryId>,
    },
    /// To [`Request::Settle`], [`Request::Touch`], [`Request::Agreed`], [`Request::Audited`], [`Request::Fix`],
    /// [`Request::Reclaim`], [`Request::Meet`] and [`Request::Hold`].
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

impl Read {
    /// What it comes to at this time: an entry that has ended is no value any more, but it is known all the same, and
    /// nothing older is an answer.
    #[inline]
    #[must_use]
    pub const fn at(self, now_ms: u64) -> Self {
        Self { known: self.known.at(now_ms), ..self }
    }
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

    /// The newest version, if any is known.
    #[inline]
    pub fn version(self) -> Option<Version> {
        self.rank().0
    }

    /// What it comes to at this time: see [`Read::at`].
    #[inline]
    #[must_use]
    pub const fn at(self, now_ms: u64) -> Self {
        match self {
            Self::Live(version) if version.lifetime.has_ended(now_ms) => Self::Marker(version),
            known => known,
        }
    }

    /// Whether there is a value that ends. What does not is the same at any time, and nobody need look at a clock.
    #[inline]
    pub const fn ends(&self) -> bool {
        matches!(self, Self::Live(version) if version.lifetime.ends())
    }

    /// Whether the value is here.
    #[inline]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live(_))
    }
}

/// Keys of one partition that were read lately, the latest last, each by half of its hash: how recency travels. Few at a
/// time: what is read often comes up again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    hashes: [u32; Used::MAX],
    len: u8,
    next: u8,
}

impl Used {
    /// So many at most; of more, the latest. Four more would cost 5 % of a workload of 19 reads to a write.
    pub const MAX: usize = 4;

    /// None.
    pub const NONE: Self = Self { hashes: [0; Self::MAX], len: 0, next: 0 };

    /// A key was read.
    #[inline]
    pub const fn push(&mut self, hash: KeyHash) {
        self.hashes[self.next as usize % Self::MAX] = hash.half();
        self.next = (self.next + 1) % Self::MAX as u8;
        self.len |= 1 << self.next;
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Halves of hashes, the latest last.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let place = move |step: usize| (self.next as usize + step) % Self::MAX;
        let is_there = move |&at: &usize| self.len >> ((at + 1) % Self::MAX) & 1 == 1;
        (0..Self::MAX).map(place).filter(is_there).map(|at| self.hashes[at])
    }
}

/// What a coordinator answers to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Accepted under this dot; `stable_upto` is passed on with the updates.
    Accepted {
        /// The name of the write.
        dot: Dot,
        /// Every dot of this life up to this one is stable.
        stable_upto: u64,
        /// What was known of the key before.
        before: Known,
        /// What was read here lately: passed on with the updates.
        used: Used,
        /// The last change of the membership that this node knows of: passed on with the updates.
        epoch: u64,
    },
    /// The very same write is in place already, under this dot.
    Same {
        /// The name under which it was accepted.
        dot: Dot,
        /// Every dot of this life up to this one is stable.
        stable_upto: u64,
        /// The last change of the membership that this node knows of.
        epoch: u64,
    },
    /// A newer version is known; nothing changed.
    Superseded,
    /// A put of the same time is known that counts as decided later, though this one may win over it
    /// ([`Version::may_outlive`]); nothing changed. A write that is later still has to say so.
    Outlived(Version),
    /// Not synced, or something newer may have been lost here: ask another owner first.
    Unsynced,
    /// This node does not hold the partition (any more).
    NotHeld,
}

/// A pull as it begins.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Which pull it is.
    pub ticket: u64,
    /// What the asker has seen.
    pub clock: Clock,
    /// The last change of the membership that it knows of.
    pub epoch: u64,
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
    /// The last change of the membership that the answerer knew of.
    pub epoch: u64,
    /// Markers that the answerer had to drop, if the asker has not seen them all.
    pub lost: Option<Loss>,
}

/// What a node has seen and holds of a partition, as one number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Which.
    pub partition: PartitionId,
    /// The last reason there was to audit it.
    pub due: u64,
    /// The fingerprint of its clock.
    pub seen: u64,
    /// A fingerprint of the keys and versions that it holds.
    pub held: u64,
}

impl Brief {
    /// Bytes it takes in a message.
    pub const MESSAGE_BYTES: usize = 2 + 8 + 8;
}

/// How a brief compares with what another node has seen and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Both have seen the same and hold the same.
    Same,
    /// Both have seen the same, and do not hold the same.
    Differ,
    /// They have not seen the same, or the partition is not held.
    NotNow,
}

/// The name of a key in a listing: its hash and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyName(pub KeyHash, pub u64);

/// A part of what a node holds of a partition, to be audited.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Which partition.
    pub partition: PartitionId,
    /// What the node has seen of it.
    pub clock: Clock,
    /// Names of keys, and versions, of entries and markers.
    pub held: Vec<(KeyName, Version)>,
    /// No part is left after this.
    pub is_last: bool,
}

impl Listing {
    /// Bytes it takes in a message: 32 for each key, and its lifetime if it has one.
    pub fn message_bytes(&self) -> usize {
        let living = self.held.iter().filter(|(_, version)| !version.lifetime.is_none()).count();
        2 + self.clock.message_bytes() + 32 * self.held.len() + LIFETIME_BYTES * living
    }
}

/// What an answerer holds in an older version than was listed.
#[derive(Clone, Debug, Default)]
pub struct Older {
    /// Which keys.
    pub keys: Vec<KeyName>,
    /// What the answerer has seen, if there are any.
    pub clock: Clock,
    /// Something newer is there that the asker has not seen yet: it is to be audited again.
    pub again: bool,
}

/// What came with a delta of a node that had to drop markers.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What was dropped.
    pub lost: Lost,
    /// The live entries the answerer vouches for: key and version.
    pub confirmed: Vec<(KeyPrint, Version)>,
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

impl Lent<'_> {
    /// Bytes of the value, as they are stored.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Now(value) => value.bytes().len(),
            Self::Share(share) => share.value().bytes().len(),
        }
    }

    /// The value for later, when the node is not held any more.
    pub fn keep(self) -> Kept {
        match self {
            Self::Now(value) => Kept::Copy(value.bytes().to_vec(), value.form()),
            Self::Share(share) => Kept::Share(share),
        }
    }
}

/// A value that was lent, after the node went on.
#[derive(Clone, Debug)]
pub enum Kept {
    /// Its bytes as stored.
    Copy(Vec<u8>, Form),
    /// A share of a large value.
    Share(Share),
}

impl Kept {
    /// The value.
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Copy(bytes, form) => Value::stored(bytes, *form),
            Self::Share(share) => share.value(),
        }
    }
}

/// A share of a large value's memory.
#[derive(Clone)]
pub struct Share {
    bytes: SharedBytes,
    start: usize,
    form: Form,
}

impl Share {
    pub(crate) fn new(bytes: SharedBytes, start: usize, form: Form) -> Self {
        Self { bytes, start, form }
    }

    /// The value.
    pub fn value(&self) -> Value<'_> {
        Value::stored(&self.bytes.bytes()[self.start..], self.form)
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Share").field(&self.value()).finish()
    }
}
