//! ```text
//!   heap:   pool 0  [ block | free | block | block | free        ]      from the operating system, by mmap
//!           pool 1  [ block | block | free                       ]
//!
//!   block:  [ header 8 | bytes .. ]          free:  [ header 8 | next | before | .. | its length 8 ]
//!           its length, its pool, its owner's number
//! ```
//! Memory that one node has for itself: taken from the operating system in pools, given back to it in pools and pages.
//! Free blocks are found by two levels of lengths (TLSF, Masmano and others, 2004), and join with their neighbours.
//!
//! Promise: every allocation can fail and then changes nothing; a block's header is all that is kept of it; and what is free
//! is known to the byte, so that its owner can keep it within bounds: by `slide`, where blocks may move, else by giving
//! back pages.
//!
//! It knows no threads: whoever owns it uses it alone.

use std::ptr::NonNull;

/// Lengths of blocks are multiples of this, and so are their places.
const UNIT: usize = 16;
/// What is kept of a block, in front of it.
pub const HEADER_BYTES: usize = 8;
/// A free block has room for its header, two links and its length.
const BLOCK_BYTES_MIN: usize = 32;
/// A pool begins with 8 bytes that nobody uses and ends with the header of a block that is never free.
const POOL_EXTRA_BYTES: usize = 16;
/// Pools of fewer bytes come from the allocator of the process: a mapping has whole pages.
const MAPPED_FROM_BYTES: usize = 32 * 1024;
/// What the operating system takes back at once.
const PAGE_BYTES: usize = 4096;
/// Blocks that are looked at where not every one is long enough.
const LOOKED_AT: usize = 4;

const FREE: u64 = 1;
const FREE_BEFORE: u64 = 2;
/// Its pages were given back.
const PURGED: u64 = 4;
const POOL_SHIFT: u32 = 3;
const POOL_BITS: u32 = 18;
const LENGTH_SHIFT: u32 = POOL_SHIFT + POOL_BITS;
/// Where blocks have an owner's number, the length of one in use has so many bits.
const SHORT_BITS: u32 = 11;
const OWNER_SHIFT: u32 = LENGTH_SHIFT + SHORT_BITS;

/// The longest allocation of a heap whose blocks move.
pub const MOVING_BYTES_MAX: usize = ((1 << SHORT_BITS) - 1) * UNIT - HEADER_BYTES;

const ROWS: usize = 16;
const COLUMNS: usize = 8;

/// Where a block begins: its header.
type Block = *mut u64;

struct Pool {
    start: *mut u8,
    bytes: usize,
    /// In free blocks.
    free_bytes: usize,
    /// In those whose pages were not given back.
    resident_bytes: usize,
    /// All that is free is in one block at the end.
    is_dense: bool,
}

/// Free blocks by length.
struct Lists {
    heads: [[Block; COLUMNS]; ROWS],
    rows: u32,
    columns: [u8; ROWS],
}

/// The heap. With `MOVES`, each block has its owner's number, and `slide` moves blocks.
pub struct Heap<const MOVES: bool> {
    pools: Vec<Option<Pool>>,
    lists: Option<Box<Lists>>,
    pool_bytes: usize,
    /// Bytes of all pools.
    bytes: usize,
    free_bytes: usize,
    resident_bytes: usize,
}

// Safety: a heap owns its pools, and nobody else has them.
#[expect(unsafe_code, reason = "the pools are owned")]
unsafe impl<const MOVES: bool> Send for Heap<MOVES> {}

impl<const MOVES: bool> Heap<MOVES> {
    /// An empty one, for an owner of so many bytes: a pool is a 64th of them, from 32 KiB to 1 MiB, but an eighth at most; and
    /// more where there would be too many.
    pub fn new(bytes_max: usize) -> Self {
        let pool_bytes = (bytes_max / 64).clamp(MAPPED_FROM_BYTES, 1 << 20).min(bytes_max / 8).max(PAGE_BYTES);
        let pool_bytes = pool_bytes.max(bytes_max >> (POOL_BITS - 1)).next_power_of_two();
        Self::in_pools_of(pool_bytes)
    }

    /// An empty one, with pools of so many bytes.
    pub fn in_pools_of(pool_bytes: usize) -> Self {
        Self { pools: Vec::new(), lists: None, pool_bytes, bytes: 0, free_bytes: 0, resident_bytes: 0 }
    }

