//! A snapshot gives back what was saved, or says at which byte it is wrong: never anything else.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use distributed_consistent_cache::NodeId;
use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::cluster::Cluster;
use distributed_consistent_cache::cluster::restore::{self, Verifying};
use distributed_consistent_cache::config::Compression;
use distributed_consistent_cache::entry::{Form, KEY_BYTES_MAX, Key, Value};
use distributed_consistent_cache::message::{Address, Read, Reply, Request, Write};
use distributed_consistent_cache::node::{Node, Take};
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::runtime::{Runtime, Unreached, Unread, Wait};
use distributed_consistent_cache::snapshot::block::Builder;
use distributed_consistent_cache::snapshot::reader::{Next, Reader};
use distributed_consistent_cache::snapshot::writer::Writer;
use distributed_consistent_cache::snapshot::{Fault, Header, MAGIC, PREFIX_BYTES};
use distributed_consistent_cache::stats::NodeStats;
use distributed_consistent_cache::values::Packing;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Config, Error, Quorum};
use proptest::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::values::Shelf;

/// A folder of its own for each test, removed at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("snapshot-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("cache.snapshot")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn config(nodes: usize, replicas: usize, node_bytes: u64) -> Config {
    let config = Config::new(nodes, Some(replicas)).and_then(|config| config.node_bytes(node_bytes));
    config.and_then(|config| config.gossip_interval(None)).expect("valid")
}

fn cache(nodes: usize, replicas: usize, node_bytes: u64) -> Cache {
    Cache::new(config(nodes, replicas, node_bytes))
}

fn name(number: usize) -> String {
    format!("key {number:06}")
}

fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

/// Says that it is over when it is dropped, also by a test that fails: else others would run on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Contents = BTreeMap<Vec<u8>, (Version, Option<Vec<u8>>)>;

/// What the bytes of a snapshot say, all of it verified; or what is wrong with them.
fn read(bytes: &[u8]) -> Result<(Header, Contents), Fault> {
    let mut reader = Reader::new(bytes, bytes.len() as u64)?;
    let mut contents = Contents::new();
    loop {
        match reader.go_on()? {
            Next::Block(packed) => {
                let block = packed.unpack()?;
                block.check()?;
                for write in block.writes() {
                    let write = write?;
                    let value = write.value.map(|value| unpack(write.key, write.version, value));
                    contents.insert(write.key.bytes().to_vec(), (write.version, value));
                }
            }
            Next::Footer(_) => return Ok((reader.header().clone(), contents)),
        }
    }
}

/// The bytes of a value as it was given: one that no dictionary is needed for.
fn unpack(key: Key<'_>, version: Version, value: Value<'_>) -> Vec<u8> {
    let packing = Packing::new(&config(1, 1, 1 << 20));
    let (bytes, form) = packing.unpack(key, version, value, &Shelf(None)).expect("not corrupt");
    match form {
        Form::Unframed => Value::unframed(&bytes).expect("short").whole().into_owned(),
        Form::Raw | Form::Packed => bytes.into_owned(),
    }
}

/// A snapshot of these writes, so many to a block.
fn written(contents: &Contents, each: usize) -> Vec<u8> {
    let header = Header { config: config(3, 2, 1 << 20), saved_at_us: 1 };
    let mut writer = Writer::new(Vec::new(), &header).expect("memory");
    for some in contents.iter().collect::<Vec<_>>().chunks(each) {
        let mut builder = Builder::default();
        for (key, (version, value)) in some {
            let value = value.as_deref().map(|value| Value::new(value).expect("short"));
            builder.push(key, *version, value);
        }
        writer.write(&builder.seal().expect("memory")).expect("memory");
    }
    writer.finish().expect("memory").0
}

