//! What a full node really takes, from the allocator and in heaps of its own, is at most 1.25 times what it accounts for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::lifetime::Lifetime;
use distributed_consistent_cache::message::{Address, Request, Write};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::version::Timestamp;

/// The system's allocator, with a count for each thread of what its live allocations take.
struct Counting;

thread_local! {
    static TAKEN: Cell<i64> = const { Cell::new(0) };
}

/// What glibc's malloc takes for an allocation: a word before it, rounded to 16, at least 32.
fn taken(layout: Layout) -> i64 {
    ((layout.size() + 8 + 15) & !15).max(32) as i64
}

fn count(bytes: i64) {
    // A thread that ends counts no more.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + bytes));
}

// Safety: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(taken(layout));
        // Safety: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-taken(layout));
        // Safety: as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A pool of such a node's heaps. Pools are mapped, which the allocator does not see.
const POOL_BYTES: f64 = 64.0 * 1024.0;

/// `ends_ms` says when the entry of a number ends.
fn check(name: &str, bytes_max: u64, sizes: &[usize], ends_ms: impl Fn(u64) -> Option<u64>) {
    const PARTITIONS: u16 = 16;
    let value = vec![7; sizes.iter().copied().max().unwrap_or(0)];
    let before = TAKEN.with(Cell::get);
    let mut node = Node::new(Address { node: 0, incarnation: Incarnation::new(1, 0) }, bytes_max, PARTITIONS);
    for partition in 0..PARTITIONS {
        node.answer(&Request::Hold { partition, peers: &[], doubt: false, serves: true }).expect("held");
    }
    let mut written = 0;
    let mut number = 0_usize;
    while written < 3 * bytes_max {
        let size = sizes[number % sizes.len()];
        let key = format!("key {number}");
        let value = Value::new(&value[..size]).expect("short");
        let lifetime = Lifetime::new(0, ends_ms(number as u64).map(Duration::from_millis));
        let key = Key::new(key.as_bytes()).expect("short");
        let write = Write::put_living(key, Timestamp::default(), value, lifetime);
        node.answer(&Request::Write { write, force: false }).expect("room");
        written += 64 + size as u64;
        number += 1;
        if number.is_multiple_of(997) {
            let measured = TAKEN.with(Cell::get) - before + node.bytes_held() as i64;
            let accounted = node.stats().bytes_used as f64;
            // Each of three heaps may have a pool more.
            assert!(
                measured as f64 <= 1.25 * accounted + 3.0 * POOL_BYTES,
                "{name}: {measured} are taken, {accounted} accounted for"
            );
        }
    }
    node.check();
    let measured = (TAKEN.with(Cell::get) - before + node.bytes_held() as i64) as f64;
    let accounted = node.stats().bytes_used as f64;
    assert!(measured <= 1.25 * accounted + POOL_BYTES, "{name}: {measured} are taken, {accounted} accounted for");
    assert!(
        accounted >= 0.90 * bytes_max as f64 || sizes.len() == 1,
        "{name}: a full node has {accounted} of {bytes_max}"
    );
}

#[test]
fn the_allocator_agrees_with_the_account() {
    check("integers", 1 << 20, &[5], |_| None);
    check("100 bytes", 1 << 20, &[104], |_| None);
    check("awkward sizes", 1 << 20, &[0, 9, 25, 57, 121, 1000], |_| None);
    check("many small, then few large", 1 << 20, &[&[8; 3000][..], &[100_000; 20]].concat(), |_| None);
    check("large", 8 << 20, &[16 * 1024, 40_000, 200_000], |_| None);
}

#[test]
fn the_allocator_agrees_while_entries_end() {
    check("in the order in which they were put", 1 << 20, &[5], |number| Some(number + 1));
    check("the last first", 1 << 20, &[5, 104], |number| Some(1_000_000 - number));
    check("in any order", 1 << 20, &[5, 104], |number| Some(1 + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32)));
    check("one of three", 1 << 20, &[5, 104], |number| number.is_multiple_of(3).then_some(number + 1));
    check("large", 8 << 20, &[16 * 1024, 40_000], |number| Some(number + 1));
}
