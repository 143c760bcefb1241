//! A dictionary is there for as long as a value needs it: through failures, in snapshots, whoever else is at work.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use distributed_consistent_cache::cluster::restore::{self, Verifying};
use distributed_consistent_cache::dictionary::{DICTIONARY_BYTES_MAX, Library};
use distributed_consistent_cache::entry::Value;
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::packed::dictionary_of;
use distributed_consistent_cache::snapshot::block::DICTIONARY;
use distributed_consistent_cache::stats::DictionaryState;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Compression, Error};
use xxhash_rust::xxh3::Xxh3;

use crate::values::{ClearAll, check_nodes, config, dictionary_cache, key, noise, reading, record, signed, teach};

/// A file of its own for each test, removed at its end.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("dictionaries-{}-{number}.snapshot", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A cache with a dictionary and 500 values that need it, the last of them `key 499`.
fn full() -> Cache {
    let cache = dictionary_cache(1 << 20);
    teach(&cache, record);
    put_records(&cache);
    cache
}

fn put_records(cache: &Cache) {
    for number in 0..500 {
        cache.put(&format!("key {number}"), &record(number), 1).expect("written");
    }
}

/// How many of the 500 values are there. Each that is, is as it was put.
fn count(cache: &Cache) -> usize {
    let is_there = |number: &usize| match cache.get(&format!("key {number}")).expect("whole, or a miss") {
        Some(found) => {
            assert_eq!(found, (record(*number), 1));
            true
        }
        None => false,
    };
    (0..500).filter(is_there).count()
}

/// Steps of the background, ten minutes of them, which come after those of an earlier call.
fn study(cache: &Cache) {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let start = Instant::now() + Duration::from_secs(CALLS.fetch_add(1, Ordering::Relaxed) * 600);
    (0..600).for_each(|seconds| cache.packing().study(&**cache, start + Duration::from_secs(seconds)));
}

/// Where the first block of a kind begins in a snapshot, and where it ends.
fn block(bytes: &[u8], kind: u8) -> (usize, usize) {
    let mut at = 12 + usize::from(u16::from_le_bytes([bytes[10], bytes[11]])) + 8;
    loop {
        let stored = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        if bytes[at] == kind {
            return (at, at + 24 + stored);
        }
        at += 24 + stored;
    }
}

fn verify(file: &File) -> Result<(), Error> {
    let mut verifying = Verifying::begin(&file.0)?;
    while verifying.step()?.is_none() {}
    Ok(())
}

#[test]
fn a_snapshot_brings_its_dictionaries_and_they_are_used_on() {
    let file = File::new();
    full().save(&file.0).expect("saved");
    verify(&file).expect("whole");
    assert_eq!(restore::info(&file.0).expect("whole").header.config.packs(), Compression::None, "that of the cluster");

    let again = dictionary_cache(1 << 20);
    let report = again.restore(&file.0).expect("restored");
    assert_eq!((report.applied, report.too_large), (report.entries + report.removes, 0));
    assert_eq!((count(&again), check_nodes(&again)), (500, vec![1; 3]));
    // There is nothing to train: what was trained before is adopted.
    study(&again);
    let stats = again.value_stats();
    assert_eq!((stats.dictionary, stats.dictionaries, stats.trainings), (DictionaryState::InUse, 1, 0));
    again.put("small", &record(1), 4).expect("written");
    assert_eq!(again.value_stats().packed, 1);
    assert_eq!(count(&again), 500);
    // One that trains nothing reads them as well.
    let other = Cache::new(config(Compression::Lz4).node_bytes(1 << 20).expect("valid"));
    other.restore(&file.0).expect("restored");
    assert_eq!((count(&other), check_nodes(&other)), (500, vec![1; 3]));
}