    /// The address of the first pool.
    pub fn first_pool(&self) -> Option<usize> {
        self.pools.first()?.as_ref().map(|pool| pool.start as usize)
    }

    /// What it takes from the operating system: all pools, but for pages that were given back.
    pub fn bytes_held(&self) -> usize {
        self.bytes - (self.free_bytes - self.resident_bytes)
    }

    /// So much may be free in it: an eighth of what is in use, and a pool. Half as much where blocks do not move: their pages
    /// are given back without copying anything.
    #[inline]
    fn free_bytes_max(&self) -> usize {
        (self.bytes - self.free_bytes) / if MOVES { 8 } else { 16 } + self.pool_bytes
    }

    /// More is free than should be, and not given back.
    #[inline]
    pub fn is_loose(&self) -> bool {
        self.resident_bytes > self.free_bytes_max()
    }

    /// Free, and not given back.
    pub const fn resident_free_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// A new pool is to be avoided, if there is another way.
    pub fn is_full_of_holes(&self) -> bool {
        self.free_bytes > self.free_bytes_max()
    }

    /// What an allocation of so many bytes takes.
    #[inline]
    const fn block_bytes(len: usize) -> usize {
        let bytes = (len + HEADER_BYTES + UNIT - 1) & !(UNIT - 1);
        if bytes < BLOCK_BYTES_MIN { BLOCK_BYTES_MIN } else { bytes }
    }

    /// Memory for so many bytes, aligned to 16, if a free block has it.
    #[inline]
    pub fn allocate(&mut self, len: usize) -> Option<NonNull<u8>> {
        let need = Self::block_bytes(len);
        let block = self.find(need)?;
        // Safety: a block that was found is free, in a list, and at least as long as needed.
        #[expect(unsafe_code, reason = "blocks lie in raw memory")]
        unsafe {
            self.unlist(block);
            let length = Self::length(block);
            let left = length - need;
            if left >= BLOCK_BYTES_MIN {
                let pool_and_purged = *block & (PURGED | ((1 << POOL_BITS) - 1) << POOL_SHIFT);
                let rest = Self::after(block, need);
                *rest = FREE | pool_and_purged | ((left / UNIT) as u64) << LENGTH_SHIFT;
                self.list(rest, left);
                Self::set_in_use(block, need);
            } else {
                *Self::after(block, length) &= !FREE_BEFORE;
                Self::set_in_use(block, length);
            }
            Some(NonNull::new_unchecked(block.add(1).cast()))
        }
    }

    /// Gives memory back to the heap.
    ///
    /// # Safety
    /// It was allocated by this heap and is used no more.
    #[expect(unsafe_code, reason = "whoever frees must know that nobody uses it")]
    #[inline]
    pub unsafe fn free(&mut self, bytes: NonNull<u8>) {
        // Safety: an allocation has its header in front of it, neighbours have theirs where lengths say, and a block that is
        // free before this one has its length in front of this one's header.
        unsafe {
            let mut block: Block = bytes.as_ptr().cast::<u64>().sub(1);
            let mut length = Self::length(block);
            let pool = Self::pool_of(block);
            self.pool(pool).is_dense = false;
            let next = Self::after(block, length);
            if *next & FREE != 0 {
                self.unlist(next);
                length += Self::length(next);
            }
            if *block & FREE_BEFORE != 0 {
                let before = *block.sub(1) as usize;
                block = block.byte_sub(before);
                self.unlist(block);
                length += before;
            }
            *block = FREE | (pool as u64) << POOL_SHIFT | ((length / UNIT) as u64) << LENGTH_SHIFT;
            self.list(block, length);
            if length + POOL_EXTRA_BYTES == self.pool(pool).bytes && self.is_loose() {
                // No block of the pool is in use.
                self.unlist(block);
                self.unmap(pool);
            }
        }
    }

    /// Makes an allocation shorter where it is. What is cut off is free.
    ///
    /// # Safety
    /// It was allocated by this heap, and is at least so long.
    #[expect(unsafe_code, reason = "whoever shortens must know that nobody uses the rest")]
    pub unsafe fn shorten(&mut self, bytes: NonNull<u8>, len: usize) {
        let need = Self::block_bytes(len);
        // Safety: as in `free`; both parts are at least as long as a block must be.
        unsafe {
            let block: Block = bytes.as_ptr().cast::<u64>().sub(1);
            let length = Self::length(block);
            if length - need < BLOCK_BYTES_MIN {
                return;
            }
            let pool = Self::pool_of(block);
            Self::set_length(block, need);
            let rest = Self::after(block, need);
            *rest = (pool as u64) << POOL_SHIFT;
            Self::set_length(rest, length - need);
            self.free(NonNull::new_unchecked(rest.add(1).cast()));
        }
    }

