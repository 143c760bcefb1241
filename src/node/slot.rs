//! ```text
//!   48 bytes:  timestamp | digest, last use | dot | payload: key, value, label | newer, older
//!                          48 bits  16 bits                              |       neighbours in its list
//!                                                            partition, state, form of the value
//! ```
//! What is kept of one key: an entry or a marker, where it is in the order of use, and whose.
//!
//! Promise: what was written is read back, and a slot is never longer than 48 bytes, or fewer entries fit.

use super::payload::{Parts, Payload};
use crate::entry::{Form, Held, Key, Value};
use crate::ids::PartitionId;
use crate::lifetime::{LIFETIME_BYTES, Lifetime};
use crate::message::Share;
use crate::version::{DIGEST_BITS, Timestamp, Version};

/// Bytes of a slot: timestamp, digest and last use, dot, payload (16) and two links.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();
const _: () = assert!(SLOT_BYTES == 48);

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// The number of a slot. Valid until the next `take`.
pub(super) type At = u32;

/// A use takes what a digest leaves of 64 bits.
const USE_BITS: u32 = u64::BITS - DIGEST_BITS;
const _: () = assert!(USE_BITS == u16::BITS);

/// What a slot holds, and so in which list it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Removed,
    Evicted,
}

/// A dot as a slot keeps it: the place of its life in the partition's clock (16 bits) and its counter (48 bits).
/// 2^48 writes of one partition in one life of a node take nine years at a million a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShortDot(pub(super) u64);

/// An entry or a marker.
pub(super) struct Slot {
    timestamp: u64,
    /// The digest of the version above the time of the last use, as the page counts it.
    digest_and_use: u64,
    dot: ShortDot,
    payload: Payload,
    /// Its neighbours in its list.
    pub(super) newer: u32,
    pub(super) older: u32,
}

/// What is written to a slot.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: Key<'a>,
    pub(super) version: Version,
    pub(super) dot: ShortDot,
    pub(super) held: Held<'a>,
}

impl Slot {
    /// Of nothing.
    pub(super) const VACANT: Self =
        Self { timestamp: 0, digest_and_use: 0, dot: ShortDot(0), payload: Payload::EMPTY, newer: NONE, older: NONE };

    /// An entry or marker that is in no list yet, with this payload.
    #[inline]
    pub(super) const fn new(entry: &Entry<'_>, payload: Payload) -> Self {
        Self {
            timestamp: entry.version.timestamp.get(),
            digest_and_use: entry.version.digest << USE_BITS,
            dot: entry.dot,
            payload,
            newer: NONE,
            older: NONE,
        }
    }

    /// Another version in place of this one; its payload was written already.
    #[inline]
    pub(super) const fn rewrite(&mut self, entry: &Entry<'_>) {
        (self.timestamp, self.dot) = (entry.version.timestamp.get(), entry.dot);
        self.digest_and_use = entry.version.digest << USE_BITS;
    }

    /// Says that it is a marker now.
    pub(super) fn label_marker(&mut self, partition: PartitionId, state: State, has_lifetime: bool) {
        self.payload.set_label(label(partition, state, None, has_lifetime));
    }

    #[inline]
    pub(super) const fn payload(&self) -> &Payload {
        &self.payload
    }

    #[inline]
    pub(super) const fn payload_mut(&mut self) -> &mut Payload {
        &mut self.payload
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        self.payload.key()
    }

    #[inline]
    pub(super) const fn dot(&self) -> ShortDot {
        self.dot
    }

    #[inline]
    pub(super) const fn set_dot(&mut self, dot: ShortDot) {
        self.dot = dot;
    }

    /// What key, lifetime and value take.
    #[inline]
    pub(super) const fn payload_bytes(&self) -> usize {
        self.payload.bytes_held()
    }

