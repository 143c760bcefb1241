//! Walks over the whole cache see every live key, once: while nodes come and go, and also when keys have one hash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use distributed_consistent_cache::clock::{Clock, Incarnation};
use distributed_consistent_cache::cluster::clear::Cleared;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::{Address, Known, Reply, Request, Write};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::runtime::Runtime;
use distributed_consistent_cache::simulation::swarm::KEYS_OF_ONE_HASH;
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Cache, Config};
use proptest::prelude::*;

fn cache(nodes: usize, replicas: usize) -> Cache {
    let config = Config::new(nodes, Some(replicas)).expect("valid").node_bytes(4 << 20).expect("valid");
    Cache::new(config.gossip_interval(None).expect("valid"))
}

fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).expect("text")
}

/// Both keys of each pair that has one hash.
fn twins() -> impl Iterator<Item = &'static str> {
    KEYS_OF_ONE_HASH.iter().flatten().map(|key| text(*key))
}

/// Removes everything not newer than this; how much it was.
fn clear(cache: &Cache, timestamp: u64) -> usize {
    let cleared = cache.clear(Some(at(timestamp)), &mut || true);
    assert!(matches!(cleared, Cleared { is_over: true, error: None, .. }), "{cleared:?}");
    cleared.removed
}

/// A file that is removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("walk-test-{}-{name}", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn pairs_of_keys_have_one_hash_each() {
    for [one, other] in KEYS_OF_ONE_HASH {
        let [one, other] = [one, other].map(|key| Key::new(key).expect("short"));
        assert!(one.hash() == other.hash() && one.bytes() != other.bytes());
    }
}

#[test]
fn keys_of_one_hash_are_two_keys_to_everyone_who_looks_at_all() {
    let (cache, file) = (cache(3, 2), File::new("twins"));
    let all: BTreeSet<&str> = twins().collect();
    for (number, key) in twins().enumerate() {
        assert!(cache.put(key, key.as_bytes(), number as u64 % 2).expect("written"));
    }
    let keys: Vec<_> = cache.keys();
    assert_eq!((keys.len(), cache.len()), (all.len(), all.len()));
    assert_eq!(keys.iter().map(|key| text(key)).collect::<BTreeSet<_>>(), all);
    let gauges = cache.gauges().expect("open");
    assert_eq!((gauges.keys, gauges.copies), (all.len() as u64, 2 * all.len() as u64));
    assert_eq!(cache.save(&file.0).expect("saved").entries, all.len() as u64);
    let again = Cache::load(&file.0).expect("loaded").0;
    for key in twins() {
        assert_eq!(again.get(key).expect("read").expect("found").0, key.as_bytes());
    }
    assert_eq!(clear(&cache, 9), all.len());
    assert!(cache.is_empty() && twins().all(|key| cache.get(key).expect("read").is_none()));
}

#[test]
fn the_newest_of_two_keys_of_one_hash_is_saved_of_each() {
    let [one, other] = KEYS_OF_ONE_HASH[0].map(|key| text(key));
    let (cache, file) = (cache(4, 3), File::new("newest"));
    // An owner that was away has old values of both, and sees a remove of one.
    cache.put(one, b"old", 1).expect("written");
    cache.put(other, b"old", 1).expect("written");
    let away = cache.owners_of(one).expect("open")[0].into();
    cache.fail_node(away, false).expect("fails");
    cache.put(one, &[7; 200_000], 2).expect("written");
    cache.remove(other, 3).expect("removed");
    cache.readmit_node(away).expect("is back, and has pulled nothing");
    let report = cache.save(&file.0).expect("saved");
    assert_eq!((report.entries, report.removes), (1, 1));
    let again = Cache::load(&file.0).expect("loaded").0;
    assert_eq!(again.get(one).expect("read"), Some((vec![7; 200_000], 2)));
    assert_eq!(again.get(other).expect("read"), None);
}