    /// How long an allocation may become where it is.
    ///
    /// # Safety
    /// It was allocated by this heap.
    #[expect(unsafe_code, reason = "the header lies in front")]
    #[inline]
    pub unsafe fn room_of(&self, bytes: NonNull<u8>) -> usize {
        // Safety: an allocation has its header in front of it.
        unsafe { Self::length(bytes.as_ptr().cast::<u64>().sub(1)) - HEADER_BYTES }
    }

    /// Another pool, with room for an allocation of so many bytes at least. False when there is no memory, and nothing
    /// changed.
    #[cold]
    pub fn grow(&mut self, len: usize) -> bool {
        let need = Self::block_bytes(len) + POOL_EXTRA_BYTES;
        let bytes = if need <= self.pool_bytes { self.pool_bytes } else { need.next_multiple_of(PAGE_BYTES) };
        if self.lists.is_none() {
            let Some(lists) = Lists::new() else { return false };
            self.lists = Some(lists);
        }
        let number = self.pools.iter().rposition(Option::is_none).unwrap_or(self.pools.len());
        if number >= 1 << POOL_BITS || (number == self.pools.len() && self.pools.try_reserve(1).is_err()) {
            return false;
        }
        let Some(start) = system::map(bytes) else { return false };
        let length = bytes - POOL_EXTRA_BYTES;
        let pool = Pool { start, bytes, free_bytes: 0, resident_bytes: 0, is_dense: true };
        if number == self.pools.len() {
            self.pools.push(Some(pool));
        } else {
            self.pools[number] = Some(pool);
        }
        self.bytes += bytes;
        // Safety: the memory is fresh, and holds a first block and the header of the last.
        #[expect(unsafe_code, reason = "blocks lie in raw memory")]
        unsafe {
            let block: Block = start.cast::<u64>().add(1);
            // Fresh memory has no pages yet.
            *block = FREE | PURGED | (number as u64) << POOL_SHIFT | ((length / UNIT) as u64) << LENGTH_SHIFT;
            *Self::after(block, length) = FREE_BEFORE;
            self.list(block, length);
        }
        true
    }

    /// Gives back the pages of free blocks that are long, and pools that are free, until not too much is free.
    #[cold]
    pub fn purge(&mut self, free_bytes_max: usize) {
        for number in 0..self.pools.len() {
            if self.resident_bytes <= free_bytes_max {
                return;
            }
            if self.pools[number].as_ref().is_some_and(|pool| pool.resident_bytes > 0) {
                self.purge_pool(number);
            }
        }
    }

    /// As `purge`, down to what may be free.
    pub fn tighten(&mut self) {
        self.purge(self.free_bytes_max());
    }

    /// The pool with the most free memory that was not given back, of those where `slide` would join at least so much.
    /// Nothing when none is worth it.
    pub fn loosest(&self, bytes: usize) -> Option<usize> {
        let loose = |(number, pool): (usize, &Option<Pool>)| {
            let pool = pool.as_ref().filter(|pool| !pool.is_dense && pool.free_bytes >= bytes)?;
            (pool.resident_bytes >= pool.bytes / 16).then_some((pool.resident_bytes, number))
        };
        self.pools.iter().enumerate().filter_map(loose).max().map(|(_, number)| number)
    }

