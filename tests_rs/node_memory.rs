//! One node is an exact least-recently-used memory of so many bytes: what a model with a list of keys says, it holds.

use distributed_consistent_cache::Error;
use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::{Address, Known, Lent, Reply, Request, Write, Written};
use distributed_consistent_cache::node::{Node, entry_bytes, entry_bytes_max};
use distributed_consistent_cache::version::Timestamp;
use proptest::prelude::*;

const PARTITIONS: u16 = 4;
const START_MS: u64 = 1_800_000_000_123;

fn node(bytes_max: u64) -> Node {
    let mut node = Node::new(Address { node: 0, incarnation: Incarnation::new(1, 0) }, bytes_max, PARTITIONS);
    for partition in 0..PARTITIONS {
        node.answer(&Request::Hold { partition, peers: &[], doubt: false, serves: true }).expect("held");
    }
    node
}

fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

fn put(node: &mut Node, key: &[u8], value: &[u8], timestamp: u64) -> Result<Written, Error> {
    let write = Write::put(Key::new(key).expect("short"), at(timestamp), Value::new(value).expect("short"));
    match node.answer(&Request::Write { write, force: false })? {
        Reply::Written(written) => Ok(written),
        other => panic!("{other:?}"),
    }
}

fn get(node: &mut Node, key: &[u8], touch: bool) -> Option<(Vec<u8>, u64)> {
    let mut bytes = Vec::new();
    let read = node.get(Key::new(key).expect("short"), touch, &mut |_, lent| {
        bytes = match lent {
            Lent::Now(value) => value.whole().into_owned(),
            Lent::Share(share) => share.value().whole().into_owned(),
        }
    });
    match read.known {
        Known::Live(version) => Some((bytes, version.timestamp.get())),
        _ => None,
    }
}

/// Keys with values, timestamps and when they were used, the most recently used last.
#[derive(Default)]
struct Model {
    entries: Vec<(Vec<u8>, Vec<u8>, u64, u64)>,
    now_ms: u64,
}

impl Model {
    fn use_(&mut self, key: &[u8]) -> Option<&(Vec<u8>, Vec<u8>, u64, u64)> {
        let place = self.entries.iter().position(|(known, ..)| known == key)?;
        let (key, value, timestamp, _) = self.entries.remove(place);
        self.entries.push((key, value, timestamp, self.now_ms));
        self.entries.last()
    }

    fn put(&mut self, key: &[u8], value: &[u8], timestamp: u64) {
        self.entries.retain(|(known, ..)| known != key);
        self.entries.push((key.to_vec(), value.to_vec(), timestamp, self.now_ms));
    }

    fn remove(&mut self, key: &[u8]) {
        self.entries.retain(|(known, ..)| known != key);
    }