#[test]
fn an_answer_in_parts_gives_both_keys_of_one_hash_and_ends() {
    let [asker, answerer] =
        [0, 1].map(|node| Address { node, incarnation: Incarnation::new(1 + u64::from(node), node) });
    let mut node = Node::new(answerer, 1 << 20, 1);
    node.answer(&Request::Hold { partition: 0, peers: &[asker], doubt: false, serves: true }).expect("held");
    for key in twins() {
        let write = Write::put(Key::new(key.as_bytes()).expect("short"), at(1), Value::new(b"value").expect("short"));
        node.answer(&Request::Write { write, force: false }).expect("room");
    }
    let (clock, mut after, mut heard) = (Clock::new(), None, Vec::new());
    loop {
        let clock = std::borrow::Cow::Borrowed(&clock);
        let pull = Request::Pull { from: asker, partition: 0, ticket: 1, clock, epoch: 0, after, chunk_bytes: 0 };
        let Ok(Reply::Delta(delta)) = node.answer(&pull) else { panic!("no answer to a pull") };
        heard.extend(delta.items.iter().map(|item| item.key.bytes().to_vec()));
        assert!(heard.len() <= 2 * KEYS_OF_ONE_HASH.len(), "the same is sent again and again");
        after = delta.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(heard.iter().map(|key| text(key)).collect::<BTreeSet<_>>(), twins().collect());
}

#[test]
fn a_snapshot_asks_all_holders_and_not_owners_only() {
    let (cache, file) = (cache(3, 1), File::new("holders"));
    for number in 0..1000 {
        cache.put(&format!("key {number}"), b"value", number).expect("written");
    }
    // The one that joins owns its share, and has pulled nothing of it.
    cache.admit_node(None).expect("joins");
    let report = cache.save(&file.0).expect("saved");
    assert_eq!(report.entries, 1000);
    assert_eq!((cache.len(), cache.keys().len(), cache.gauges().expect("open").keys), (1000, 1000, 1000));
    // So has everyone who takes over from one that leaves.
    cache.retire_node(0).expect("leaves");
    assert_eq!(cache.save(&file.0).expect("saved").entries, 1000);
    assert_eq!((cache.len(), cache.keys().len(), cache.gauges().expect("open").keys), (1000, 1000, 1000));
    assert_eq!(clear(&cache, 2000), 1000);
    assert!(cache.sync().converged);
    assert!(cache.is_empty());
}

#[test]
fn what_only_an_owner_has_that_has_yet_to_pull_is_no_key() {
    let config = Config::new(3, Some(3)).expect("valid").node_bytes(32 << 10).expect("valid");
    let cache = Cache::new(config.gossip_interval(None).expect("valid"));
    cache.put("old", b"value", 1).expect("written");
    assert!(cache.sync().converged);
    cache.fail_node(0, false).expect("cut off");
    // The others evict it, and forget it: all had seen it.
    for number in 0..2000 {
        cache.put(&format!("key {number}"), &[0; 100], 2).expect("written");
    }
    assert!(cache.readmit_node(0).expect("there"));
    assert_eq!(cache.read_at(0, Key::new(b"old").expect("short"), &mut |_, _| {}), Ok(Some(at(1))));
    assert_eq!(cache.get("old"), Ok(None));
    let keys = cache.keys();
    assert!(!keys.is_empty() && keys.len() == cache.len());
    for key in keys {
        assert!(cache.get(text(&key)).expect("answered").is_some(), "{} is found", text(&key));
    }
}

#[test]
fn a_clear_removes_also_what_only_one_has_that_nobody_believes() {
    let cache = cache(3, 1);
    for number in 0..300 {
        cache.put(&format!("key {number}"), b"value", 1).expect("written");
    }
    // It was away, owns nothing when it is back, and has what the others have yet to pull.
    cache.fail_node(0, false).expect("cut off");
    cache.retire_node(0).expect("leaves");
    assert!(cache.readmit_node(0).expect("there"));
    clear(&cache, 2);
    assert!(cache.sync().converged);
    assert!(cache.is_empty());
}

#[test]
fn a_walk_does_not_wait_for_a_node_that_nobody_knows_is_down() {
    let cache = cache(3, 2);
    for number in 0..100 {
        cache.put(&format!("key {number}"), b"value", number).expect("written");
    }
    cache.runtime().stop(1);
    assert_eq!((cache.len(), cache.keys().len()), (100, 100), "each has another copy");
    assert_eq!(cache.gauges().expect("open").keys, 100);
}

#[test]
fn a_walk_stops_when_it_is_told_to_and_a_clear_says_what_it_did() {
    let cache = cache(3, 2);
    for number in 0..30_000 {
        cache.put(&format!("key {number}"), b"value", number).expect("written");
    }
    assert!(cache.len_while(&mut || false).is_none());
    assert!(cache.gauges_while(&mut || false).expect("open").is_none());
    let mut steps = 0;
    let cleared = cache.clear(Some(at(30_000)), &mut || {
        steps += 1;
        steps <= 2
    });
    assert!(!cleared.is_over && cleared.error.is_none() && cleared.removed > 0, "{cleared:?}");
    assert_eq!(cache.len(), 30_000 - cleared.removed);
    cache.close();
    assert!(cache.clear(Some(at(30_000)), &mut || true).error.is_some());
}

/// Lets one node at a time fail and recover, while `run` does.
fn while_nodes_fail_and_recover(cache: &Cache, run: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for node in 0..4 {
                    cache.fail_node(node, true).expect("fails");
                    cache.recover_node(node).expect("recovers");
                }
            }
        });
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        is_over.store(true, Ordering::Relaxed);
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn every_live_key_is_met_while_one_node_at_a_time_fails_and_recovers() {
    const KEYS: usize = 2000;
    let (cache, file) = (cache(4, 2), File::new("failing"));
    for number in 0..KEYS {
        cache.put(&format!("key {number}"), b"value", 1).expect("written");
    }
    while_nodes_fail_and_recover(&cache, || {
        for _ in 0..20 {
            assert_eq!(cache.len(), KEYS);
            assert_eq!(cache.keys().iter().collect::<BTreeSet<_>>().len(), KEYS);
            assert_eq!(cache.gauges().expect("open").keys, KEYS as u64);
            assert_eq!(cache.save(&file.0).expect("saved").entries, KEYS as u64);
        }
    });
}