#[test]
fn a_dictionary_that_is_known_already_is_not_kept_twice() {
    let (file, cache) = (File::new(), full());
    cache.save(&file.0).expect("saved");
    for _ in 0..2 {
        let report = cache.restore(&file.0).expect("restored");
        assert_eq!(report.applied, report.entries + report.removes, "the very same writes are in place");
        assert_eq!(check_nodes(&cache), [1; 3]);
    }
    study(&cache);
    assert_eq!((count(&cache), check_nodes(&cache)), (500, vec![1; 3]));
}

#[test]
fn a_snapshot_with_a_damaged_dictionary_changes_nothing() {
    let file = File::new();
    full().save(&file.0).expect("saved");
    let whole = fs::read(&file.0).expect("a file");
    let (start, end) = block(&whole, DICTIONARY);
    assert!(end - start > 1_000, "{start}..{end}");
    let other = dictionary_cache(1 << 20);
    other.put("here", b"here", 1).expect("written");
    let refuse = |bytes: &[u8], what: &str| {
        fs::write(&file.0, bytes).expect("written");
        for error in [verify(&file).expect_err(what), other.restore(&file.0).expect_err(what)] {
            assert!(matches!(error, Error::Snapshot { .. }), "{what}: {error}");
        }
        assert_eq!((other.len(), check_nodes(&other), other.dictionaries().len()), (1, vec![0; 3], 0), "{what}");
    };
    for at in (start..end).step_by(997).chain(start..start + 24) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        refuse(&changed, &format!("byte {at}"));
        refuse(&whole[..at], &format!("cut at {at}"));
    }
    refuse(&[&whole[..start], &whole[end..]].concat(), "left out");
    refuse(&[&whole[..end], &whole[start..]].concat(), "doubled");
    // With a right checksum, but longer than a dictionary is, or with records.
    for (stored, records) in [(DICTIONARY_BYTES_MAX + 1, 0_u32), (0, 0), (100, 1)] {
        let mut head = vec![DICTIONARY, 0, 0, 0];
        [stored as u32, stored as u32, records].iter().for_each(|number| head.extend(number.to_le_bytes()));
        let body = vec![7; stored];
        let mut hasher = Xxh3::new();
        hasher.update(&head);
        hasher.update(&body);
        head.extend(hasher.digest().to_le_bytes());
        refuse(&[&whole[..start], &head, &body, &whole[end..]].concat(), &format!("{stored} bytes, {records} records"));
    }
    fs::write(&file.0, &whole).expect("written");
    other.restore(&file.0).expect("it was the damage");
    assert_eq!(count(&other), 500);
}

#[test]
fn values_that_need_a_dictionary_no_node_has_room_for_are_left_out_and_counted() {
    let file = File::new();
    let cache = full();
    cache.clear_all();
    cache.put("needs it", &record(1), 5).expect("written");
    cache.put("does not", &noise(1, 60), 5).expect("written");
    cache.save(&file.0).expect("saved");
    let small = Cache::new(config(Compression::Lz4).node_bytes(32 * 1024).expect("valid"));
    let report = small.restore(&file.0).expect("restored");
    assert_eq!((report.entries, report.too_large), (2, 1));
    assert_eq!((small.get("needs it"), small.get("does not")), (Ok(None), Ok(Some((noise(1, 60), 5)))));
    assert_eq!((check_nodes(&small), small.dictionaries().len()), (vec![0; 3], 0));
}

#[test]
fn a_dictionary_that_is_trained_while_a_snapshot_is_written_is_in_it() {
    let (file, cache) = (File::new(), dictionary_cache(1 << 20));
    cache.put("before", b"before", 1).expect("written");
    let mut saving = cache.begin_save(&file.0).expect("begun");
    // One key so far; what is put now may be in the file, and what it needs must be.
    teach(&cache, record);
    put_records(&cache);
    cache.put("before", &record(7), 2).expect("written");
    while saving.step().expect("saved").is_none() {}
    verify(&file).expect("whole");
    let again = Cache::new(config(Compression::Lz4).node_bytes(1 << 20).expect("valid"));
    again.restore(&file.0).expect("restored");
    assert_eq!(again.get("before"), Ok(Some((record(7), 2))), "the dictionary is in the file");
}