fn arbitrary_contents() -> impl Strategy<Value = Contents> {
    let value = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Some),
        (any::<u8>(), 0..5000_usize).prop_map(|(byte, count)| Some(vec![byte; count])),
    ];
    prop::collection::btree_map("\\PC{0,20}", (value, 0..=i64::MAX as u64), 0..30).prop_map(|drawn| {
        let version = |value: &Option<Vec<u8>>, time| match value {
            Some(value) => Version::put(at(time), Value::new(value).expect("short").digest()),
            None => Version::remove(at(time)),
        };
        drawn.into_iter().map(|(key, (value, time))| (key.into_bytes(), (version(&value, time), value))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_written_is_read(contents in arbitrary_contents(), each in 1..10_usize) {
        let (header, back) = read(&written(&contents, each)).expect("whole");
        prop_assert_eq!(header.config, config(3, 2, 1 << 20));
        prop_assert_eq!(back, contents);
    }

    #[test]
    fn a_snapshot_that_was_cut_anywhere_is_refused(contents in arbitrary_contents(), cut: prop::sample::Index) {
        let bytes = written(&contents, 4);
        let cut = cut.index(bytes.len());
        let refused = matches!(read(&bytes[..cut]), Err(Fault::Format { at, .. }) if at <= cut as u64);
        prop_assert!(refused);
    }

    #[test]
    fn a_snapshot_with_a_changed_byte_is_refused(
        contents in arbitrary_contents(), place: prop::sample::Index, flip in 1..=255_u8
    ) {
        let mut bytes = written(&contents, 4);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        let refused = matches!(read(&bytes), Err(Fault::Format { .. }));
        prop_assert!(refused, "byte {} of {}", place, bytes.len());
    }

    #[test]
    fn bytes_that_nobody_wrote_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..500), begins: bool) {
        let bytes = if begins { [&MAGIC[..], &[1, 0, 40, 0], &bytes].concat() } else { bytes };
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn blocks_with_right_checksums_and_wrong_contents_are_refused(
        body in prop::collection::vec(any::<u8>(), 0..200), lz4: bool, unpacked in 0..2000_u32, records in 0..20_u32
    ) {
        // A record of a made-up body has the digest of its value by chance only.
        let bytes = forged(&body, lz4, if lz4 { unpacked } else { body.len() as u32 }, records);
        let refused = matches!(read(&bytes), Err(Fault::Format { .. }));
        prop_assert!(refused || body.is_empty());
    }
}

/// A snapshot of one block of any bytes, whose checksums are all right.
fn forged(body: &[u8], lz4: bool, unpacked: u32, records: u32) -> Vec<u8> {
    let mut bytes = Header { config: config(1, 1, 1 << 20), saved_at_us: 0 }.encode();
    let mut chain = Xxh3::new();
    chain.update(&bytes);
    let mut block = |kind: u8, compression: u8, body: &[u8], unpacked: u32, records: u32| {
        let mut head = vec![kind, compression, 0, 0];
        [body.len() as u32, unpacked, records].iter().for_each(|number| head.extend(number.to_le_bytes()));
        let checksum = xxh3_64(&[&head, body].concat());
        bytes.extend([&head, &checksum.to_le_bytes()[..], body].concat());
        checksum
    };
    let checksum = block(1, u8::from(lz4), body, unpacked, records);
    chain.update(&checksum.to_le_bytes());
    let totals = [1, records.into(), 0, u64::from(unpacked), chain.digest()];
    let footer: Vec<u8> = totals.iter().flat_map(|word| word.to_le_bytes()).collect();
    block(255, 0, &footer, 40, 0);
    bytes
}

fn some_contents() -> Contents {
    let put = |value: &[u8]| (Version::put(at(1), Value::new(value).expect("short").digest()), Some(value.to_vec()));
    (0..100).map(|number| (name(number).into_bytes(), put(&[7; 100]))).collect()
}

#[test]
fn every_byte_and_every_end_of_a_small_snapshot_counts() {
    let bytes = written(&some_contents().into_iter().take(5).collect(), 2);
    for place in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[place] ^= flip;
            assert!(read(&changed).is_err(), "byte {place} with {flip:#x}");
        }
        assert!(read(&bytes[..place]).is_err(), "cut at {place}");
    }
    assert!(read(&[&bytes[..], &[0]].concat()).is_err(), "something follows");
}

#[test]
fn blocks_that_are_missing_doubled_or_exchanged_are_noticed() {
    let contents = some_contents();
    let bytes = written(&contents, 50);
    let header = Header { config: config(3, 2, 1 << 20), saved_at_us: 1 }.encode().len();
    let length = |at: usize| 24 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four")) as usize;
    let (first, second) = (header..header + length(header), header + length(header)..);
    let second = second.start..second.start + length(second.start);
    let footer = &bytes[second.end..];
    let (head, first, second) = (&bytes[..header], &bytes[first], &bytes[second]);
    assert_eq!(read(&[head, first, second, footer].concat()).expect("as it was").1, contents);
    for parts in [&[second, first][..], &[first], &[second], &[first, first], &[first, second, second], &[]] {
        let changed = [head, &parts.concat(), footer].concat();
        let Err(Fault::Format { why, .. }) = read(&changed) else { panic!("not noticed") };
        assert_eq!(why, "blocks are missing, doubled or out of order");
    }
}

#[test]
fn a_length_that_the_file_does_not_have_is_not_allocated() {
    let bytes = written(&some_contents(), 50);
    let header = Header { config: config(3, 2, 1 << 20), saved_at_us: 1 }.encode().len();
    let mut changed = bytes.clone();
    changed[header + 4..header + 12].fill(0xff); // 4 GiB stored, 4 GiB unpacked
    changed[header + 1] = 0;
    assert!(matches!(read(&changed), Err(Fault::Format { at, why })
        if at == bytes.len() as u64 && why == "the file ends here, and is not whole"));
    // A few bytes that say they unpack to 4 GiB.
    let bomb = forged(&[0; 10], true, u32::MAX, 1);
    assert!(matches!(read(&bomb), Err(Fault::Format { why, .. }) if why == "the head of a block is damaged"));
}

#[test]
fn another_format_is_told_by_both_numbers() {
    let mut bytes = written(&some_contents(), 50);
    bytes[8] = 7;
    assert!(matches!(read(&bytes), Err(Fault::Format { at: 8, why })
        if why == "it is in format 7, and this release reads format 1 only"));
}