#[test]
fn nothing_older_survives_a_clear_while_one_node_at_a_time_fails_and_recovers() {
    const KEYS: usize = 500;
    let cache = cache(4, 2);
    while_nodes_fail_and_recover(&cache, || {
        for round in 1..=15 {
            for number in 0..KEYS {
                cache.put(&format!("key {number}"), b"value", 2 * round).expect("written");
            }
            clear(&cache, 2 * round + 1);
            let left = (0..KEYS).filter(|number| cache.get(&format!("key {number}")).expect("read").is_some()).count();
            assert_eq!(left, 0, "in round {round}");
        }
    });
}

#[test]
fn every_live_key_is_met_while_nodes_join_and_leave_with_one_copy() {
    const KEYS: usize = 2000;
    let (cache, file) = (cache(3, 1), File::new("joining"));
    for number in 0..KEYS {
        cache.put(&format!("key {number}"), b"value", 1).expect("written");
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let node = cache.add_node(None).expect("joins");
                cache.remove_node(node.into()).expect("leaves");
            }
        });
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..20 {
                assert_eq!(cache.len(), KEYS);
                assert_eq!(cache.keys().iter().collect::<BTreeSet<_>>().len(), KEYS);
                assert_eq!(cache.save(&file.0).expect("saved").entries, KEYS as u64);
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// What a user does to a cache whose keys collide.
#[derive(Clone, Debug)]
enum Deed {
    Put(usize, u64),
    Remove(usize, u64),
    Clear(u64),
    Fail(usize, bool),
    Recover(usize),
    SaveAndRestore,
}

fn deed() -> impl Strategy<Value = Deed> {
    let (key, time, node) = (0..2 * KEYS_OF_ONE_HASH.len(), 0..40_u64, 0..3_usize);
    prop_oneof![
        12 => (key.clone(), time.clone()).prop_map(|(key, time)| Deed::Put(key, time)),
        4 => (key, time.clone()).prop_map(|(key, time)| Deed::Remove(key, time)),
        1 => time.prop_map(Deed::Clear),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, lose_memory)| Deed::Fail(node, lose_memory)),
        2 => node.prop_map(Deed::Recover),
        1 => Just(Deed::SaveAndRestore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// With the feature `few-hashes` all keys collide with others, else each with its twin.
    #[test]
    fn a_cache_whose_keys_collide_is_a_dictionary(deeds in prop::collection::vec(deed(), 1..80)) {
        let (mut cache, file) = (cache(3, 2), File::new("dictionary"));
        let names: Vec<&str> = twins().collect();
        let mut model: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
        let newer = |model: &BTreeMap<&str, (u64, Option<u64>)>, key: &str, time| {
            model.get(key).is_none_or(|&(known, value)| known < time || known == time && value.is_some())
        };
        let mut down = None;
        for (number, deed) in deeds.into_iter().enumerate() {
            match deed {
                Deed::Put(key, time) => {
                    // Of two puts at one time the larger digest would win: here the time is the value.
                    let key = names[key];
                    let wins = newer(&model, key, time);
                    prop_assert_eq!(cache.put(key, &time.to_le_bytes(), time).expect("written"), wins, "{} {}", number, key);
                    if wins {
                        model.insert(key, (time, Some(time)));
                    }
                }
                Deed::Remove(key, time) => {
                    let key = names[key];
                    let removes = model.get(key).is_some_and(|&(known, value)| known <= time && value.is_some());
                    prop_assert_eq!(cache.remove(key, time).expect("removed"), removes, "{} {}", number, key);
                    if newer(&model, key, time) {
                        model.insert(key, (time, None));
                    }
                }
                Deed::Clear(time) => {
                    let gone = model.values_mut().filter(|(known, value)| value.is_some() && *known <= time);
                    prop_assert_eq!(clear(&cache, time), gone.map(|known| *known = (time, None)).count());
                }
                // One at a time, so that a copy is left.
                Deed::Fail(node, lose_memory) if down.is_none() => {
                    cache.fail_node(node, lose_memory).expect("fails");
                    down = Some(node);
                }
                Deed::Recover(node) if down == Some(node) => {
                    cache.recover_node(node).expect("recovers");
                    down = None;
                }
                Deed::Fail(..) | Deed::Recover(_) => {}
                Deed::SaveAndRestore => {
                    cache.save(&file.0).expect("saved");
                    cache = Cache::load(&file.0).expect("loaded").0;
                    down = None;
                }
            }
            let live: BTreeSet<&str> = model.iter().filter(|(_, known)| known.1.is_some()).map(|(key, _)| *key).collect();
            let keys = cache.keys();
            prop_assert_eq!(keys.len(), live.len(), "{}", number);
            prop_assert_eq!(&keys.iter().map(|key| text(key)).collect::<BTreeSet<_>>(), &live);
            prop_assert_eq!(cache.len(), live.len());
            prop_assert_eq!(cache.gauges().expect("open").keys, live.len() as u64);
            for key in &names {
                let found = cache.get(key).expect("read").map(|(_, time)| time);
                prop_assert_eq!(found, model.get(key).and_then(|known| known.1), "{} {}", number, key);
            }
        }
        let view = cache.view();
        for member in view.members() {
            cache.runtime().look(member.address, &mut |node| node.check()).ok();
        }
        // What anyone knows of a key is what there is.
        for (key, (time, _)) in &model {
            let key = Key::new(key.as_bytes()).expect("short");
            for owner in cache.owners(key).expect("open") {
                let mut known = Known::Nothing;
                cache.runtime().look(view.address(owner), &mut |node| known = node.describe(key).known).ok();
                prop_assert!(known.version().is_none_or(|version| version.timestamp <= at(*time)));
            }
        }
    }
}
