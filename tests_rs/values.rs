//! What is unpacked is what was packed, under every setting, by whoever packed it; or it is an error, never another value.

use std::time::{Duration, Instant};

use distributed_consistent_cache::cluster::view::State;
use distributed_consistent_cache::dictionary::{Dictionary, DictionaryId, Library};
use distributed_consistent_cache::entry::{Form, Key, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::runtime::Runtime;
use distributed_consistent_cache::stats::DictionaryState;
use distributed_consistent_cache::values::Packing;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Compression, Config, Error, SigningKey};
use proptest::prelude::*;

const ALL: [Compression; 4] = [Compression::None, Compression::Lz4, Compression::Zstd, Compression::ZstdDict];

/// Answers every question with this dictionary, whatever its number is.
pub(crate) struct Shelf(pub(crate) Option<Dictionary>);

impl Library for Shelf {
    fn find(&self, _: DictionaryId) -> Option<Dictionary> {
        self.0.clone()
    }
    fn teach(&self, _: &Dictionary) -> bool {
        true
    }
    fn adopt(&self) -> Option<Dictionary> {
        None
    }
    fn orphans(&self) -> Vec<DictionaryId> {
        Vec::new()
    }
    fn unpacked_bytes_max(&self) -> u64 {
        u64::MAX
    }
    fn needed(&self, _: &[DictionaryId]) -> Vec<DictionaryId> {
        Vec::new()
    }
    fn forget(&self, of: &[DictionaryId]) -> Vec<DictionaryId> {
        of.to_vec()
    }
}

pub(crate) fn config(codec: Compression) -> Config {
    Config::new(3, Some(2)).expect("valid").gossip_interval(None).expect("valid").compression(codec)
}

fn secret(letter: u8) -> SigningKey {
    SigningKey::new(&[letter; 16]).expect("long enough")
}

pub(crate) fn signed(codec: Compression, letters: &[u8]) -> Config {
    config(codec).signing_keys(letters.iter().map(|&letter| secret(letter)).collect()).expect("one or two")
}

fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

pub(crate) fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("short")
}

/// A record of about 200 bytes, as a pickle of one frame.
pub(crate) fn record(number: usize) -> Vec<u8> {
    let body = format!(
        "{{'id': {number}, 'name': 'user number {}', 'mail': 'user{number}@example.org', 'active': {}, 'country': '{}', \
         'tags': ['reader', 'writer', '{}'], 'score': {}}}",
        number * 7919 % 10_007,
        number.is_multiple_of(3),
        ["Norway", "Peru", "Japan", "Ghana"][number % 4],
        ["red", "green", "blue"][number % 3],
        number as f64 / 7.0,
    );
    [&b"\x80\x05\x95"[..], &(body.len() as u64).to_le_bytes(), body.as_bytes()].concat()
}

/// Bytes that nothing makes shorter.
pub(crate) fn noise(number: usize, len: usize) -> Vec<u8> {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Stored bytes, their form and version.
fn pack(packing: &Packing, name: &str, timestamp: u64, bytes: &[u8]) -> (Vec<u8>, Form, Version) {
    let put = Write::put(key(name), at(timestamp), Value::new(bytes).expect("short"));
    let packed = packing.pack(put).expect("packed");
    let value = packed.write().value.expect("a put");
    (value.bytes().to_vec(), value.form(), packed.write().version)
}

fn stored(bytes: &[u8], form: Form) -> Value<'_> {
    match form {
        Form::Raw => Value::new(bytes).expect("short"),
        Form::Unframed => Value::unframed(bytes).expect("short"),
        Form::Packed => Value::packed_before(bytes, 0).expect("short"),
    }
}

fn unpack(packing: &Packing, name: &str, version: Version, value: Value<'_>) -> Result<Vec<u8>, Error> {
    let (bytes, form) = packing.unpack(key(name), version, value, &Shelf(None))?;
    Ok(match form {
        Form::Unframed => Value::unframed(&bytes).expect("short").whole().into_owned(),
        _ => bytes.into_owned(),
    })
}

/// A packing that has trained a dictionary, if it is to have one.
fn trained(config: &Config) -> Packing {
    let packing = Packing::new(config);
    if packing.studies() {
        for number in 0..15_000 {
            pack(&packing, "sample", 1, &record(number));
        }
        packing.study(&Shelf(None), Instant::now());
        assert_eq!(packing.stats().dictionary, DictionaryState::InUse);
    }
    packing
}

fn settings() -> Vec<Packing> {
    ALL.iter().flat_map(|&codec| [trained(&config(codec)), trained(&signed(codec, b"k"))]).collect()
}