#[test]
fn a_header_may_have_more_to_say() {
    let mut header = Header { config: config(3, 2, 1 << 20), saved_at_us: 5 }.encode();
    let known = Header::decode(&header).expect("whole");
    header.truncate(header.len() - 8);
    header.extend(b"what a later release says");
    header[10] += 25;
    header.extend(xxh3_64(&header).to_le_bytes());
    assert_eq!(Header::length(header[..PREFIX_BYTES].try_into().expect("twelve")).expect("known"), header.len());
    assert_eq!(Header::decode(&header).expect("the rest is left unread"), known);
}

#[test]
fn every_configuration_comes_back() {
    use std::time::Duration;
    let quorums = [Quorum::One, Quorum::Majority, Quorum::All, Quorum::Count(1), Quorum::Count(2)];
    for (writes, reads) in quorums.iter().flat_map(|writes| quorums.iter().map(move |reads| (*writes, *reads))) {
        for interval in [None, Some(Duration::from_millis(1)), Some(Duration::from_secs(3600))] {
            let config = config(100, 2, 1 << 40).write_quorum(writes).and_then(|config| config.read_quorum(reads));
            let config = config.and_then(|config| config.gossip_interval(interval)).expect("valid");
            let header = Header { config, saved_at_us: u64::MAX };
            assert_eq!(Header::decode(&header.encode()).expect("whole"), header);
        }
    }
}

#[test]
fn a_hundred_thousand_entries_come_back_with_their_copies() {
    let folder = Folder::new();
    let saved = cache(5, 3, 32 << 20);
    for number in 0..100_000 {
        saved.put(&name(number), name(number).repeat(number % 20).as_bytes(), number as u64).expect("written");
    }
    for number in (0..100_000).step_by(100) {
        saved.remove(&name(number), number as u64).expect("removed");
    }
    let report = saved.save(folder.file()).expect("saved");
    assert_eq!((report.entries, report.removes), (99_000, 1_000));
    assert_eq!(report.bytes, fs::metadata(folder.file()).expect("a file").len());
    assert_eq!(folder.names(), ["cache.snapshot"]);

    let (again, report) = Cache::load(folder.file()).expect("loaded");
    assert_eq!(again.config(), saved.config());
    assert_eq!((report.entries, report.removes, report.applied), (99_000, 1_000, 100_000));
    assert_eq!((report.superseded, report.too_large), (0, 0));
    for number in 0..100_000 {
        let value = name(number).repeat(number % 20).into_bytes();
        let expected = (number % 100 > 0).then_some((value, number as u64));
        assert_eq!(again.get(&name(number)).expect("read"), expected, "{number}");
    }
    let gauges = again.gauges().expect("open");
    assert_eq!((gauges.keys, gauges.copies, gauges.unseen_writes), (99_000, 297_000, 0));
    // A remove is remembered: what it took away stays refused.
    assert!(!again.put(&name(500), b"late", 500).expect("refused"));
    assert!(again.put(&name(500), b"newer", 501).expect("written"));
}

