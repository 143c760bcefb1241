//! Values that are packed on their way to the nodes: whatever the setting, what comes back is what was given, or an error.

use distributed_consistent_cache::config::Compression;
use distributed_consistent_cache::entry::{Key, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::values::{pack, unpack};
use distributed_consistent_cache::version::Timestamp;
use distributed_consistent_cache::{Cache, Config, Error};

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn cache(compression: Compression) -> Cache {
    Cache::new(Config::new(3, Some(2)).expect("in range").gossip_interval(None).expect("none").compression(compression))
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
                let (given, mut buffer) = (text(bytes), Vec::new());
                let key = format!("{number} {bytes}");
                put_stored(&cache, &key, pack(Value::new(&given).expect("short"), writer, &mut buffer), 1);
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
        let mut buffer = Vec::new();
        let value = pack(Value::new(&given).expect("short"), writer, &mut buffer);
        assert!(put_stored(&cache, "key", value, 1), "the very same value is in place");
    }
    assert_eq!(cache.get("key"), Ok(Some((given, 1))));
}

#[test]
fn a_corrupt_value_is_an_error_that_names_the_key_and_stays_one() {
    let given = text(5_000);
    for writer in [Compression::Lz4, Compression::Zstd] {
        let cache = cache(writer);
        let (value, mut buffer) = (Value::new(&given).expect("short"), Vec::new());
        let mut broken = pack(value, writer, &mut buffer).bytes().to_vec();
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
    let (given, mut buffer) = (text(5_000), Vec::new());
    let value = Value::new(&given).expect("short");
    let packed = pack(value, Compression::Lz4, &mut buffer);
    assert_eq!(unpack(packed, value.digest()), Ok(given.clone()));
    assert!(unpack(packed, value.digest() ^ 1).is_err(), "another value's digest");
}