#[test]
fn nothing_is_forgotten_while_a_snapshot_is_written() {
    let (file, cache) = (File::new(), full());
    cache.put("old", &record(1), 1).expect("written");
    teach(&cache, reading);
    assert_eq!(cache.get("old"), Ok(Some((record(1), 1))));
    let mut saving = cache.begin_save(&file.0).expect("begun");
    cache.clear_all();
    study(&cache);
    assert_eq!(check_nodes(&cache), [2; 3], "the snapshot may have values that need it");
    while saving.step().expect("saved").is_none() {}
    drop(saving);
    study(&cache);
    assert_eq!(check_nodes(&cache), [1; 3], "now it may go");
}

#[test]
fn what_came_with_a_snapshot_is_forgotten_when_no_value_needs_it_any_more() {
    let file = File::new();
    full().save(&file.0).expect("saved");
    let cache = dictionary_cache(1 << 20);
    teach(&cache, reading);
    cache.restore(&file.0).expect("restored");
    study(&cache);
    // Nodes that are full drop some of what was there, not what was restored last.
    assert_eq!((check_nodes(&cache), count(&cache)), (vec![2; 3], 500));
    cache.clear_all();
    study(&cache);
    assert_eq!(check_nodes(&cache), [1; 3], "its own, and not the other's");
    cache.put("new", &reading(1), 5).expect("written");
    assert_eq!(cache.get("new"), Ok(Some((reading(1), 5))));
}

#[test]
fn a_value_on_a_node_that_is_cut_off_keeps_its_dictionary() {
    let cache = full();
    cache.put("old", &record(1), 5).expect("written");
    teach(&cache, reading);
    let id = cache.dictionaries()[0].id();
    // Now nobody but those that are cut off has a value that needs the first.
    let owners = cache.owners_of("old").expect("open");
    owners.iter().for_each(|&node| cache.fail_node(node.into(), false).expect("there"));
    cache.clear_all();
    study(&cache);
    assert!(cache.find(id).is_some(), "it comes back with them");
    owners.iter().for_each(|&node| assert!(cache.recover_node(node.into()).is_ok()));
    assert_eq!(cache.get("old"), Ok(Some((record(1), 5))));
}