/// Bytes of many kinds: noise, runs, repeated pieces; framed as a pickle or not.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        (any::<u8>(), 0..5000_usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..2000_usize).prop_map(record),
        (prop::collection::vec(any::<u8>(), 1..40), 1..100_usize).prop_map(|(piece, times)| piece.repeat(times)),
    ];
    let bytes = prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat());
    (bytes, any::<bool>()).prop_map(|(bytes, framed)| {
        if framed { [&b"\x80\x05\x95"[..], &(bytes.len() as u64).to_le_bytes(), &bytes].concat() } else { bytes }
    })
}

#[test]
fn any_bytes_come_back_under_every_setting() {
    let settings = settings();
    proptest!(ProptestConfig::with_cases(300), |(bytes in values(), timestamp in 0..u64::MAX / 2)| {
        let mut digests = Vec::new();
        for packing in &settings {
            let (packed, form, version) = pack(packing, "key", timestamp, &bytes);
            prop_assert!(packed.len() <= bytes.len() + 17, "packing never costs more than a flag and a signature");
            prop_assert_eq!(&unpack(packing, "key", version, stored(&packed, form)), &Ok(bytes.clone()));
            digests.push(version);
        }
        prop_assert!(digests.iter().all(|version| *version == digests[0]), "one value is one version");
    });
}

#[test]
fn bytes_that_were_changed_cut_or_made_longer_give_an_error_or_the_same_value() {
    let settings = settings();
    let changes = (values(), any::<prop::sample::Index>(), 1..=u8::MAX, 0..3_u8);
    proptest!(ProptestConfig::with_cases(300), |((bytes, at, bits, how) in changes)| {
        for packing in &settings {
            let (mut packed, form, version) = pack(packing, "key", 1, &bytes);
            if form != Form::Packed {
                continue;
            }
            let at = at.index(packed.len());
            match how {
                0 => packed[at] ^= bits,
                1 => packed.truncate(at),
                _ => packed.push(bits),
            }
            match unpack(packing, "key", version, stored(&packed, form)) {
                Ok(value) => prop_assert_eq!(&value, &bytes),
                Err(error) => prop_assert!(error.to_string().contains("\"key\""), "{}", error),
            }
        }
    });
}

