//! ```text
//!            hash of the key                         slots: 48 bytes each, in pages, without holes
//!                  |                                 +-----+-----+-----+-----+
//!   partition ->  table ---- number of a slot ---->  |     |     |     |     |
//!                                                    +--|--+-----+-----+-----+
//!   live     newest <-> .. <-> oldest                   v
//!   removed  newest <-> .. <-> oldest              [ key | lifetime, if it has one | value ]
//!   evicted  newest <-> .. <-> oldest
//!   ending   first to end  ..  last to end         of the live ones, those that end
//! ```
//! One node's memory: a shelf of fixed length. What is used moves to the front; what falls off the end is forgotten.
//! It keeps entries and markers in the order in which they were used; which to keep, and why, is not its business.
//!
//! Promise: `bytes_used` is what keys, values, slots, tables and clocks take, counted exactly; each table of keys, each
//! list and each slot agree (`check`).
//!
//! Exact least recently used: every use moves its entry, no sampling and no second chance.

use super::expiry::Expiry;
use super::last_use::Uses;
use super::payload::Payload;
use super::slot::{self, At, Entry, NONE, SLOT_BYTES, ShortDot, Slot, State};
use super::store::{PAGE, Slots, Store, Table};
use crate::entry::{Held, Key};
use crate::hash::KeyHash;
use crate::ids::PartitionId;
use crate::version::Version;

/// The list of pages grows by one part in so many.
const PAGES_GROWTH: usize = 8;
/// A page's slots, their allocation, and its place in the list of pages.
pub(super) const PAGE_BYTES: usize = PAGE * SLOT_BYTES + 16 + size_of::<Page>() + size_of::<Page>() / PAGES_GROWTH;

/// Slots, and when each was last used.
pub(super) struct Page {
    pub(super) slots: Slots,
    uses: Uses,
}
const _: () = assert!(size_of::<Page>() == 16);

/// Dropped tables larger than this many times their entries are rebuilt smaller.
const TABLE_SPARSE: usize = 8;
/// The least capacity a table has once it has any, and what it takes: 4 numbers and 20 bytes of tags.
const TABLE_LEAST: usize = 3;
pub(super) const TABLE_BYTES_LEAST: usize = 36;

/// A doubly linked list through the slots.
#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl List {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0 };
}

/// Slots, lists and the count of bytes.
pub(super) struct Memory {
    pages: Vec<Page>,
    pub(super) store: Store,
    len: u32,
    lists: [List; 3],
    expiry: Expiry,
    bytes_used: usize,
    /// Keys and values, those of markers included.
    payload_bytes: usize,
    /// Keys of live entries, and what is kept beside them.
    live_bytes: [usize; 2],
    marker_bytes: usize,
    /// The latest time that was told, in milliseconds since 1970; 0 when none was.
    now_ms: u64,
}

impl Memory {
    pub(super) fn new(bytes_fixed: usize, bytes_max: usize) -> Self {
        Self {
            pages: Vec::new(),
            store: Store::new(bytes_max),
            len: 0,
            lists: [List::EMPTY; 3],
            expiry: Expiry::new(),
            bytes_used: bytes_fixed,
            payload_bytes: 0,
            live_bytes: [0; 2],
            marker_bytes: 0,
            now_ms: 0,
        }
    }

    /// It is so late. Time does not go back.
    #[inline]
    pub(super) const fn tell_time(&mut self, now_ms: u64) {
        if now_ms > self.now_ms {
            self.now_ms = now_ms;
        }
    }

    #[inline]
    pub(super) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    #[inline]
    pub(super) const fn bytes_used(&self) -> usize {
        self.bytes_used
    }

    pub(super) const fn marker_bytes(&self) -> usize {
        self.marker_bytes
    }

    /// Bytes of the keys of live entries, and of their values.
    pub(super) const fn live_bytes(&self) -> [usize; 2] {
        self.live_bytes
    }