    /// Moves all blocks of a pool to its beginning, so that what is free is one block at its end, and gives that back if too
    /// much is free. `moved` is told each owner's number and the new place.
    pub fn slide(&mut self, number: usize, mut moved: impl FnMut(u32, NonNull<u8>)) {
        assert!(MOVES, "blocks of this heap have no owners to be told");
        let Some(pool) = self.pools.get(number).and_then(Option::as_ref) else { return };
        let (start, bytes) = (pool.start, pool.bytes);
        // Safety: headers lead from the first block to the end of the pool; each block is moved towards the beginning, over
        // free memory and memory that was moved before; who owns it is told before anybody else can look.
        #[expect(unsafe_code, reason = "blocks lie in raw memory")]
        unsafe {
            let mut from: Block = start.cast::<u64>().add(1);
            let mut to = from;
            let end: Block = start.byte_add(bytes - HEADER_BYTES).cast();
            while from < end {
                let length = Self::length(from);
                if *from & FREE != 0 {
                    self.unlist(from);
                } else {
                    if from != to {
                        std::ptr::copy(from.cast::<u8>(), to.cast::<u8>(), length);
                        moved((*to >> OWNER_SHIFT) as u32, NonNull::new_unchecked(to.add(1).cast()));
                    }
                    *to &= !FREE_BEFORE;
                    to = Self::after(to, length);
                }
                from = Self::after(from, length);
            }
            let left = end as usize - to as usize;
            *end = (*end & !FREE_BEFORE) | if left > 0 { FREE_BEFORE } else { 0 };
            if left > 0 {
                *to = FREE | (number as u64) << POOL_SHIFT | ((left / UNIT) as u64) << LENGTH_SHIFT;
                self.list(to, left);
            }
        }
        self.pool(number).is_dense = true;
        if self.is_loose() {
            self.purge_pool(number);
        }
    }

    /// Says whose a block is.
    ///
    /// # Safety
    /// It was allocated by this heap.
    #[expect(unsafe_code, reason = "the header lies in front")]
    #[inline]
    pub unsafe fn set_owner(bytes: NonNull<u8>, owner: u32) {
        // Safety: an allocation has its header in front of it.
        unsafe {
            let block: Block = bytes.as_ptr().cast::<u64>().sub(1);
            *block = *block & ((1 << OWNER_SHIFT) - 1) | u64::from(owner) << OWNER_SHIFT;
        }
    }

    fn unmap(&mut self, number: usize) {
        if let Some(pool) = self.pools[number].take() {
            self.bytes -= pool.bytes;
            system::unmap(pool.start, pool.bytes);
        }
        while self.pools.last().is_some_and(Option::is_none) {
            self.pools.pop();
        }
    }

    fn purge_pool(&mut self, number: usize) {
        let Some(pool) = self.pools[number].as_ref() else { return };
        let (start, bytes) = (pool.start, pool.bytes);
        if bytes < MAPPED_FROM_BYTES && pool.free_bytes + POOL_EXTRA_BYTES < bytes {
            return;
        }
        // Safety: headers lead from the first block to the end; between a free block's links and its length nobody reads.
        #[expect(unsafe_code, reason = "blocks lie in raw memory")]
        unsafe {
            let mut block: Block = start.cast::<u64>().add(1);
            let end: Block = start.byte_add(bytes - HEADER_BYTES).cast();
            while block < end {
                let length = Self::length(block);
                if *block & (FREE | PURGED) == FREE && length + POOL_EXTRA_BYTES == bytes {
                    self.unlist(block);
                    return self.unmap(number);
                }
                if *block & (FREE | PURGED) == FREE && length >= 4 * PAGE_BYTES {
                    let first = (block as usize + BLOCK_BYTES_MIN).next_multiple_of(PAGE_BYTES);
                    let last = (block as usize + length - HEADER_BYTES) / PAGE_BYTES * PAGE_BYTES;
                    if first < last && system::purge(first as *mut u8, last - first) {
                        self.unlist(block);
                        *block |= PURGED;
                        self.list(block, length);
                    }
                }
                block = Self::after(block, length);
            }
        }
    }

    fn pool(&mut self, number: usize) -> &mut Pool {
        self.pools[number].as_mut().expect("a block is in a pool")
    }

    /// A free block of so many bytes or more.
    #[inline]
    fn find(&mut self, need: usize) -> Option<Block> {
        let lists = self.lists.as_deref()?;
        let (row, column) = place(need);
        // Those of the same row and column may be long enough.
        let mut block = lists.heads[row][column];
        let is_last = row == ROWS - 1 && column == COLUMNS - 1;
        let mut left = if is_last { usize::MAX } else { LOOKED_AT };
        // Safety: what is in a list is a free block, with links.
        #[expect(unsafe_code, reason = "blocks lie in raw memory")]
        unsafe {
            while !block.is_null() && left > 0 {
                if Self::length(block) >= need {
                    return Some(block);
                }
                block = *block.add(1) as Block;
                left -= 1;
            }
        }
        let longer = u32::from(lists.columns[row]) & (!1_u32 << column);
        if longer != 0 {
            return Some(lists.heads[row][longer.trailing_zeros() as usize]);
        }
        let rows = lists.rows & (!1_u32 << row);
        if rows == 0 {
            return None;
        }
        let row = rows.trailing_zeros() as usize;
        Some(lists.heads[row][lists.columns[row].trailing_zeros() as usize])
    }