#[test]
fn every_single_bit_of_a_short_packed_value_counts() {
    for packing in settings() {
        let bytes = record(7).repeat(6);
        let (packed, form, version) = pack(&packing, "key", 1, &bytes);
        if form != Form::Packed {
            continue;
        }
        for bit in 0..packed.len() * 8 {
            let mut changed = packed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match unpack(&packing, "key", version, stored(&changed, form)) {
                Ok(value) => assert_eq!(value, bytes, "bit {bit} of {:?}", packing.stats().compression),
                Err(Error::Serialization(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn any_bytes_at_all_can_be_unpacked_to_nothing_worse_than_an_error() {
    let settings = settings();
    proptest!(ProptestConfig::with_cases(2000), |(flag in 0..16_u8, bytes in prop::collection::vec(any::<u8>(), 0..300))| {
        let tagged = [&[flag][..], &bytes].concat();
        for packing in &settings {
            let refused = unpack(packing, "key", Version::put(at(1), 0), stored(&tagged, Form::Packed));
            prop_assert!(matches!(refused, Err(Error::Serialization(_))), "{:?}", refused);
        }
    });
}

#[test]
fn a_bomb_is_refused_before_memory_is_taken_for_it() {
    let packing = Packing::new(&config(Compression::None));
    for (flag, claimed) in [(1_u8, u32::MAX), (1, 1 << 20), (2, u32::MAX), (2, 1 << 30)] {
        let mut bomb = vec![flag];
        let mut rest = claimed;
        while rest >= 0x80 {
            bomb.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bomb.extend([rest as u8, 0, 1, 2, 3]);
        let error = unpack(&packing, "key", Version::put(at(1), 0), stored(&bomb, Form::Packed)).expect_err("a bomb");
        assert!(error.to_string().contains("more bytes than it can"), "{error}");
    }
    // One that claims little and holds much: zeros by the megabyte, of which no more than claimed is written.
    let zeros = vec![0; 8 << 20];
    for codec in [Compression::Lz4, Compression::Zstd] {
        let writer = Packing::new(&config(codec));
        let (packed, form, version) = pack(&writer, "key", 1, &zeros);
        assert!(packed.len() < zeros.len() / 200, "packed to {} bytes", packed.len());
        assert_eq!(unpack(&writer, "key", version, stored(&packed, form)), Ok(zeros.clone()));
        let lies = [&packed[..1], &[100], &packed[5..]].concat();
        assert!(matches!(unpack(&writer, "key", version, stored(&lies, form)), Err(Error::Serialization(_))));
    }
}

#[test]
fn a_value_is_packed_only_when_that_saves_an_eighth() {
    let packing = Packing::new(&config(Compression::Lz4));
    let noise = noise(1, 4096);
    for (bytes, is_packed) in [(vec![7; 1023], false), (vec![7; 1024], true), (noise, false)] {
        let (packed, form, _) = pack(&packing, "key", 1, &bytes);
        assert_eq!(form == Form::Packed, is_packed, "{} bytes", bytes.len());
        assert!(!is_packed || packed.len() <= bytes.len() * 7 / 8);
    }
    let stats = packing.stats();
    assert_eq!((stats.tried, stats.packed, stats.bytes_in), (2, 1, 1024 + 4096));
}

#[test]
fn caches_with_different_settings_read_each_others_values() {
    let cache = Cache::new(config(Compression::None).node_bytes(4 << 20).expect("valid"));
    let caches: Vec<_> = ALL.iter().map(|&codec| cache.with_packing(&config(codec))).collect();
    // One of them has a dictionary, which the others find with the nodes.
    teach(&caches[3], record);
    for (writer, by) in caches.iter().zip(ALL) {
        for (name, bytes) in [("small", record(1)), ("large", record(1).repeat(50)), ("huge", record(2).repeat(1000))] {
            let name = format!("{name} by {by:?}");
            assert_eq!(writer.put(&name, &bytes, 1), Ok(true));
            for reader in &caches {
                assert_eq!(reader.get(&name), Ok(Some((bytes.clone(), 1))), "{name}");
                assert_eq!(reader.put(&name, &bytes, 1), Ok(true), "the same write, however it is packed");
            }
        }
    }
    assert!(caches[3].value_stats().packed > 1);
    assert_eq!(caches[0].value_stats().packed, 0);
}

#[test]
fn a_typed_value_is_packed_like_any_other() {
    let cache = Cache::new(config(Compression::Lz4));
    let text = "the same words again and again; ".repeat(200);
    cache.put_value("key", &text, 1).expect("written");
    assert_eq!(cache.get_value::<String>("key"), Ok(Some((text, 1))));
    assert_eq!(cache.value_stats().packed, 1);
}

#[test]
fn only_what_is_signed_under_a_known_key_is_read() {
    let old = Packing::new(&signed(Compression::Lz4, b"a"));
    let both = Packing::new(&signed(Compression::Lz4, b"ba"));
    let new = Packing::new(&signed(Compression::Lz4, b"b"));
    let none = Packing::new(&config(Compression::Lz4));
    for bytes in [b"short".to_vec(), record(1), record(1).repeat(50)] {
        let check = |writer: &Packing, reader: &Packing, why: &str| {
            let (packed, form, version) = pack(writer, "key", 5, &bytes);
            match unpack(reader, "key", version, stored(&packed, form)) {
                Ok(value) => assert_eq!((&value, why), (&bytes, "")),
                Err(Error::Serialization(said)) => assert!(!why.is_empty() && said.contains(why), "{said}"),
                Err(error) => panic!("{error}"),
            }
        };
        check(&old, &old, "");
        check(&old, &both, "");
        check(&both, &new, "");
        check(&new, &both, "");
        check(&both, &old, "its signature is wrong");
        check(&old, &new, "its signature is wrong");
        check(&none, &new, "it is not signed");
        check(&new, &none, "it is signed");
    }
    assert_eq!(none.stats().refused, 3);
}

#[test]
fn a_signature_holds_for_one_key_and_one_time() {
    let packing = Packing::new(&signed(Compression::None, b"k"));
    let (packed, form, version) = pack(&packing, "key", 5, b"value");
    assert_eq!(unpack(&packing, "key", version, stored(&packed, form)), Ok(b"value".to_vec()));
    let later = Version { timestamp: at(6), ..version };
    for (name, version) in [("kez", version), ("ke", version), ("", version), ("key", later)] {
        let refused = unpack(&packing, name, version, stored(&packed, form));
        assert!(matches!(refused, Err(Error::Serialization(_))), "{refused:?}");
    }
    // A byte that moves from the value to the key.
    let (packed, form, version) = pack(&packing, "key", 5, b"1value");
    assert!(unpack(&packing, "key1", version, stored(&packed, form)).is_err());
}

#[test]
fn keys_are_16_to_64_bytes_and_never_shown() {
    for bytes in [0, 15, 65] {
        let error = SigningKey::new(&vec![b's'; bytes]).expect_err("a bad length").to_string();
        assert_eq!(
            error,
            format!("signing_key is a key of {bytes} bytes, but must be of 16 to 64 bytes; nothing was done")
        );
    }
    let config = signed(Compression::None, b"s");
    assert!(!format!("{config:?}").contains("115"), "{config:?}");
}

// ---- dictionaries

/// Puts records until a dictionary is trained.
pub(crate) fn teach(cache: &Cache, record: impl Fn(usize) -> Vec<u8>) {
    let trainings = cache.value_stats().trainings;
    for number in 0.. {
        cache.put(&format!("sample {number}"), &record(number), 1).expect("written");
        if number % 100 == 0 {
            // What is read stays.
            cache.get("old").expect("whole, or a miss");
        }
        if number % 1000 == 999 {
            cache.packing().study(&**cache, Instant::now());
            check_nodes(cache);
        }
        if cache.value_stats().trainings > trainings {
            break;
        }
        assert!(number < 100_000, "no training: {:?}", cache.value_stats());
    }
}

/// Every node is within its bound and agrees with itself. Returns how many dictionaries each live node has.
pub(crate) fn check_nodes(cache: &Cache) -> Vec<usize> {
    let view = cache.view();
    let mut counts = Vec::new();
    for member in view.members().filter(|member| member.state != State::Failed) {
        let look = &mut |node: &mut distributed_consistent_cache::node::Node| {
            node.check();
            counts.push(node.dictionaries().len());
        };
        cache.runtime().look(member.address, look).expect("it is there");
    }
    counts
}

pub(crate) fn dictionary_cache(node_bytes: u64) -> Cache {
    let cache = Cache::new(config(Compression::None).node_bytes(node_bytes).expect("valid"));
    cache.with_packing(&config(Compression::ZstdDict).node_bytes(node_bytes).expect("valid"))
}

#[test]
fn a_dictionary_is_trained_and_every_node_that_comes_or_comes_back_has_it() {
    let cache = dictionary_cache(1 << 20);
    assert_eq!(cache.value_stats().dictionary, DictionaryState::Collecting(0));
    cache.put("before", &record(5), 1).expect("written");
    teach(&cache, record);
    assert_eq!((cache.value_stats().dictionary, check_nodes(&cache)), (DictionaryState::InUse, vec![1; 3]));

    let before = cache.value_stats();
    for number in 0..2000 {
        cache.put(&format!("key {number}"), &record(number), 1).expect("written");
    }
    let after = cache.value_stats();
    let ratio = (after.bytes_in - before.bytes_in) as f64 / (after.bytes_out - before.bytes_out) as f64;
    assert!(ratio > 2.0, "records become {ratio:.2} times smaller");

    cache.fail_node(0, true).expect("there");
    cache.recover_node(0).expect("there");
    cache.fail_node(1, false).expect("there");
    cache.recover_node(1).expect("there");
    cache.add_node(None).expect("room");
    assert_eq!(check_nodes(&cache), vec![1; 4]);
    assert!(cache.sync().converged);
    // The nodes are full, and a node that lost its memory gets back what there is room for.
    let mut hits = 0;
    for number in 0..2000 {
        if let Some(found) = cache.get(&format!("key {number}")).expect("whole, or a miss") {
            assert_eq!(found, (record(number), 1));
            hits += 1;
        }
    }
    assert!(hits > 1000, "{hits} of 2000");
    cache.put("key 7", &record(7), 1).expect("written");
    cache.add_node(Some(16 * 1024)).expect("room");
    assert_eq!(check_nodes(&cache), [1, 1, 1, 1, 0], "one that has no room goes without");
    assert_eq!(cache.get("key 7"), Ok(Some((record(7), 1))));
}

#[test]
fn nodes_without_room_for_a_dictionary_get_plain_zstandard() {
    let cache = dictionary_cache(16 * 1024);
    let stats = cache.value_stats();
    assert_eq!((stats.compression, stats.dictionary), (Compression::Zstd, DictionaryState::Off));
    cache.put("key", &record(1).repeat(20), 1).expect("written");
    assert_eq!((cache.get("key"), cache.value_stats().packed), (Ok(Some((record(1).repeat(20), 1))), 1));
}

/// Another kind of record.
pub(crate) fn reading(number: usize) -> Vec<u8> {
    let hash = |salt: usize| (number * 2_654_435_761 + salt * 40_503) % 1_000_003;
    format!(
        "<reading><sensor>{:06}</sensor><temperature unit=\"celsius\">{}</temperature><humidity unit=\"percent\">{}\
         </humidity><pressure unit=\"hectopascal\">{}</pressure><station>{:06}</station></reading>",
        hash(1),
        hash(2) % 50,
        hash(3) % 100,
        hash(4) % 1100,
        hash(5)
    )
    .into_bytes()
}

#[test]
fn when_values_change_another_is_trained_and_the_old_one_stays_as_long_as_a_value_needs_it() {
    let cache = dictionary_cache(1 << 20);
    teach(&cache, record);
    cache.put("old", &record(1), 1).expect("written");
    teach(&cache, reading);
    assert_eq!((cache.value_stats().dictionaries, check_nodes(&cache)), (2, vec![2; 3]));

    let start = Instant::now();
    let study = |seconds| cache.packing().study(&*cache, start + Duration::from_secs(seconds));
    // The key is read again and again, and so stays.
    for seconds in 0..100 {
        study(seconds);
        assert_eq!(cache.get("old"), Ok(Some((record(1), 1))));
    }
    assert_eq!(cache.value_stats().dictionaries, 2, "a value still needs it");
    cache.clear_all();
    study(200);
    assert_eq!(cache.value_stats().dictionaries, 2, "one look is not enough");
    study(202);
    assert_eq!((cache.value_stats().dictionaries, check_nodes(&cache)), (1, vec![1; 3]));
    cache.put("new", &reading(1), 3).expect("written");
    assert_eq!(cache.get("new"), Ok(Some((reading(1), 3))));
}

#[test]
fn a_dictionary_stays_while_somebody_is_between_packing_and_putting() {
    let cache = dictionary_cache(1 << 20);
    teach(&cache, record);
    let bytes = record(1);
    let put = Write::put(key("late"), at(2), Value::new(&bytes).expect("short"));
    let packed = cache.packing().pack(put).expect("packed");
    assert_eq!(packed.write().value.expect("a put").form(), Form::Packed);
    teach(&cache, reading);
    cache.clear_all();
    let start = Instant::now();
    (0..200).for_each(|seconds| cache.packing().study(&*cache, start + Duration::from_secs(seconds)));
    assert_eq!(cache.value_stats().dictionaries, 2);
    cache.write(packed.write(), None, None).expect("written");
    drop(packed);
    (200..400).for_each(|seconds| cache.packing().study(&*cache, start + Duration::from_secs(seconds)));
    assert_eq!(cache.get("late"), Ok(Some((bytes, 2))));
}

#[test]
fn a_dictionary_that_is_nowhere_is_an_error_that_names_the_key() {
    let packing = trained(&config(Compression::ZstdDict));
    let (packed, form, version) = pack(&packing, "key", 1, &record(3));
    assert_eq!(form, Form::Packed);
    let stranger = Packing::new(&config(Compression::Lz4));
    let error = unpack(&stranger, "key", version, stored(&packed, form)).expect_err("no dictionary").to_string();
    assert!(error.contains("\"key\"") && error.contains("dictionary"), "{error}");
    assert_eq!(stranger.stats().corrupt, 1);
}

#[test]
fn values_of_which_none_is_like_another_train_nothing_and_are_kept_as_they_are() {
    let cache = dictionary_cache(64 * 1024);
    teach(&cache, |number| noise(number, 200));
    let stats = cache.value_stats();
    assert_eq!((stats.dictionaries, stats.packed), (0, 0), "{stats:?}");
    assert_eq!(check_nodes(&cache), [0; 3]);
    // Bytes of which each was seen before become what they were.
    teach(&cache, record);
    assert_eq!(cache.value_stats().dictionaries, 1);
}

#[test]
fn training_in_the_background_ends_with_the_cache() {
    for pause_ms in [0, 50, 120, 200] {
        let cache = Cache::new(config(Compression::ZstdDict));
        for number in 0..12_000 {
            cache.put(&format!("key {number}"), &record(number), 1).expect("written");
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
        let started = Instant::now();
        cache.close();
        assert!(started.elapsed() < Duration::from_secs(5));
        let trainings = cache.value_stats().trainings;
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(cache.value_stats().trainings, trainings, "nothing is trained once it is closed");
    }
}

/// Removes every key.
pub(crate) trait ClearAll {
    fn clear_all(&self);
}

impl ClearAll for Cache {
    fn clear_all(&self) {
        for name in self.keys() {
            self.remove(std::str::from_utf8(&name).expect("text"), 2).expect("removed");
        }
    }
}