#[test]
fn large_values_long_keys_and_empty_ones_come_back() {
    let folder = Folder::new();
    let saved = cache(3, 2, 64 << 20);
    let long = "k".repeat(KEY_BYTES_MAX);
    let noise: Vec<u8> = (0..5_000_000_u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    for (key, value) in [("", &b""[..]), (&long, b"long"), ("zeros", &[0; 3_000_000]), ("noise", &noise)] {
        saved.put(key, value, i64::MAX as u64).expect("written");
    }
    saved.save(folder.file()).expect("saved");
    let (again, _) = Cache::load(folder.file()).expect("loaded");
    for key in ["", &long, "zeros", "noise"] {
        assert_eq!(again.get(key).expect("read"), saved.get(key).expect("read"));
    }
}

#[test]
fn what_is_newer_in_the_cache_stays() {
    let folder = Folder::new();
    let saved = cache(3, 2, 1 << 20);
    for key in ["newer", "older", "same", "removed later", "removed before", "only there"] {
        saved.put(key, b"saved", 5).expect("written");
    }
    saved.remove("gone", 5).expect("removed");
    saved.save(folder.file()).expect("saved");
    let other = cache(4, 3, 1 << 20);
    other.put("newer", b"here", 6).expect("written");
    other.put("older", b"here", 4).expect("written");
    other.put("same", b"saved", 5).expect("written");
    other.remove("removed later", 5).expect("removed");
    other.remove("removed before", 4).expect("removed");
    other.put("gone", b"here", 5).expect("written");
    other.put("only here", b"here", 1).expect("written");
    let report = other.restore(folder.file()).expect("restored");
    assert_eq!((report.applied, report.superseded, report.too_large), (5, 2, 0));
    let expected = [
        ("newer", Some("here")),
        ("older", Some("saved")),
        ("same", Some("saved")),
        ("removed later", None),
        ("removed before", Some("saved")),
        ("only there", Some("saved")),
        ("gone", None),
        ("only here", Some("here")),
    ];
    for (key, value) in expected {
        let found = other.get(key).expect("read").map(|(bytes, _)| bytes);
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
    // Once more changes nothing.
    let again = other.restore(folder.file()).expect("restored");
    assert_eq!((again.applied, again.superseded), (5, 2));
}

/// Keys of one node from the least to the most recently used.
fn order(cache: &Cache, node: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    cache.runtime().look(cache.view().address(node as u8), &mut |node| keys = node.keys_by_use()).expect("it is live");
    keys.reverse();
    keys
}

/// A cache whose entries were used in an order of their own.
fn used(nodes: usize, replicas: usize, keys: usize) -> Cache {
    let cache = cache(nodes, replicas, 8 << 20);
    for number in 0..keys {
        cache.put(&name(number), &[7; 100], 1).expect("written");
    }
    for number in (0..keys).filter(|number| number % 3 == 0) {
        cache.put(&name(number * 7 % keys), &[8; 90], 2).expect("written");
    }
    cache
}

#[test]
fn the_order_of_use_comes_back() {
    for (nodes, replicas) in [(1, 1), (3, 3), (2, 2)] {
        let folder = Folder::new();
        let saved = used(nodes, replicas, 3_000);
        saved.save(folder.file()).expect("saved");
        let (again, _) = Cache::load(folder.file()).expect("loaded");
        for node in 0..nodes {
            assert_eq!(order(&saved, node), order(&again, node), "node {node} of {nodes}");
        }
    }
}

#[test]
fn with_fewer_copies_than_nodes_the_order_of_use_is_nearly_that_of_each_node() {
    let folder = Folder::new();
    let saved = used(5, 2, 10_000);
    saved.save(folder.file()).expect("saved");
    let (again, _) = Cache::load(folder.file()).expect("loaded");
    for node in 0..5 {
        let (before, after) = (order(&saved, node), order(&again, node));
        let places: BTreeMap<_, _> = after.iter().zip(0..).collect();
        let moved = |(key, place): (_, i64)| place.abs_diff(places[key]);
        let farthest = before.iter().zip(0..).map(moved).max().expect("not empty");
        assert_eq!(before.len(), after.len());
        assert!(farthest < before.len() as u64 / 20, "node {node}: one of {} moved by {farthest}", before.len());
    }
}

#[test]
fn what_was_used_most_recently_is_what_fits_in_a_smaller_cache() {
    let folder = Folder::new();
    let saved = cache(3, 2, 4 << 20);
    for number in 0..20_000 {
        saved.put(&name(number), &[7; 100], 1).expect("written");
    }
    // Those that are read are kept, though they are old.
    for number in 0..500 {
        saved.get(&name(number)).expect("read").expect("there");
    }
    saved.save(folder.file()).expect("saved");
    let small = cache(3, 2, 256 << 10);
    let report = small.restore(folder.file()).expect("restored");
    assert_eq!((report.applied, report.too_large), (20_000, 0));
    let kept = small.len();
    assert!((1_500..4_000).contains(&kept), "{kept} were kept");
    for number in 0..500 {
        assert!(small.get(&name(number)).expect("read").is_some(), "{number} was read last");
    }
    let coldest = (500..10_000).filter(|&number| small.get(&name(number)).expect("read").is_some()).count();
    assert_eq!(coldest, 0, "colder entries pushed out warmer ones");
}

#[test]
fn any_shape_can_be_restored_into() {
    let folder = Folder::new();
    let saved = cache(5, 3, 4 << 20);
    for number in 0..5_000 {
        saved.put(&name(number), &[7; 100], 1).expect("written");
    }
    saved.save(folder.file()).expect("saved");
    for (nodes, replicas) in [(1, 1), (2, 1), (3, 3), (10, 4), (100, 2)] {
        let other = cache(nodes, replicas, 4 << 20);
        assert_eq!(other.restore(folder.file()).expect("restored").applied, 5_000);
        let gauges = other.gauges().expect("open");
        assert_eq!((gauges.keys, gauges.copies), (5_000, 5_000 * replicas as u64), "{nodes} nodes");
    }
}

#[test]
fn values_that_fit_in_no_node_are_counted_and_evict_nothing() {
    let folder = Folder::new();
    let saved = Cache::new(config(1, 1, 4 << 20).compression(Compression::None));
    saved.put("large", &[7; 100_000], 1).expect("written");
    saved.put("small", b"small", 1).expect("written");
    saved.save(folder.file()).expect("saved");
    let small = cache(2, 2, 16 << 10);
    small.put("here", b"here", 1).expect("written");
    let report = small.restore(folder.file()).expect("restored");
    assert_eq!((report.applied, report.superseded, report.too_large), (1, 0, 1));
    assert_eq!(small.len(), 2);
}

#[test]
fn evicted_entries_are_not_saved() {
    let folder = Folder::new();
    let saved = cache(2, 2, 64 << 10);
    for number in 0..5_000 {
        saved.put(&name(number), &[7; 100], 1).expect("written");
    }
    let live = saved.len();
    assert!(live < 1_000);
    let report = saved.save(folder.file()).expect("saved");
    assert_eq!((report.entries, report.removes), (live as u64, 0));
}

#[test]
fn what_only_some_live_nodes_know_is_saved() {
    let folder = Folder::new();
    let saved = cache(4, 2, 1 << 20);
    for number in 0..1_000 {
        saved.put(&name(number), b"old", 1).expect("written");
    }
    // One owner is away and does not hear of what is newer, or removed.
    saved.fail_node(1, false).expect("cut off");
    for number in 0..1_000 {
        match number % 3 {
            0 => drop(saved.put(&name(number), b"new", 2).expect("written")),
            1 => drop(saved.remove(&name(number), 2).expect("removed")),
            _ => {}
        }
    }
    let check = |folder: &Folder| {
        let (again, _) = Cache::load(folder.file()).expect("loaded");
        for number in 0..1_000 {
            let expected = match number % 3 {
                0 => Some((b"new".to_vec(), 2)),
                1 => None,
                _ => Some((b"old".to_vec(), 1)),
            };
            assert_eq!(again.get(&name(number)).expect("read"), expected, "{number}");
        }
    };
    saved.save(folder.file()).expect("saved");
    check(&folder);
    // It is back, and behind until it has pulled: the others know better.
    saved.readmit_node(1).expect("back");
    saved.save(folder.file()).expect("saved");
    check(&folder);
}

#[test]
fn a_cache_without_a_live_node_saves_nothing_and_restores_nothing() {
    let folder = Folder::new();
    let cache = cache(2, 2, 1 << 20);
    cache.put("key", b"value", 1).expect("written");
    cache.save(folder.file()).expect("saved");
    cache.fail_node(0, true).expect("failed");
    cache.fail_node(1, true).expect("failed");
    assert_eq!(cache.restore(folder.file()), Err(Error::NoLiveNode));
    assert_eq!(cache.save(folder.file()).expect("saved").entries, 0);
}

#[test]
fn a_broken_file_changes_nothing() {
    let folder = Folder::new();
    let saved = cache(3, 2, 4 << 20);
    for number in 0..10_000 {
        saved.put(&name(number), name(number).as_bytes(), 1).expect("written");
    }
    saved.save(folder.file()).expect("saved");
    let whole = fs::read(folder.file()).expect("a file");
    let other = cache(3, 2, 4 << 20);
    other.put("here", b"here", 1).expect("written");
    for (bytes, place) in [
        (whole[..whole.len() - 1].to_vec(), (whole.len() - 1) as u64),
        (whole[..100].to_vec(), 100),
        (Vec::new(), 0),
        (b"not a snapshot, but a text".to_vec(), 0),
        ([&whole[..], b"!"].concat(), whole.len() as u64),
    ] {
        fs::write(folder.file(), bytes).expect("written");
        let Err(Error::Snapshot { path, at, why }) = other.restore(folder.file()) else { panic!("it was believed") };
        assert_eq!((path, at), (folder.file(), place), "{why}");
        let said = Error::Snapshot { path: folder.file(), at, why }.to_string();
        assert!(said.contains(&format!("at byte {place}: ")) && said.ends_with("; nothing was changed"), "{said}");
    }
    // The last of its bytes but for the footer is in the last block: also what comes before it is not applied.
    let mut changed = whole.clone();
    changed[whole.len() - 65] ^= 1;
    fs::write(folder.file(), changed).expect("written");
    assert!(matches!(other.restore(folder.file()), Err(Error::Snapshot { .. })));
    assert_eq!(other.len(), 1);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let folder = Folder::new();
    let saved = cache(1, 1, 64 << 20);
    let noise = |number: u64| {
        (0..2_000).flat_map(move |n| (number * 7919 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
    };
    for number in 0..1_000 {
        saved.put(&name(number), &noise(number as u64).collect::<Vec<_>>(), 1).expect("written");
    }
    saved.save(folder.file()).expect("saved");
    let other = cache(1, 1, 64 << 20);
    let mut restoring = other.begin_restore(folder.file()).expect("begun");
    while restoring.done() == 0 {
        assert_eq!(restoring.step().expect("whole so far"), None);
    }
    // In place: a new file at its path would not be noticed, and need not be.
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(folder.file()).expect("a file");
    let length = file.metadata().expect("a file").len();
    file.write_all_at(&[1; 1000], length / 2).expect("written");
    let broken_off = loop {
        match restoring.step() {
            Ok(None) => {}
            Ok(Some(report)) => panic!("{report:?}"),
            Err(error) => break error,
        }
    };
    let Error::BrokenOff { done, of, cause } = &broken_off else { panic!("{broken_off}") };
    assert!(*done > 0 && done < of && *of == 1_000);
    assert!(matches!(**cause, Error::Snapshot { .. }));
    assert!(
        broken_off
            .to_string()
            .ends_with(&format!("; {done} of 1000 records were restored before that, and are in the cache"))
    );
    assert_eq!(other.len() as u64, *done);
}

#[test]
fn a_file_that_becomes_another_snapshot_while_it_is_read_is_noticed() {
    use std::os::unix::fs::FileExt;
    let (one, other) = (Folder::new(), Folder::new());
    // Nothing that can be made smaller, so that both are as long.
    let noise = |seed: u64| (0..2_000_u64).flat_map(move |n| xxh3_64(&(seed + n).to_le_bytes()).to_le_bytes());
    for (folder, seed) in [(&one, 0), (&other, 1 << 32)] {
        let saved = cache(1, 1, 64 << 20);
        for number in 0..1_000 {
            let value: Vec<u8> = noise(seed + 10_000 * number).collect();
            saved.put(&name(number as usize), &value, 1 + seed).expect("written");
        }
        saved.save(folder.file()).expect("saved");
    }
    let restored = cache(1, 1, 64 << 20);
    let mut restoring = restored.begin_restore(one.file()).expect("begun");
    while restoring.done() == 0 {
        assert_eq!(restoring.step().expect("whole so far"), None);
    }
    let bytes = fs::read(other.file()).expect("a file");
    let file = fs::OpenOptions::new().write(true).open(one.file()).expect("a file");
    assert_eq!(file.metadata().expect("a file").len(), bytes.len() as u64);
    file.write_all_at(&bytes, 0).expect("written");
    let broken_off = loop {
        match restoring.step() {
            Ok(None) => {}
            Ok(Some(report)) => panic!("{report:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&broken_off, Error::BrokenOff { done, of: 1_000, .. } if *done < 1_000), "{broken_off}");
    assert!((0..1_000).all(|number| restored.get(&name(number)).expect("answered").is_none_or(|(_, at)| at == 1)));
}

#[test]
fn a_save_that_is_given_up_leaves_the_old_file() {
    let folder = Folder::new();
    let cache = cache(2, 2, 8 << 20);
    cache.put("key", b"value", 1).expect("written");
    cache.save(folder.file()).expect("saved");
    let before = fs::read(folder.file()).expect("a file");
    for number in 0..20_000 {
        cache.put(&name(number), &[7; 100], 1).expect("written");
    }
    let mut saving = cache.begin_save(folder.file()).expect("begun");
    saving.step().expect("a step");
    assert_eq!(folder.names().len(), 2);
    drop(saving);
    assert_eq!(folder.names(), ["cache.snapshot"]);
    let mut saving = cache.begin_save(folder.file()).expect("begun");
    saving.step().expect("a step");
    cache.close();
    assert_eq!(saving.step(), Err(Error::Closed));
    drop(saving);
    assert_eq!(folder.names(), ["cache.snapshot"]);
    assert_eq!(fs::read(folder.file()).expect("a file"), before);
    assert_eq!(cache.save(folder.file()), Err(Error::Closed));
    assert_eq!(cache.restore(folder.file()), Err(Error::Closed));
}

#[test]
fn a_cache_that_is_closed_while_it_is_restored_says_how_far_it_came() {
    let folder = Folder::new();
    let saved = cache(1, 1, 64 << 20);
    for number in 0..100_000 {
        saved
            .put(&name(number), &(number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().repeat(20), 1)
            .expect("written");
    }
    saved.save(folder.file()).expect("saved");
    let other = cache(1, 1, 64 << 20);
    let mut restoring = other.begin_restore(folder.file()).expect("begun");
    while restoring.done() == 0 {
        restoring.step().expect("a step");
    }
    let done = restoring.done();
    assert!(done < 100_000, "it is over in one step");
    other.close();
    let error = restoring.step().expect_err("closed");
    assert_eq!(error, Error::BrokenOff { done, of: 100_000, cause: Box::new(Error::Closed) });
    assert!(error.to_string().starts_with("the cache was closed; "));
}

#[test]
fn errors_of_the_operating_system_come_with_the_path() {
    let folder = Folder::new();
    let cache = cache(1, 1, 1 << 20);
    let missing = folder.0.join("missing").join("file");
    for result in [cache.save(&missing).map(drop), cache.restore(&missing).map(drop), Cache::load(&missing).map(drop)] {
        assert!(matches!(result, Err(Error::File { path, os_error: Some(2), .. }) if path == missing));
    }
    for result in [cache.save(&folder.0).map(drop), cache.restore(&folder.0).map(drop)] {
        assert!(matches!(result, Err(Error::File { os_error: Some(21), .. })));
    }
    // It would be replaced by a file.
    for result in [cache.save("/dev/null").map(drop), cache.restore("/dev/null").map(drop)] {
        assert!(matches!(result, Err(Error::File { os_error: None, why, .. }) if why == "it is not a regular file"));
    }
}

#[test]
fn a_link_is_followed_and_permissions_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    let cache = cache(1, 1, 1 << 20);
    let (link, target) = (folder.0.join("link"), folder.file());
    cache.save(&target).expect("saved");
    let mode = |path: &PathBuf| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&target), 0o600, "a new one is its owner's");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).expect("set");
    symlink(&target, &link).expect("a link");
    cache.put("key", b"value", 1).expect("written");
    cache.save(&link).expect("saved");
    assert!(fs::symlink_metadata(&link).expect("a link").file_type().is_symlink());
    assert_eq!(mode(&target), 0o640);
    assert_eq!(restore::info(&target).expect("a snapshot").totals.entries, 1);
}

#[test]
fn what_a_killed_process_left_is_removed_when_it_is_old() {
    let folder = Folder::new();
    let cache = cache(1, 1, 1 << 20);
    let (old, young, other) = (
        folder.0.join(".cache.snapshot.7-0.tmp"),
        folder.0.join(".cache.snapshot.8-0.tmp"),
        folder.0.join(".other.7-0.tmp"),
    );
    for path in [&old, &young, &other] {
        fs::write(path, b"half a snapshot").expect("written");
    }
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for path in [&old, &other] {
        let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
        file.set_modified(hour_ago).expect("set");
    }
    // While somebody still writes to it, it stays.
    let held = fs::OpenOptions::new().write(true).open(&old).expect("a file");
    held.lock().expect("locked");
    cache.save(folder.file()).expect("saved");
    assert!(old.exists());
    drop(held);
    cache.save(folder.file()).expect("saved");
    assert!(!old.exists() && young.exists() && other.exists());
}

#[test]
fn two_saves_to_one_path_leave_one_whole_file() {
    let folder = Folder::new();
    let cache = cache(2, 2, 8 << 20);
    for number in 0..10_000 {
        cache.put(&name(number), &[7; 100], 1).expect("written");
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(cache.save(folder.file()).expect("saved").entries, 10_000)));
        }
    });
    assert_eq!(folder.names(), ["cache.snapshot"]);
    assert_eq!(Cache::load(folder.file()).expect("loaded").1.applied, 10_000);
}