#[test]
fn readers_and_writers_go_on_while_dictionaries_come_and_go() {
    let cache = dictionary_cache(256 * 1024);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (cache, over) = (&cache, &over);
        scope.spawn(move || {
            let start = Instant::now();
            for step in 0.. {
                // Time runs fast, so that dictionaries are looked for and forgotten again and again.
                cache.packing().study(&**cache, start + Duration::from_secs(20 * step));
                std::thread::sleep(Duration::from_millis(1));
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for thread in 0..2 {
            scope.spawn(move || {
                for number in 0..60_000_usize {
                    let kind = if number / 15_000 % 2 == 0 { record } else { reading };
                    let (name, value) = (format!("{thread} {}", number % 700), kind(number));
                    cache.put(&name, &value, number as u64).expect("written");
                    if let Some(found) = cache.get(&name).expect("whole, or a miss") {
                        assert_eq!(found, (value, number as u64));
                    }
                    cache.get(&format!("{} {}", 1 - thread, number % 601)).expect("whole, or a miss");
                    if number % 20_000 == 10_000 {
                        cache.fail_node(thread, true).expect("there");
                        cache.recover_node(thread).expect("there");
                    }
                }
                over.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(cache.value_stats().trainings > 1, "{:?}", cache.value_stats());
    check_nodes(&cache);
}

#[test]
fn signed_values_are_saved_as_they_are_and_the_key_is_not() {
    let file = File::new();
    let secret = [b'k'; 16];
    let cache = Cache::new(signed(Compression::Lz4, b"k"));
    cache.put("key 1", &record(1), 1).expect("written");
    cache.put("key 2", &record(2).repeat(20), 1).expect("written");
    cache.save(&file.0).expect("saved");
    let bytes = fs::read(&file.0).expect("a file");
    assert!(!bytes.windows(8).any(|window| window == &secret[..8]), "the key is in the file");
    let (unsigned, _) = Cache::load(&file.0).expect("loaded");
    assert!(matches!(unsigned.get("key 1"), Err(Error::Serialization(_))));
    for (letters, is_read) in [(&b"k"[..], true), (b"nk", true), (b"n", false)] {
        let again = Cache::new(signed(Compression::None, letters));
        again.restore(&file.0).expect("restored");
        for (name, value) in [("key 1", record(1)), ("key 2", record(2).repeat(20))] {
            match again.get(name) {
                Ok(found) => assert!(is_read && found == Some((value, 1))),
                Err(Error::Serialization(why)) => assert!(!is_read && why.contains(name), "{why}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_value_whose_dictionary_is_nowhere_is_an_error_until_it_is_overwritten() {
    let (cache, bytes) = (full(), record(1));
    let put = Write::put(key("needs it"), Timestamp::new(5).expect("small"), Value::new(&bytes).expect("short"));
    let packed = cache.packing().pack(put).expect("packed");
    let stranger = Cache::new(config(Compression::Lz4));
    stranger.write(packed.write(), None, None).expect("written");
    for times in 1..3 {
        let Err(Error::Serialization(why)) = stranger.get("needs it") else { panic!("it was read") };
        assert!(why.contains("\"needs it\"") && why.contains("which no node has"), "{why}");
        assert_eq!(stranger.value_stats().corrupt, times);
    }
    assert_eq!(stranger.put("needs it", b"another", 6), Ok(true));
    assert_eq!(stranger.get("needs it"), Ok(Some((b"another".to_vec(), 6))));
}

#[test]
fn a_signed_value_that_is_written_under_another_key_or_time_is_refused_and_stays() {
    for bytes in [b"small".to_vec(), record(1).repeat(30)] {
        let cache = Cache::new(signed(Compression::Lz4, b"k"));
        let at = |timestamp| Timestamp::new(timestamp).expect("small");
        let put = Write::put(key("mine"), at(5), Value::new(&bytes).expect("short"));
        let packed = cache.packing().pack(put).expect("packed");
        let later = Version { timestamp: at(6), ..packed.write().version };
        for moved in [
            Write { key: key("yours"), ..packed.write() },
            Write { key: key("min"), ..packed.write() },
            Write { version: later, ..packed.write() },
        ] {
            cache.write(moved, None, None).expect("written");
            let name = std::str::from_utf8(moved.key.bytes()).expect("text");
            let Err(Error::Serialization(why)) = cache.get(name) else { panic!("it was read") };
            assert!(why.contains(name) && why.contains("its signature is wrong"), "{why}");
            assert!(cache.keys().iter().any(|there| &**there == name.as_bytes()), "it stays");
            cache.remove(name, 6).expect("removed");
        }
        assert_eq!(cache.value_stats().refused, 3);
        let again = Cache::new(signed(Compression::Lz4, b"k"));
        again.write(packed.write(), None, None).expect("written");
        assert_eq!(again.get("mine"), Ok(Some((bytes.clone(), 5))), "where it belongs it is read");
    }
}

#[test]
fn a_small_value_names_its_dictionary() {
    let cache = full();
    let id = cache.dictionaries()[0].id();
    let mut named = 0;
    let owner = cache.owners_of("key 1").expect("open")[0];
    cache
        .read_at(owner, key("key 1"), &mut |_, lent| {
            named += usize::from(dictionary_of(lent.keep().value()) == Some(id));
        })
        .expect("there");
    assert_eq!(named, 1);
}