    /// Puts a free block into its list, writes its length at its end, and says so to the one after it.
    ///
    /// # Safety
    /// Its header says how long it is, and that it is free.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    unsafe fn list(&mut self, block: Block, length: usize) {
        let (row, column) = place(length);
        // Safety: a free block has room for its links and its length.
        unsafe {
            let resident = if *block & PURGED == 0 { length } else { 0 };
            let number = Self::pool_of(block);
            let pool = self.pool(number);
            pool.free_bytes += length;
            pool.resident_bytes += resident;
            self.free_bytes += length;
            self.resident_bytes += resident;
            let lists = self.lists.as_deref_mut().expect("there is a pool");
            let head = lists.heads[row][column];
            *block.add(1) = head as u64;
            *block.add(2) = 0;
            if !head.is_null() {
                *head.add(2) = block as u64;
            }
            lists.heads[row][column] = block;
            lists.rows |= 1 << row;
            lists.columns[row] |= 1 << column;
            *block.byte_add(length - HEADER_BYTES) = length as u64;
            *Self::after(block, length) |= FREE_BEFORE;
        }
    }

    /// Takes a free block out of its list.
    ///
    /// # Safety
    /// It is in one.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    unsafe fn unlist(&mut self, block: Block) {
        // Safety: its links lead to free blocks, or nowhere.
        unsafe {
            let length = Self::length(block);
            let resident = if *block & PURGED == 0 { length } else { 0 };
            let number = Self::pool_of(block);
            let pool = self.pool(number);
            pool.free_bytes -= length;
            pool.resident_bytes -= resident;
            self.free_bytes -= length;
            self.resident_bytes -= resident;
            let (next, before) = (*block.add(1) as Block, *block.add(2) as Block);
            if !next.is_null() {
                *next.add(2) = before as u64;
            }
            if !before.is_null() {
                *before.add(1) = next as u64;
                return;
            }
            let (row, column) = place(length);
            let lists = self.lists.as_deref_mut().expect("there is a pool");
            lists.heads[row][column] = next;
            if next.is_null() {
                lists.columns[row] &= !(1 << column);
                if lists.columns[row] == 0 {
                    lists.rows &= !(1 << row);
                }
            }
        }
    }

    /// # Safety
    /// A header is there.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    #[inline]
    unsafe fn length(block: Block) -> usize {
        // Safety: as the caller says.
        let header = unsafe { *block };
        let units = header >> LENGTH_SHIFT;
        let units = if MOVES && header & FREE == 0 { units & ((1 << SHORT_BITS) - 1) } else { units };
        units as usize * UNIT
    }

    /// # Safety
    /// A header is there.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    #[inline]
    unsafe fn pool_of(block: Block) -> usize {
        // Safety: as the caller says.
        unsafe { (*block >> POOL_SHIFT) as usize & ((1 << POOL_BITS) - 1) }
    }

    /// Another length for a block in use; its owner stays.
    ///
    /// # Safety
    /// A header is there.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    #[inline]
    unsafe fn set_length(block: Block, length: usize) {
        let mask = if MOVES { ((1 << SHORT_BITS) - 1) << LENGTH_SHIFT } else { u64::MAX << LENGTH_SHIFT };
        // Safety: as the caller says.
        unsafe { *block = *block & !mask | ((length / UNIT) as u64) << LENGTH_SHIFT };
    }

    /// A free block comes into use, with this length and no owner yet. What is before it is in use: free neighbours join.
    ///
    /// # Safety
    /// A header is there.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    #[inline]
    unsafe fn set_in_use(block: Block, length: usize) {
        // Safety: as the caller says.
        unsafe {
            let pool = *block & (((1 << POOL_BITS) - 1) << POOL_SHIFT);
            *block = pool | ((length / UNIT) as u64) << LENGTH_SHIFT;
        }
    }

    /// # Safety
    /// The block and what follows it are in one pool.
    #[expect(unsafe_code, reason = "blocks lie in raw memory")]
    #[inline]
    const unsafe fn after(block: Block, length: usize) -> Block {
        // Safety: as the caller says.
        unsafe { block.byte_add(length) }
    }

    /// Fails unless headers, lists and counts agree. `each` is told the owner and the place of each block in use.
    pub fn check(&self, mut each: impl FnMut(u32, NonNull<u8>)) {
        let (mut free_bytes, mut listed, mut bytes) = (0, 0, 0);
        for (number, pool) in self.pools.iter().enumerate().filter_map(|(number, pool)| Some((number, pool.as_ref()?)))
        {
            bytes += pool.bytes;
            let mut free_of_pool = 0;
            // Safety: headers lead from the first block to the end of the pool.
            #[expect(unsafe_code, reason = "blocks lie in raw memory")]
            unsafe {
                let mut block: Block = pool.start.cast::<u64>().add(1);
                let end: Block = pool.start.byte_add(pool.bytes - HEADER_BYTES).cast();
                let mut was_free = false;
                while block < end {
                    let length = Self::length(block);
                    assert!(length >= BLOCK_BYTES_MIN, "a block is too short");
                    assert_eq!(Self::pool_of(block), number, "a block is in another pool");
                    assert_eq!(*block & FREE_BEFORE != 0, was_free, "a block does not know what is before it");
                    assert!(!(was_free && *block & FREE != 0), "two free blocks did not join");
                    was_free = *block & FREE != 0;
                    if was_free {
                        free_of_pool += length;
                    } else {
                        each((*block >> OWNER_SHIFT) as u32, NonNull::new_unchecked(block.add(1).cast()));
                    }
                    block = Self::after(block, length);
                }
                assert_eq!(block, end, "blocks do not fill their pool");
            }
            assert_eq!(free_of_pool, pool.free_bytes, "the count of a pool's free bytes is wrong");
            free_bytes += free_of_pool;
        }
        for list in self.lists.iter().flat_map(|lists| lists.heads.iter().flatten()) {
            let mut block = *list;
            while !block.is_null() {
                // Safety: what is in a list is a free block, with links.
                #[expect(unsafe_code, reason = "blocks lie in raw memory")]
                unsafe {
                    listed += Self::length(block);
                    block = *block.add(1) as Block;
                }
            }
        }
        assert_eq!((free_bytes, listed, bytes), (self.free_bytes, self.free_bytes, self.bytes), "the counts are wrong");
    }
}