#[test]
fn verifying_finds_what_info_does_not_look_at() {
    let folder = Folder::new();
    let cache = cache(2, 1, 8 << 20);
    for number in 0..10_000 {
        cache.put(&name(number), &[7; 100], 1).expect("written");
    }
    cache.save(folder.file()).expect("saved");
    let verify = || {
        let mut verifying = Verifying::begin(folder.file())?;
        loop {
            if let Some(info) = verifying.step()? {
                assert_eq!(verifying.blocks_done(), info.totals.blocks);
                return Ok::<_, Error>(info);
            }
        }
    };
    assert_eq!(verify(), restore::info(folder.file()));
    let mut bytes = fs::read(folder.file()).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.file(), bytes).expect("written");
    assert!(restore::info(folder.file()).is_ok());
    assert!(matches!(verify(), Err(Error::Snapshot { why, .. }) if why == "the checksum of a block is wrong"));
}

#[test]
fn a_save_beside_writers_and_changing_nodes_invents_nothing_and_misses_nothing() {
    let folder = Folder::new();
    let cache = cache(5, 3, 16 << 20);
    const STILL: usize = 10_000;
    for number in 0..STILL {
        cache.put(&format!("still {number}"), name(number).as_bytes(), 1).expect("written");
        cache
            .put(&format!("busy {}", number % 1000), &0_u64.to_le_bytes().repeat(1 + number % 30), 0)
            .expect("written");
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (cache, is_over) = (&cache, &is_over);
            scope.spawn(move || {
                for time in 1.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, length) = (time * 7919 % 500 * 2 + writer, 1 + time as usize * 31 % 400);
                    // The value says its key and its time, so that it can be told from any other.
                    let value = [key.to_le_bytes(), time.to_le_bytes()].concat().repeat(length);
                    cache.put(&format!("busy {key}"), &value, time).expect("written");
                }
            });
        }
        scope.spawn(|| {
            for node in (0..5).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                cache.fail_node(node, node % 2 == 0).expect("failed");
                cache.recover_node(node).expect("back");
            }
        });
        let _over = Over(&is_over);
        for _ in 0..15 {
            cache.save(folder.file()).expect("saved");
            let (_, contents) = read(&fs::read(folder.file()).expect("a file")).expect("whole");
            for number in 0..STILL {
                let found = contents.get(format!("still {number}").as_bytes()).expect("it is missing");
                assert_eq!((found.0.timestamp, found.1.as_deref()), (at(1), Some(name(number).as_bytes())));
            }
            for number in 0..1000_u64 {
                let (version, value) = contents.get(format!("busy {number}").as_bytes()).expect("it is missing");
                let (value, time) = (value.as_ref().expect("never removed"), version.timestamp.get());
                let written = if time == 0 {
                    0_u64.to_le_bytes().to_vec()
                } else {
                    [number.to_le_bytes(), time.to_le_bytes()].concat()
                };
                assert!(value.chunks(written.len()).all(|chunk| chunk == written), "busy {number} at {time}");
            }
            assert_eq!(contents.len(), STILL + 1000);
        }
    });
}

