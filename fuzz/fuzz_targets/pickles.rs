//! ```text
//!   bytes  ->  put  ->  get_value of anything, of nothing, of a type of one's own  ->  a value, or an error
//! ```
//! The reader of plain pickles that Rust programs use. It takes memory in proportion to the bytes, and asks for it so often,
//! whatever they say; the fuzzer's own limit of a second is for time that is spent without either.

#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use distributed_consistent_cache::{Cache, Config};
use libfuzzer_sys::fuzz_target;
use measured::{Counting, Taken, measure};
use serde::de::{DeserializeOwned, IgnoredAny};

mod measured;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is there once: the copy that `get` gives, texts of errors, and four kilobytes for each container that is begun.
const FREE_TIMES: usize = 64;
const FREE_BYTES: usize = (128 + 8) * 4096;

/// Containers that are begun and ended take as much, one after the other.
const BYTES_PASSED_A_BYTE: usize = 8 * 1024;

/// A byte of a pickle may be a value: one in the stack, one in a list, with what they have grown by.
const BYTES_A_BYTE: usize = 400;

/// A string that is used again is copied: into at most so many times the bytes of the pickle, and this.
const COPIES_MAX: usize = 64;
const COPIED_FREE: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    static TIMESTAMP: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let cache = CACHE.get_or_init(|| {
        let config = Config::new(1, None).and_then(|config| config.gossip_interval(None));
        Cache::new(config.expect("valid"))
    });
    let timestamp = TIMESTAMP.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if !cache.put("key", bytes, timestamp).is_ok_and(|is_newest| is_newest) {
        return;
    }
    read::<serde_pickle::Value>(cache, bytes.len());
    read::<IgnoredAny>(cache, bytes.len());
    read::<BTreeMap<String, Vec<Option<f64>>>>(cache, bytes.len());
    read::<(String, i64, Option<bool>)>(cache, bytes.len());
});

fn read<T: DeserializeOwned>(cache: &Cache, length: usize) {
    // Most bytes are nothing of the kind, and that is well: it only must end.
    let (read, taken) = measure(|| cache.get_value::<T>("key"));
    let Taken { times, bytes, peak, .. } = taken;
    let is_little = times <= FREE_TIMES + 16 * length
        && peak <= FREE_BYTES + COPIED_FREE + (BYTES_A_BYTE + COPIES_MAX) * length
        && bytes <= FREE_BYTES + 2 * COPIED_FREE + BYTES_PASSED_A_BYTE * length;
    assert!(is_little, "{length} bytes took {taken:?}");
    drop(read);
}