impl<const MOVES: bool> Drop for Heap<MOVES> {
    fn drop(&mut self) {
        self.pools.drain(..).flatten().for_each(|pool| system::unmap(pool.start, pool.bytes));
    }
}

impl Lists {
    fn new() -> Option<Box<Self>> {
        let mut list = Vec::new();
        list.try_reserve_exact(1).ok()?;
        list.push(Self { heads: [[std::ptr::null_mut(); COLUMNS]; ROWS], rows: 0, columns: [0; ROWS] });
        // A slice of one is a box of one.
        let list: Box<[Self; 1]> = list.into_boxed_slice().try_into().ok()?;
        // Safety: an array of one has the layout of its only element.
        #[expect(unsafe_code, reason = "a box that is made where memory may be short")]
        unsafe {
            Some(Box::from_raw(Box::into_raw(list).cast()))
        }
    }
}

/// The list of a length: lengths of one list differ by an eighth at most, but for the last, which has all that are longer.
#[inline]
const fn place(length: usize) -> (usize, usize) {
    let units = length / UNIT;
    if units < COLUMNS {
        return (0, units);
    }
    let log = units.ilog2();
    let row = log as usize - 2;
    if row >= ROWS { (ROWS - 1, COLUMNS - 1) } else { (row, (units >> (log - 3)) & (COLUMNS - 1)) }
}

/// The operating system.
mod system {
    use super::MAPPED_FROM_BYTES;
    use std::alloc::{Layout, alloc, dealloc};

    /// So much memory, or nothing.
    pub(super) fn map(bytes: usize) -> Option<*mut u8> {
        #[cfg(unix)]
        if bytes >= MAPPED_FROM_BYTES {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
            // Safety: it asks for fresh memory anywhere.
            #[expect(unsafe_code, reason = "memory of one's own")]
            let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
            return (start != libc::MAP_FAILED).then_some(start.cast());
        }
        let layout = Layout::from_size_align(bytes, 16).ok()?;
        // Safety: no pool has no bytes.
        #[expect(unsafe_code, reason = "memory that may not be had")]
        let start = unsafe { alloc(layout) };
        (!start.is_null()).then_some(start)
    }