#[test]
fn what_is_written_keeps_its_version() {
    let folder = Folder::new();
    let saved = cache(3, 2, 1 << 20);
    let key = Key::new(b"key").expect("short");
    saved.write(Write::put(key, at(3), Value::new(b"value").expect("short")), None, None).expect("written");
    saved.save(folder.file()).expect("saved");
    let (_, contents) = read(&fs::read(folder.file()).expect("a file")).expect("whole");
    let version = Version::put(at(3), Value::new(b"value").expect("short").digest());
    assert_eq!(contents[&b"key"[..]], (version, Some(b"value".to_vec())));
    // Two values of one timestamp: the same wins wherever they meet.
    let (again, _) = Cache::load(folder.file()).expect("loaded");
    assert_eq!(saved.put("key", b"other", 3), again.put("key", b"other", 3));
    assert_eq!(saved.get("key"), again.get("key"));
}

#[test]
fn the_clock_goes_on_from_that_of_the_saved_cache() {
    let folder = Folder::new();
    let saved = cache(1, 1, 1 << 20);
    let ahead = Cache::now() + 3_600_000_000;
    saved.put("key", b"by a clock that was ahead", ahead - 1).expect("written");
    let mut bytes = Vec::new();
    let header = Header { config: config(1, 1, 1 << 20), saved_at_us: ahead };
    Writer::new(&mut bytes, &header).and_then(Writer::finish).expect("memory");
    fs::write(folder.file(), bytes).expect("written");
    saved.restore(folder.file()).expect("restored");
    assert!(Cache::now() > ahead);
}

