//! ```text
//!   bytes  ->  Value::new  ->  whole       the same bytes
//!          ->  Items: push ->  iter        the same items
//!          ->  parse_bytes                 a number, or none
//!          ->  put, get_value              a value, or an error: never a panic, and never memory without bound
//! ```
//! What decodes bytes that come from outside.

#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use distributed_consistent_cache::clock::{Dot, Incarnation};
use distributed_consistent_cache::config::parse_bytes;
use distributed_consistent_cache::entry::{ENVELOPE_BYTES, Held, Item, Items, Key, Value};
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Config};
use libfuzzer_sys::fuzz_target;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

fuzz_target!(|bytes: &[u8]| {
    value(bytes);
    items(bytes);
    size(bytes);
    typed(bytes);
});

fn value(bytes: &[u8]) {
    let value = Value::new(bytes).expect("short");
    assert_eq!(&*value.whole(), bytes);
    assert_eq!(value.is_unframed(), value.bytes().len() + ENVELOPE_BYTES == bytes.len());
    // Given without its envelope it is the same value.
    if value.is_unframed() {
        assert_eq!(Value::unframed(value.bytes()), Ok(value));
    }
}

/// The first byte of each piece says what it is and how long its key and its value are.
fn items(bytes: &[u8]) {
    let mut items = Items::default();
    let mut pushed = Vec::new();
    let mut rest = bytes;
    while let Some((&head, tail)) = rest.split_first() {
        let (key, tail) = tail.split_at(tail.len().min(usize::from(head & 7)));
        let (body, tail) = tail.split_at(tail.len().min(usize::from(head >> 3)));
        rest = tail;
        let timestamp = Timestamp::new(u64::from(head)).expect("small");
        let value = Value::new(body).expect("short");
        let (held, version) = match head % 3 {
            0 => (Held::Evicted, Version::put(timestamp, u64::from(head))),
            1 => (Held::Removed, Version::remove(timestamp)),
            _ => (Held::Live(value), Version::put(timestamp, value.digest())),
        };
        let dot = Dot { incarnation: Incarnation::new(1, head), counter: pushed.len() as u64 + 1 };
        let item = Item { key: Key::new(key).expect("short"), version, dot, held };
        items.push(item);
        pushed.push(item);
    }
    assert_eq!((items.len(), items.is_empty()), (pushed.len(), pushed.is_empty()));
    assert!(items.iter().eq(pushed));
}

fn size(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(size) = parse_bytes(text) else { return };
    assert_eq!(parse_bytes(&size.to_string()), Some(size), "a number of bytes is itself");
}

#[derive(Debug, Deserialize, Serialize)]
struct User {
    name: String,
    age: Option<i64>,
    scores: Vec<f64>,
    more: BTreeMap<String, (bool, u8)>,
}

#[derive(Debug, Deserialize, Serialize)]
enum Shape {
    Point,
    Circle(f32),
    Box { width: u32, height: u32 },
}

fn typed(bytes: &[u8]) {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    static TIMESTAMP: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let cache = CACHE.get_or_init(|| {
        let config = Config::new(1, None).and_then(|config| config.gossip_interval(None));
        Cache::new(config.expect("valid"))
    });
    let timestamp = TIMESTAMP.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
    if !cache.put("key", bytes, timestamp).is_ok_and(|is_newest| is_newest) {
        return;
    }
    // Most bytes are nothing of the kind, and that is well: it only must end.
    let _ = cache.get_value::<IgnoredAny>("key");
    let _ = cache.get_value::<serde_pickle::Value>("key");
    let (user, shape) = (cache.get_value::<User>("key"), cache.get_value::<Shape>("key"));
    if let Ok(Some((user, _))) = user {
        write_and_read(cache, &user, timestamp + 1);
    }
    if let Ok(Some((shape, _))) = shape {
        write_and_read(cache, &shape, timestamp + 1);
    }
}

/// What was read can be written, and read again.
fn write_and_read<T: Serialize + DeserializeOwned + Debug>(cache: &Cache, value: &T, timestamp: u64) {
    if cache.put_value("key", value, timestamp).is_ok() {
        let again = cache.get_value::<T>("key").expect("a value").expect("held").0;
        // By their text: a number that is none equals nothing.
        assert_eq!(format!("{again:?}"), format!("{value:?}"));
    }
}