    pub(super) const fn count(&self, state: State) -> usize {
        self.lists[state as usize].len as usize
    }

    #[inline]
    const fn account_payload(&mut self, before: usize, after: usize) {
        self.payload_bytes = self.payload_bytes + after - before;
        self.account(before, after);
    }

    /// What would be used if there were no entries and markers: clocks and tables as they are.
    pub(super) fn bytes_beside_entries(&self) -> usize {
        self.bytes_used - self.payload_bytes - self.pages.len() * PAGE_BYTES - self.expiry.bytes()
    }

    /// Adds to, or takes from, the count what something beside entries has come to use.
    #[inline]
    pub(super) const fn account(&mut self, before: usize, after: usize) {
        self.bytes_used = self.bytes_used + after - before;
    }

    /// The most by which one more entry can lengthen its table and the pages, and one that ends the order in which they
    /// do, beside its payload.
    #[inline]
    pub(super) fn growth_bytes(&self, table: &Table, ends: bool) -> usize {
        let page = if self.len as usize == self.pages.len() * PAGE { PAGE_BYTES } else { 0 };
        let table = if table.len() == table.capacity() { table.allocation_size() + 64 } else { 0 };
        page + table + self.expiry_growth_bytes(ends)
    }

    /// By how much an entry lengthens the order in which entries end, if it ends.
    #[inline]
    pub(super) fn expiry_growth_bytes(&self, ends: bool) -> usize {
        if ends { self.expiry.growth_bytes() } else { 0 }
    }

    /// The next live entry to end, if it has ended by now.
    #[inline]
    pub(super) fn first_ended(&self, now_ms: u64) -> Option<At> {
        self.expiry.first_ended(now_ms)
    }

    /// Live entries that have ended by now.
    pub(super) fn ended(&self, now_ms: u64) -> impl Iterator<Item = At> {
        self.expiry.ended(now_ms)
    }

    /// Finds the key of a hash that something else is true of, too.
    pub(super) fn find_hash_where(&self, table: &Table, hash: KeyHash, is: impl Fn(&[u8]) -> bool) -> Option<At> {
        let is_it = |&at: &At| KeyHash::of(self.slot(at).key()) == hash && is(self.slot(at).key());
        table.find(spread(hash), is_it).copied()
    }

    /// All slots whose keys have this hash.
    pub(super) fn of_hash<'m>(&'m self, table: &'m Table, hash: KeyHash) -> impl Iterator<Item = At> + 'm {
        table.iter_hash(spread(hash)).copied().filter(move |&at| KeyHash::of(self.slot(at).key()) == hash)
    }

    /// Finds a key of half a hash. There may be another: good enough to count as a use, and for nothing else.
    pub(super) fn find_half(&self, table: &Table, half: u32) -> Option<At> {
        table.find(spread_half(half), |&at| KeyHash::of(self.slot(at).key()).half() == half).copied()
    }

    /// Finds a key. It does not count as a use.
    #[inline]
    pub(super) fn find(&self, table: &Table, key: Key<'_>) -> Option<At> {
        table.find(spread(key.hash()), |&at| self.slot(at).key() == key.bytes()).copied()
    }

    /// Puts an entry that is not there into a new slot, at the front of its list or, `cold`, at its end. It was reserved.
    pub(super) fn insert(&mut self, table: &mut Table, partition: PartitionId, entry: Entry<'_>, cold: bool) -> bool {
        let at = self.len;
        if (at as usize == self.pages.len() * PAGE && !self.add_page()) || !self.make_room_in(table) {
            return false;
        }
        let (parts, label) = slot::parts(partition, &entry);
        let Some(bytes) = self.take_reserved() else { return false };
        self.len += 1;
        // Safety: it was reserved for this entry.
        #[expect(unsafe_code, reason = "memory that is filled once")]
        let payload = unsafe { Payload::fill(bytes, &parts, label) };
        if !payload.is_large() {
            self.set_owner(bytes, at);
        }
        let slot = Slot::new(&entry, payload);
        let state = slot.state();
        self.account_payload(0, slot.payload_bytes());
        *self.slot_mut(at) = slot;
        self.note_use(at, self.now_ms);
        self.link(at, state, cold);
        table.insert_unique(spread(entry.key.hash()), at, |&at| spread(KeyHash::of(self.slot(at).key())));
        true
    }

