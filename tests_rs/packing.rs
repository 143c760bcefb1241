//! Values that are packed on their way to the nodes: whatever the setting, what comes back is what was given, or an error.

use distributed_consistent_cache::config::Compression;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::values::Packing;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Config, Error};

const ALL: [Compression; 4] = [Compression::None, Compression::Lz4, Compression::Zstd, Compression::ZstdDict];

fn config(compression: Compression) -> Config {
    Config::new(3, Some(2)).expect("in range").gossip_interval(None).expect("none").compression(compression)
}

fn cache(compression: Compression) -> Cache {
    Cache::new(config(compression))
}

/// What a writer with this setting makes of a value.
fn pack(given: &[u8], compression: Compression) -> Vec<u8> {
    let put = Write::put(Key::new(b"").expect("short"), Timestamp::MAX, Value::new(given).expect("short"));
    let packing = Packing::new(&config(compression));
    let packed = packing.pack(put).expect("packed");
    packed.write().value.expect("a put").bytes().to_vec()
}

/// The same as a node takes it.
fn stored<'a>(given: &'a [u8], packed: &'a [u8]) -> Value<'a> {
    let value = Value::new(given).expect("short");
    if packed == given { value } else { value.packed(packed).expect("short") }
}

fn text(bytes: usize) -> Vec<u8> {
    b"Everything that repeats can be told in fewer words. ".iter().copied().cycle().take(bytes).collect()
}

/// Writes what a writer with another setting, or one that is broken, would write.
fn put_stored(cache: &Cache, key: &str, value: Value<'_>, timestamp: u64) -> bool {
    let timestamp = Timestamp::new(timestamp).expect("small");
    cache
        .write(Write::put(Key::new(key.as_bytes()).expect("short"), timestamp, value), None, None)
        .expect("room")
        .newest
}

#[test]
fn writers_with_different_settings_read_each_others_values() {
    for reader in ALL {
        let cache = cache(reader);
        for (number, writer) in ALL.into_iter().enumerate() {
            for bytes in [0, 1, 1_023, 1_024, 20_000, 300_000] {
                let given = text(bytes);
                let (key, packed) = (format!("{number} {bytes}"), pack(&given, writer));
                put_stored(&cache, &key, stored(&given, &packed), 1);
                assert_eq!(cache.get(&key), Ok(Some((given, 1))));
            }
        }
    }
}

#[test]
fn the_same_value_is_the_same_version_however_it_is_packed() {
    let cache = cache(Compression::None);
    let given = text(5_000);
    for writer in ALL {
        let packed = pack(&given, writer);
        assert!(put_stored(&cache, "key", stored(&given, &packed), 1), "the very same value is in place");
    }
    assert_eq!(cache.get("key"), Ok(Some((given, 1))));
}

#[test]
fn a_corrupt_value_is_an_error_that_names_the_key_and_stays_one() {
    let given = text(5_000);
    for writer in [Compression::Lz4, Compression::Zstd] {
        let cache = cache(writer);
        let (value, mut broken) = (Value::new(&given).expect("short"), pack(&given, writer));
        let last = broken.len() - 1;
        broken[last] ^= 1;
        put_stored(&cache, "some key", value.packed(&broken).expect("short"), 1);
        for _ in 0..2 {
            let Err(Error::Serialization(why)) = cache.get("some key") else { panic!("it was read") };
            assert!(why.contains("\"some key\"") && why.contains("corrupt"), "{why}");
        }
        assert!(cache.put("some key", &given, 2).expect("room"), "a newer write takes its place");
        assert_eq!(cache.get("some key"), Ok(Some((given.clone(), 2))));
    }
}

#[test]
fn what_fits_only_when_it_is_packed_is_written() {
    let large = text(400_000);
    let config = Config::new(1, None).expect("one").node_bytes(64 * 1024).expect("in range");
    let cache = Cache::new(config.clone().compression(Compression::Lz4));
    assert!(cache.put("key", &large, 1).expect("it fits"));
    assert_eq!(cache.get("key"), Ok(Some((large.clone(), 1))));
    let cache = Cache::new(config.compression(Compression::None));
    assert!(matches!(cache.put("key", &large, 1), Err(Error::ValueTooLarge { .. })));
}

#[test]
fn unpacking_asks_for_the_digest_of_what_was_given() {
    let (given, packing) = (text(5_000), Packing::new(&config(Compression::Lz4)));
    let (key, value) = (Key::new(b"key").expect("short"), Value::new(&given).expect("short"));
    let packed = pack(&given, Compression::Lz4);
    let unpack = |digest: u64| {
        let version = Version::put(Timestamp::MAX, digest);
        packing
            .unpack(key, version, stored(&given, &packed), &*cache(Compression::None))
            .map(|(bytes, _)| bytes.into_owned())
    };
    assert_eq!(unpack(value.digest()), Ok(given.clone()));
    assert!(unpack(value.digest() ^ 1).is_err(), "another value's digest");
}