#[test]
fn a_digest_that_is_not_the_values_is_refused() {
    let forged = Contents::from([(b"key".to_vec(), (Version::put(at(1), 7), Some(b"value".to_vec())))]);
    assert!(matches!(read(&written(&forged, 1)), Err(Fault::Format { why, .. })
        if why == "the digest of a value in this block is wrong"));
}

/// Nodes in this process; once, before one of them is looked at, something happens to the cluster.
#[derive(Default)]
struct Meddling {
    nodes: Embedded,
    cluster: OnceLock<Weak<Cluster<Meddling>>>,
    /// In so many looks.
    meddles_in: AtomicI64,
    /// A node joins; else one leaves.
    joins: bool,
}

impl Runtime for Meddling {
    fn carry(&self, to: Address, request: &Request<'_>, wait: Wait) -> Result<Reply, Unreached> {
        self.nodes.carry(to, request, wait)
    }

    fn read(&self, to: Address, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Result<Read, Unread> {
        self.nodes.read(to, key, touch, wait, take)
    }

    fn look(&self, to: Address, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unreached> {
        if self.meddles_in.fetch_sub(1, Ordering::Relaxed) == 0 {
            let cluster = self.cluster.get().and_then(Weak::upgrade).expect("it is saved");
            // Everything that one has, or a part of what each has, is on others from now on.
            if self.joins {
                cluster.add_node(None).expect("added");
            } else {
                cluster.remove_node(2).expect("removed");
            }
        }
        self.nodes.look(to, look)
    }

    fn visit(&self, to: Address, wait: Wait, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unread> {
        self.nodes.visit(to, wait, look)
    }

    fn now_ms(&self) -> u64 {
        self.nodes.now_ms()
    }

    fn tell_time(&self, now_ms: u64) {
        self.nodes.tell_time(now_ms);
    }

    fn start(&self, node: NodeId, bytes_max: u64, partitions: u16) -> Incarnation {
        self.nodes.start(node, bytes_max, partitions)
    }

    fn stop(&self, node: NodeId) -> Option<NodeStats> {
        self.nodes.stop(node)
    }
}

#[test]
fn what_changes_hands_while_it_is_saved_is_not_missed() {
    let folder = Folder::new();
    let all = (0..14).flat_map(|step| (0..4).flat_map(move |look| [false, true].map(|joins| (step, look, joins))));
    for (step, look, joins) in all {
        let meddling = Meddling { meddles_in: AtomicI64::new(-1), joins, ..Meddling::default() };
        let cluster = Arc::new(Cluster::new(config(3, 1, 1 << 20), meddling));
        cluster.runtime().cluster.set(Arc::downgrade(&cluster)).expect("once");
        cluster.runtime().meddles_in.store(-1, Ordering::Relaxed);
        for number in 0..500 {
            let (key, value) = (name(number), Value::new(b"value").expect("short"));
            cluster.write(Write::put(Key::new(key.as_bytes()).expect("short"), at(1), value), None, None).expect("put");
        }
        let mut saving = cluster.begin_save(folder.file()).expect("begun");
        for now in 0.. {
            if now == step {
                cluster.runtime().meddles_in.store(look, Ordering::Relaxed);
            }
            if let Some(report) = saving.step().expect("a step") {
                let what = if joins { "a node joined" } else { "node 2 left" };
                assert_eq!(report.entries, 500, "{what} at look {look} of step {step}");
                break;
            }
        }
    }
}