    #[cold]
    fn add_page(&mut self) -> bool {
        if !self.reserve_in_pages() {
            return false;
        }
        let Some(slots) = self.store.take_page() else { return false };
        self.pages.push(Page { slots, uses: Uses::since(self.now_ms) });
        self.bytes_used += PAGE_BYTES;
        true
    }

    /// Room for one more in the list of pages.
    pub(super) fn reserve_in_pages(&mut self) -> bool {
        let more = 1 + self.pages.len() / PAGES_GROWTH;
        self.pages.len() < self.pages.capacity() || self.pages.try_reserve_exact(more).is_ok()
    }

    #[inline]
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) const fn pages_len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn store_and_pages(&mut self) -> (&mut Store, &mut [Page]) {
        (&mut self.store, &mut self.pages)
    }

    /// Writes a newer version into the slot of its key; the caller has seen that its bytes fit. What it needs was reserved.
    pub(super) fn replace(&mut self, at: At, partition: PartitionId, entry: Entry<'_>) {
        self.unlink(at);
        let before = self.slot(at).payload_bytes();
        let (parts, label) = slot::parts(partition, &entry);
        self.refill(at, &parts, label);
        let slot = self.slot_mut(at);
        slot.rewrite(&entry);
        let (after, state) = (slot.payload_bytes(), slot.state());
        self.account_payload(before, after);
        self.note_use(at, self.now_ms);
        self.link(at, state, false);
    }

    /// Takes an entry out. The last slot moves into its place, so that there are no holes: every `At` but `at` that is not
    /// the last stays valid.
    pub(super) fn take(&mut self, table: &mut Table, at: At) {
        self.unlink(at);
        let hash = spread(KeyHash::of(self.slot(at).key()));
        if let Ok(found) = table.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        self.account_payload(self.slot(at).payload_bytes(), 0);
        self.release(at);
        if table.len() * TABLE_SPARSE < table.capacity() && table.capacity() > TABLE_LEAST {
            // One that cannot be rebuilt stays as it is.
            if let Some(smaller) = Self::table_for((table.len() * 2).max(TABLE_LEAST)) {
                self.rebuild(table, smaller);
            }
        }
    }

    /// Fills the hole at `at` with the last slot, whose partition's table is given by `table_of`.
    pub(super) fn close_gap<'t>(&mut self, at: At, table_of: impl FnOnce(PartitionId) -> &'t mut Table) {
        let last = self.len - 1;
        if at != last {
            let last_use_ms = self.last_use_ms(last);
            let moved = std::mem::replace(self.slot_mut(last), Slot::VACANT);
            let hash = spread(KeyHash::of(moved.key()));
            let (partition, state, ends_ms) = (moved.partition(), moved.state(), moved.ends_ms());
            let (newer, older) = (moved.newer, moved.older);
            if let Some((bytes, false)) = moved.payload().memory() {
                self.set_owner(bytes, at);
            }
            *self.slot_mut(at) = moved;
            self.note_use(at, last_use_ms);
            if let Some(ends_ms) = ends_ms {
                self.expiry.remove(ends_ms, last);
                self.expiry.insert(ends_ms, at);
            }
            if let Some(number) = table_of(partition).find_mut(hash, |&other| other == last) {
                *number = at;
            }
            match newer {
                NONE => self.lists[state as usize].newest = at,
                newer => self.slot_mut(newer).older = at,
            }
            match older {
                NONE => self.lists[state as usize].oldest = at,
                older => self.slot_mut(older).newer = at,
            }
        } else {
            *self.slot_mut(last) = Slot::VACANT;
        }
        self.len = last;
        if self.len as usize + PAGE <= self.pages.len() * PAGE {
            if let Some(page) = self.pages.pop() {
                self.store.keep_page(page.slots);
            }
            self.bytes_used -= PAGE_BYTES;
        }
    }

    /// Counts as a use: moves a live entry to the front. False if it was there.
    #[inline]
    pub(super) fn touch(&mut self, at: At) -> bool {
        self.note_use(at, self.now_ms);
        let front = self.lists[State::Live as usize].newest;
        if front == at {
            return false;
        }
        let slot = self.slot_mut(at);
        let (newer, older) = (slot.newer, slot.older);
        (slot.newer, slot.older) = (NONE, front);
        // It is not at the front, so there is a newer one.
        self.slot_mut(newer).older = older;
        match older {
            NONE => self.lists[State::Live as usize].oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
        self.slot_mut(front).newer = at;
        self.lists[State::Live as usize].newest = at;
        true
    }

    /// Writes down when a slot was last used. Another time for the same use does no harm.
    #[inline]
    fn note_use(&mut self, at: At, used_ms: u64) {
        let Page { slots, uses } = &mut self.pages[at as usize / PAGE];
        let slot = &mut slots[at as usize % PAGE];
        match uses.number(used_ms) {
            Some(number) => slot.set_use(number),
            None => self.note_use_far_off(at, used_ms),
        }
    }

    /// The same for a time that the page cannot count to as it counts now: all its slots are told anew.
    #[cold]
    fn note_use_far_off(&mut self, at: At, used_ms: u64) {
        let (len, first) = (self.len as usize, at as usize / PAGE * PAGE);
        let Page { slots, uses } = &mut self.pages[at as usize / PAGE];
        let slots = &mut slots[..PAGE.min(len - first)];
        let times: [u64; PAGE] = std::array::from_fn(|place| match slots.get(place) {
            Some(slot) if place != at as usize % PAGE => uses.time_ms(slot.last_use()),
            _ => used_ms,
        });
        *uses = Uses::of(&times);
        for (slot, time_ms) in slots.iter_mut().zip(times) {
            slot.set_use(uses.number(time_ms).unwrap_or_default());
        }
    }

    /// When a live entry was used last, in milliseconds since 1970: to a second, or to a thousandth of the time over which
    /// the entries of its page were last used, if that is longer. 0 if no time was told then.
    pub(super) fn last_use_ms(&self, at: At) -> u64 {
        self.pages[at as usize / PAGE].uses.time_ms(self.slot(at).last_use())
    }

    /// Turns a live entry into an evicted marker, the newest of them, and gives its value's memory back. False when there is
    /// no memory for the marker, and then nothing changed.
    pub(super) fn forget_value(&mut self, at: At) -> bool {
        let state = self.state(at);
        self.unlink(at);
        let before = self.slot(at).payload_bytes();
        let is_marker = self.shrink_to_marker(at);
        let after = self.slot(at).payload_bytes();
        self.account_payload(before, after);
        self.link(at, if is_marker { State::Evicted } else { state }, false);
        is_marker
    }

    pub(super) fn set_dot(&mut self, at: At, dot: ShortDot) {
        self.slot_mut(at).set_dot(dot);
    }

    /// The entry that was used least recently, or the oldest marker of a kind.
    #[inline]
    pub(super) const fn oldest(&self, state: State) -> Option<At> {
        match self.lists[state as usize].oldest {
            NONE => None,
            at => Some(at),
        }
    }

    /// The one that was used next after `at`.
    pub(super) fn next_newer(&self, at: At) -> Option<At> {
        match self.slot(at).newer {
            NONE => None,
            newer => Some(newer),
        }
    }

    #[inline]
    pub(super) fn state(&self, at: At) -> State {
        self.slot(at).state()
    }

    #[inline]
    pub(super) fn partition(&self, at: At) -> PartitionId {
        self.slot(at).partition()
    }

    #[inline]
    pub(super) fn dot(&self, at: At) -> ShortDot {
        self.slot(at).dot()
    }

    #[inline]
    pub(super) fn version(&self, at: At) -> Version {
        self.slot(at).version()
    }

    #[inline]
    pub(super) fn key(&self, at: At) -> &[u8] {
        self.slot(at).key()
    }

    /// What the slot holds, as it travels.
    pub(super) fn held(&self, at: At) -> Held<'_> {
        self.slot(at).held()
    }

    /// What the entry in a slot takes, its slot included.
    #[inline]
    pub(super) fn bytes_of(&self, at: At) -> usize {
        SLOT_BYTES + self.slot(at).payload_bytes()
    }

    /// Before its table grows. False when there is no memory for a longer one.
    #[inline]
    fn make_room_in(&mut self, table: &mut Table) -> bool {
        table.len() < table.capacity() || self.lengthen(table)
    }

    #[cold]
    fn lengthen(&mut self, table: &mut Table) -> bool {
        let longer = self.store.take_table().filter(|reserved| reserved.capacity() > table.len());
        match longer.or_else(|| Self::table_for(Self::capacity_after(table))) {
            Some(longer) => {
                self.rebuild(table, longer);
                true
            }
            None => false,
        }
    }

    /// How long a full table is to become: one that is full of tombstones is rebuilt at its size, not doubled.
    pub(super) fn capacity_after(table: &Table) -> usize {
        let full = table.num_buckets() * 7 / 8;
        if table.len() < full - full / 16 { full } else { table.len() + 1 }
    }

    /// An empty table of this capacity, if there is memory.
    pub(super) fn table_for(capacity: usize) -> Option<Table> {
        let mut table = Table::new();
        table.try_reserve(capacity, |_| 0).ok()?;
        Some(table)
    }

    fn rebuild(&mut self, table: &mut Table, mut rebuilt: Table) {
        let before = table.allocation_size();
        for at in table.drain() {
            let hash = |&at: &u32| spread(KeyHash::of(self.slot(at).key()));
            rebuilt.insert_unique(hash(&at), at, hash);
        }
        *table = rebuilt;
        self.account(before, table.allocation_size());
    }

    fn link(&mut self, at: At, state: State, cold: bool) {
        let list = &mut self.lists[state as usize];
        list.len += 1;
        let (newer, older) = if cold { (list.oldest, NONE) } else { (NONE, list.newest) };
        if cold {
            list.oldest = at;
            if list.newest == NONE {
                list.newest = at;
            }
        } else {
            list.newest = at;
            if list.oldest == NONE {
                list.oldest = at;
            }
        }
        if newer != NONE {
            self.slot_mut(newer).older = at;
        }
        if older != NONE {
            self.slot_mut(older).newer = at;
        }
        let slot = self.slot_mut(at);
        (slot.newer, slot.older) = (newer, older);
        let (is_plain, [key_bytes, kept_bytes]) = (slot.is_plain(), slot.bytes_apart());
        if state == State::Live {
            self.live_bytes = [self.live_bytes[0] + key_bytes, self.live_bytes[1] + kept_bytes];
        }
        if !is_plain {
            self.link_more(at, state);
        }
    }

    /// What is to be noted of a marker, and of a live entry with a lifetime.
    fn link_more(&mut self, at: At, state: State) {
        if state != State::Live {
            self.marker_bytes += self.bytes_of(at);
        } else if let Some(ends_ms) = self.slot(at).ends_ms() {
            let before = self.expiry.bytes();
            self.expiry.insert(ends_ms, at);
            self.account(before, self.expiry.bytes());
        }
    }

    fn unlink(&mut self, at: At) {
        let slot = self.slot(at);
        let (is_plain, state, newer, older) = (slot.is_plain(), slot.state(), slot.newer, slot.older);
        let [key_bytes, kept_bytes] = slot.bytes_apart();
        if state == State::Live {
            self.live_bytes = [self.live_bytes[0] - key_bytes, self.live_bytes[1] - kept_bytes];
        }
        match newer {
            NONE => self.lists[state as usize].newest = older,
            newer => self.slot_mut(newer).older = older,
        }
        match older {
            NONE => self.lists[state as usize].oldest = newer,
            older => self.slot_mut(older).newer = newer,
        }
        self.lists[state as usize].len -= 1;
        if !is_plain {
            self.unlink_more(at, state);
        }
    }

    fn unlink_more(&mut self, at: At, state: State) {
        if state != State::Live {
            self.marker_bytes -= self.bytes_of(at);
        } else if let Some(ends_ms) = self.slot(at).ends_ms() {
            let before = self.expiry.bytes();
            self.expiry.remove(ends_ms, at);
            self.account(before, self.expiry.bytes());
        }
    }

    #[inline]
    pub(super) fn slot(&self, at: At) -> &Slot {
        &self.pages[at as usize / PAGE].slots[at as usize % PAGE]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, at: At) -> &mut Slot {
        &mut self.pages[at as usize / PAGE].slots[at as usize % PAGE]
    }

    /// Fails unless lists, slots, tables and the count of bytes agree. `tables` gives each partition's; `beside` is what is
    /// counted that is not an entry.
    pub(super) fn check<'t>(&self, tables: impl Iterator<Item = (PartitionId, &'t Table)>, beside: usize) {
        let mut bytes = beside + self.pages.len() * PAGE_BYTES + self.expiry.bytes();
        let (mut marker_bytes, mut linked, mut ending, mut live_bytes) = (0, 0, 0, [0; 2]);
        for state in [State::Live, State::Removed, State::Evicted] {
            let list = self.lists[state as usize];
            let (mut at, mut newer, mut len) = (list.newest, NONE, 0);
            while at != NONE {
                let slot = self.slot(at);
                assert_eq!((slot.newer, slot.state()), (newer, state), "a link leads elsewhere");
                bytes += slot.payload_bytes();
                marker_bytes += if state == State::Live { 0 } else { self.bytes_of(at) };
                if state == State::Live {
                    live_bytes[0] += slot.key().len();
                    live_bytes[1] += slot.kept_bytes();
                }
                if let Some(ends_ms) = slot.ends_ms() {
                    assert!(self.expiry.has(ends_ms, at), "an entry that ends is not among those that do");
                    ending += 1;
                }
                (newer, at, len) = (at, slot.older, len + 1);
            }
            assert_eq!((list.oldest, list.len), (newer, len), "a list's end or length is wrong");
            linked += len;
        }
        assert_eq!(linked, self.len, "a slot is in no list");
        self.check_store();
        assert_eq!(ending, self.expiry.len(), "something ends that is not there");
        let mut indexed = 0;
        for (partition, table) in tables {
            for &at in table {
                assert_eq!(self.partition(at), partition, "a slot is in another partition's table");
                let key = Key::new(self.key(at)).expect("a key that was stored");
                assert_eq!(self.find(table, key), Some(at), "a key is not where its hash says");
            }
            indexed += table.len();
        }
        assert_eq!(indexed, self.len as usize, "a slot is in no table");
        assert_eq!((bytes, marker_bytes), (self.bytes_used, self.marker_bytes), "the count of bytes is wrong");
        assert_eq!(live_bytes, self.live_bytes, "the count of keys and values of live entries is wrong");
        assert_eq!(self.bytes_beside_entries(), beside, "the count of keys and values is wrong");
    }
}

#[inline]
const fn spread(hash: KeyHash) -> u64 {
    spread_half(hash.half())
}

/// The table finds a place by the low bits and tells keys apart by the top 7 first; within a partition the top bits of
/// hashes are all the same. So half a hash is spread over all bits, and half a hash is enough to find a key.
#[inline]
const fn spread_half(half: u32) -> u64 {
    (half as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