    /// Forgets from the least recently used end what the node has evicted, and returns it in the order in which it went.
    fn evict_down_to(&mut self, len: usize) -> Vec<(Vec<u8>, Vec<u8>, u64, u64)> {
        let evicted = self.entries.len() - len;
        self.entries.drain(..evicted).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Get(u8),
    Peek(u8),
    Remove(u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..200usize, 3 => 200..2000usize, 1 => 2000..20_000usize];
    let step = prop_oneof![
        6 => (any::<u8>(), size).prop_map(|(key, size)| Step::Put(key, size)),
        3 => any::<u8>().prop_map(Step::Get),
        1 => any::<u8>().prop_map(Step::Peek),
        1 => any::<u8>().prop_map(Step::Remove),
        2 => (0..36_u32).prop_flat_map(|bits| 0..1_u64 << bits).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

fn name(key: u8) -> Vec<u8> {
    format!("key {key}").repeat(1 + usize::from(key % 4)).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// After each step the node holds what the model holds, in the same order of use; what it evicted is what was used
    /// least recently; and it evicts only when it must. It knows when each was used.
    #[test]
    fn contents_and_order_agree_with_a_list(steps in steps(), kib in 16..64u64) {
        let bytes_max = kib * 1024;
        let (mut node, mut model) = (node(bytes_max), Model { entries: Vec::new(), now_ms: START_MS });
        node.tell_time(START_MS);
        for (number, step) in steps.into_iter().enumerate() {
            let timestamp = number as u64 + 1;
            let before = node.stats();
            match step {
                Step::Put(key, size) => {
                    let (key, value) = (name(key), vec![key; size]);
                    match put(&mut node, &key, &value, timestamp) {
                        Ok(_) => model.put(&key, &value, timestamp),
                        Err(Error::ValueTooLarge { .. }) => prop_assert_eq!(node.stats(), before, "a refusal changes nothing"),
                        Err(other) => panic!("{other}"),
                    }
                }
                Step::Get(key) => {
                    let expected = model.use_(&name(key)).map(|(_, value, timestamp, _)| (value.clone(), *timestamp));
                    prop_assert_eq!(get(&mut node, &name(key), true), expected);
                }
                Step::Peek(key) => {
                    let known = model.entries.iter().find(|(known, ..)| *known == name(key));
                    prop_assert_eq!(get(&mut node, &name(key), false), known.map(|(_, value, at, _)| (value.clone(), *at)));
                }
                Step::Remove(key) => {
                    let name = name(key);
                    let write = Write::remove(Key::new(&name).expect("short"), at(timestamp));
                    node.answer(&Request::Write { write, force: false }).expect("removed");
                    model.remove(&name);
                }
                Step::Wait(ms) => {
                    model.now_ms += ms;
                    node.tell_time(model.now_ms);
                }
            }
            node.check();
            let (keys, stats) = (node.keys_by_use(), node.stats());
            let gone = model.evict_down_to(keys.len());
            prop_assert_eq!(stats.evictions - before.evictions, gone.len() as u64);
            if let Some((key, value, ..)) = gone.last() {
                // With the last one that went there would have been less room than tables and a page may have needed.
                let last = entry_bytes(key.len(), value.len());
                prop_assert!(stats.bytes_used + last + 8192 > bytes_max, "it evicted without need: {:?}", stats);
            }
            let newest_first: Vec<_> = model.entries.iter().rev().map(|(key, ..)| key.clone()).collect();
            prop_assert_eq!(keys, newest_first);
            let unsure_ms = 1 + (model.now_ms - START_MS) / 8000;
            for (key, .., used_ms) in &model.entries {
                let told_ms = node.describe(Key::new(key).expect("short")).last_use_ms.expect("it is live");
                prop_assert!(told_ms <= *used_ms && used_ms - told_ms <= unsure_ms, "{used_ms} is told as {told_ms}");
            }
        }
    }
}

#[test]
fn an_entry_takes_its_slot_and_a_block_that_is_rounded_up() {
    // 48 for the slot; 8 more than key and value, in units of 16, two of them at least. A large one is counted by 16 more.
    for (key, value, block) in
        [(1, 0, 32), (8, 16, 32), (8, 17, 48), (16, 104, 128), (16, 105, 144), (8, 16_376, 16_416)]
    {
        assert_eq!(entry_bytes(key, value), 48 + block, "{key} and {value} bytes");
    }
}

#[test]
fn an_entry_of_16_and_100_bytes_takes_at_most_80_more() {
    let mut node = node(1 << 20);
    // What Python's 100 bytes are as a pickle: 115 bytes, of which the envelope's 11 are not stored.
    let pickle = [&b"\x80\x05\x95\x68\0\0\0\0\0\0\0C\x64"[..], &[7; 100], b"\x94."].concat();
    for number in 0..20_000 {
        put(&mut node, format!("{number:016}").as_bytes(), &pickle, 1).expect("room");
    }
    node.check();
    let stats = node.stats();
    assert!(stats.entries >= 5500, "{stats:?}");
    assert!(stats.bytes_used / stats.entries - 116 <= 80, "{stats:?}");
    assert_eq!(get(&mut node, format!("{:016}", 19_999).as_bytes(), false), Some((pickle, 1)));
}

#[test]
fn a_value_that_can_never_fit_pushes_nothing_out() {
    let mut node = node(64 * 1024);
    for number in 0..100 {
        put(&mut node, format!("{number}").as_bytes(), b"value", 1).expect("room");
    }
    let before = node.stats();
    let bytes_max = entry_bytes_max(64 * 1024) as usize;
    assert!(matches!(put(&mut node, b"large", &vec![0; bytes_max], 1), Err(Error::ValueTooLarge { .. })));
    assert_eq!(node.stats(), before);
    put(&mut node, b"large", &vec![0; bytes_max - 200], 1).expect("room, when all else is evicted");
    node.check();
}