    /// What `map` gave, as a whole.
    pub(super) fn unmap(start: *mut u8, bytes: usize) {
        #[cfg(unix)]
        if bytes >= MAPPED_FROM_BYTES {
            // Safety: it was mapped with this length, and nobody uses it.
            #[expect(unsafe_code, reason = "memory of one's own")]
            unsafe {
                libc::munmap(start.cast(), bytes);
            }
            return;
        }
        if let Ok(layout) = Layout::from_size_align(bytes, 16) {
            // Safety: it was allocated with this layout, and nobody uses it.
            #[expect(unsafe_code, reason = "memory of one's own")]
            unsafe {
                dealloc(start, layout);
            }
        }
    }

    /// Has the operating system take whole pages back. False where it does not.
    pub(super) fn purge(start: *mut u8, bytes: usize) -> bool {
        #[cfg(unix)]
        {
            // Safety: the pages are in a mapping of one's own, and what is in them is not needed.
            #[expect(unsafe_code, reason = "memory of one's own")]
            unsafe {
                libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) == 0
            }
        }
        #[cfg(not(unix))]
        {
            let _ = (start, bytes);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// What each owner has, filled with a byte of its own.
    fn check(heap: &Heap<true>, held: &HashMap<u32, (NonNull<u8>, usize)>) {
        let mut met = 0;
        heap.check(|owner, bytes| {
            let (known, len) = held[&owner];
            assert_eq!(bytes, known, "a block is not where its owner thinks");
            // Safety: the block is in use and so long.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) };
            assert!(bytes.iter().all(|&byte| byte == owner as u8), "a block was overwritten");
            met += 1;
        });
        assert_eq!(met, held.len(), "a block was lost");
    }

    proptest! {
        #[test]
        fn blocks_keep_their_bytes_while_others_come_go_and_move(
            bytes_max in prop_oneof![Just(1_usize << 14), Just(1 << 22), Just(1 << 26)],
            steps in prop::collection::vec((0..8_u8, any::<u32>(), 0..14_u32), 1..400),
        ) {
            let mut heap = Heap::<true>::new(bytes_max);
            let mut held: HashMap<u32, (NonNull<u8>, usize)> = HashMap::new();
            for (number, (step, pick, bits)) in steps.into_iter().enumerate() {
                let owner = held.keys().copied().min_by_key(|owner| owner.wrapping_mul(0x9E37_79B9) ^ pick);
                match (step, owner) {
                    (0..=3, _) | (_, None) => {
                        let len = pick as usize % (1 << bits).min(MOVING_BYTES_MAX);
                        let Some(bytes) = heap.allocate(len).or_else(|| heap.grow(len).then(|| heap.allocate(len))?) else {
                            panic!("there is memory");
                        };
                        // Safety: the block is so long and nobody else's.
                        unsafe {
                            Heap::<true>::set_owner(bytes, number as u32);
                            assert!(heap.room_of(bytes) >= len);
                            bytes.as_ptr().write_bytes(number as u8, len);
                        }
                        held.insert(number as u32, (bytes, len));
                    }
                    (4 | 5, Some(owner)) => {
                        let (bytes, _) = held.remove(&owner).expect("known");
                        // Safety: it was allocated here.
                        unsafe { heap.free(bytes) };
                    }
                    (6, Some(owner)) => {
                        let (bytes, len) = held[&owner];
                        // Safety: it was allocated here, and is so long.
                        unsafe { heap.shorten(bytes, len / 2) };
                        held.insert(owner, (bytes, len / 2));
                    }
                    (_, Some(_)) => {
                        for pool in 0..heap.pools.len() {
                            heap.slide(pool, |owner, bytes| held.get_mut(&owner).expect("known").0 = bytes);
                        }
                        heap.tighten();
                    }
                }
                check(&heap, &held);
            }
            for (bytes, _) in held.into_values() {
                // Safety: it was allocated here.
                unsafe { heap.free(bytes) };
            }
            heap.purge(0);
            prop_assert_eq!((heap.bytes_held(), heap.pools.len()), (0, 0), "memory is left over");
        }
    }
}