    /// What it holds, as it travels.
    pub(super) fn held(&self) -> Held<'_> {
        match self.state() {
            State::Live => Held::Live(self.value(self.lifetime_bytes())),
            State::Removed => Held::Removed,
            State::Evicted => Held::Evicted,
        }
    }

    #[inline]
    pub(super) fn version(&self) -> Version {
        self.version_living(self.lifetime())
    }

    /// The version, whose lifetime is known to be this.
    #[inline]
    pub(super) fn version_living(&self, lifetime: Lifetime) -> Version {
        Version { timestamp: timestamp(self.timestamp), digest: self.digest_and_use >> USE_BITS, lifetime }
    }

    /// The number of its last use.
    #[inline]
    pub(super) const fn last_use(&self) -> u16 {
        self.digest_and_use as u16
    }

    #[inline]
    pub(super) const fn set_use(&mut self, number: u16) {
        self.digest_and_use = self.digest_and_use >> USE_BITS << USE_BITS | number as u64;
    }

    #[inline]
    fn lifetime(&self) -> Lifetime {
        if self.has_lifetime() { self.lifetime_kept() } else { Lifetime::NONE }
    }

    #[cold]
    pub(super) fn lifetime_kept(&self) -> Lifetime {
        self.payload.lifetime().map_or(Lifetime::NONE, |&bytes| Lifetime::from_bytes(bytes))
    }

    /// When a live entry ends, if it does.
    #[inline]
    pub(super) fn ends_ms(&self) -> Option<u64> {
        let lifetime = if self.kind() == LIVE_WITH_LIFETIME { self.lifetime_kept() } else { return None };
        lifetime.ends().then_some(lifetime.ends_ms())
    }

    /// The value of a live entry, after so many bytes of a lifetime.
    #[inline]
    pub(super) fn value(&self, skipped: usize) -> Value<'_> {
        self.payload.value_as(skipped, self.form())
    }

    /// A share of the value of a live entry, if it is large, after so many bytes of a lifetime.
    #[inline]
    pub(super) fn share(&self, skipped: usize) -> Option<Share> {
        self.payload.share(skipped, self.form())
    }

    /// Bytes of the key, and what is kept beside it.
    #[inline]
    pub(super) fn bytes_apart(&self) -> [usize; 2] {
        [self.payload.key_len(), self.payload.kept_bytes()]
    }

    /// Bytes that are kept beside the key.
    #[inline]
    pub(super) fn kept_bytes(&self) -> usize {
        self.payload.kept_bytes()
    }

    #[inline]
    pub(super) fn lifetime_bytes(&self) -> usize {
        if self.has_lifetime() { LIFETIME_BYTES } else { 0 }
    }

    #[inline]
    pub(super) fn has_lifetime(&self) -> bool {
        WITH_LIFETIME >> (self.payload.label() >> PARTITION_BITS & 15) & 1 == 1
    }

    #[inline]
    pub(super) fn partition(&self) -> PartitionId {
        self.payload.label() & PARTITION_MASK
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        match self.kind() {
            LIVE | LIVE_WITH_LIFETIME => State::Live,
            REMOVED => State::Removed,
            _ => State::Evicted,
        }
    }

    /// It is live, and has no lifetime.
    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.kind() == LIVE
    }

    #[inline]
    const fn kind(&self) -> u16 {
        self.payload.label() >> PARTITION_BITS & 3
    }

    #[inline]
    const fn form(&self) -> Form {
        Form::of(self.payload.label() >> FORM_SHIFT)
    }
}

/// A label: 11 bits of partition; 2 of kind: that of a [`State`], or a live entry with a lifetime; and 2 of a live value's
/// form, which are not 0 for an evicted marker that has a lifetime.
const LIVE: u16 = 0;
const LIVE_WITH_LIFETIME: u16 = 1;
const REMOVED: u16 = 2;
const EVICTED: u16 = 3;
/// Of the sixteen pairs of form and kind those with a lifetime: a bit for each, four kinds to a form.
const WITH_LIFETIME: u16 = 0x1111 << LIVE_WITH_LIFETIME | 0x1110 << EVICTED;
const PARTITION_BITS: u32 = 11;
const FORM_SHIFT: u32 = PARTITION_BITS + 2;
const PARTITION_MASK: u16 = (1 << PARTITION_BITS) - 1;

#[inline]
fn label(partition: PartitionId, state: State, value: Option<Value<'_>>, has_lifetime: bool) -> u16 {
    let (kind, form) = match value {
        Some(value) if has_lifetime => (LIVE_WITH_LIFETIME, value.form() as u16),
        Some(value) => (LIVE, value.form() as u16),
        None => (if state == State::Removed { REMOVED } else { EVICTED }, u16::from(has_lifetime)),
    };
    partition | kind << PARTITION_BITS | form << FORM_SHIFT
}

/// What the payload of an entry is made of, and its label.
#[inline]
pub(super) fn parts<'a>(partition: PartitionId, entry: &Entry<'a>) -> (Parts<'a>, u16) {
    let (state, value) = match entry.held {
        Held::Live(value) => (State::Live, Some(value)),
        Held::Removed => (State::Removed, None),
        Held::Evicted => (State::Evicted, None),
    };
    let lifetime = entry.version.lifetime;
    let label = label(partition, state, value, !lifetime.is_none());
    let (key, value) = (entry.key.bytes(), value.map_or(&[][..], Value::bytes));
    let lifetime = if lifetime.is_none() { None } else { Some(lifetime.to_bytes()) };
    (Parts { key, lifetime, value }, label)
}

#[inline]
fn timestamp(stored: u64) -> Timestamp {
    Timestamp::new(stored).unwrap_or(Timestamp::MAX)
}
