//! Each sentence of `docs/signing.md`, attacked: what is unpacked in a cache with a key was signed under it, as it is.

use distributed_consistent_cache::dictionary::Dictionary;
use distributed_consistent_cache::entry::{Form, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::packed::{LENGTH_BYTES_MAX, SIGNATURE_BYTES, write_length};
use distributed_consistent_cache::values::Packing;
use distributed_consistent_cache::version::{Timestamp, Version};
use distributed_consistent_cache::{Cache, Compression, Error};

use crate::values::{Shelf, config, key, record, signed, teach};

const ALL: [Compression; 4] = [Compression::None, Compression::Lz4, Compression::Zstd, Compression::ZstdDict];

/// A value, packed by a writer with a key, and where its dictionary is.
struct Made {
    given: Vec<u8>,
    packed: Vec<u8>,
    version: Version,
    cache: Cache,
}

fn made(compression: Compression) -> Made {
    let cache = Cache::new(signed(compression, b"k").node_bytes(1 << 20).expect("valid"));
    if compression == Compression::ZstdDict {
        teach(&cache, record);
    }
    let given = if compression == Compression::ZstdDict { record(7) } else { record(7).repeat(40) };
    let at = Timestamp::new(5).expect("small");
    let put = Write::put(key("mine"), at, Value::new(&given).expect("short"));
    let packed = cache.packing().pack(put).expect("packed");
    let (bytes, version) = (packed.write().value.expect("a put").bytes().to_vec(), packed.write().version);
    drop(packed);
    Made { given, packed: bytes, version, cache }
}

/// What was given, from what was unpacked.
fn whole(bytes: &[u8], form: Form) -> Vec<u8> {
    let value = if form == Form::Unframed { Value::unframed(bytes) } else { Value::new(bytes) };
    value.expect("short").whole().into_owned()
}

/// What a reader with these keys makes of it.
fn read(made: &Made, letters: &[u8], name: &str, version: Version, stored: Value<'_>) -> Result<Vec<u8>, String> {
    let config = if letters.is_empty() { config(Compression::Lz4) } else { signed(Compression::Lz4, letters) };
    match Packing::new(&config).unpack(key(name), version, stored, &*made.cache) {
        Ok((bytes, form)) => Ok(whole(&bytes, form)),
        Err(Error::Serialization(why)) => Err(why),
        Err(error) => panic!("{error}"),
    }
}

fn packed(bytes: &[u8]) -> Value<'_> {
    Value::packed_before(bytes, 0).expect("short")
}

#[test]
fn where_it_belongs_a_signed_value_is_read() {
    for compression in ALL {
        let made = made(compression);
        assert_eq!(read(&made, b"k", "mine", made.version, packed(&made.packed)), Ok(made.given.clone()));
        assert_eq!(read(&made, b"nk", "mine", made.version, packed(&made.packed)), Ok(made.given.clone()), "two keys");
    }
}

#[test]
fn a_signed_value_is_refused_under_another_secret_key_or_timestamp_and_without_a_secret() {
    for compression in ALL {
        let made = made(compression);
        let later = Version { timestamp: Timestamp::new(6).expect("small"), ..made.version };
        for (letters, name, version) in [
            (&b"n"[..], "mine", made.version),
            (b"", "mine", made.version),
            (b"k", "yours", made.version),
            (b"k", "min", made.version),
            (b"k", "", made.version),
            (b"k", "mine", later),
        ] {
            let why = read(&made, letters, name, version, packed(&made.packed)).expect_err("refused");
            assert!(why.contains("is refused"), "{why}");
        }
        for plain in [Value::new(&made.given), Value::unframed(&made.given)] {
            let why = read(&made, b"k", "mine", made.version, plain.expect("short")).expect_err("refused");
            assert!(why.contains("it is not signed"), "{why}");
        }
    }
}

#[test]
fn a_signed_value_of_which_a_bit_is_changed_or_a_byte_is_missing_is_never_read() {
    for compression in ALL {
        let made = made(compression);
        for at in 0..made.packed.len() {
            for bit in 0..8 {
                let mut changed = made.packed.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&made, b"k", "mine", made.version, packed(&changed)).is_err(), "bit {bit} of byte {at}");
            }
            assert!(read(&made, b"k", "mine", made.version, packed(&made.packed[..at])).is_err(), "cut at {at}");
        }
        let longer = [&made.packed[..], b"."].concat();
        assert!(read(&made, b"k", "mine", made.version, packed(&longer)).is_err());
    }
}

#[test]
fn a_signature_is_of_no_use_for_the_same_bytes_packed_in_another_way() {
    let all = ALL.map(made);
    for one in &all {
        for other in &all {
            if one.packed == other.packed || one.packed[0] == other.packed[0] {
                continue;
            }
            // The signature of one before the body of the other, under the flag of either.
            for flag in [one.packed[0], other.packed[0]] {
                let signature = &one.packed[1..=SIGNATURE_BYTES];
                let forged = [&[flag], signature, &other.packed[1 + SIGNATURE_BYTES..]].concat();
                assert!(read(other, b"k", "mine", other.version, packed(&forged)).is_err());
            }
        }
    }
}

#[test]
fn a_value_is_not_unpacked_with_a_dictionary_that_it_was_not_signed_with() {
    let made = made(Compression::ZstdDict);
    let theirs = made.cache.dictionaries()[0].clone();
    let reads = |dictionary: &Dictionary| {
        let library = Shelf(Some(dictionary.clone()));
        let packing = Packing::new(&signed(Compression::Lz4, b"k"));
        let version = Version { digest: made.version.digest, ..made.version };
        packing.unpack(key("mine"), version, packed(&made.packed), &library).map(|(bytes, form)| whole(&bytes, form))
    };
    assert_eq!(reads(&theirs), Ok(made.given.clone()));
    for at in (0..theirs.bytes().len()).step_by(7) {
        let mut bytes = theirs.bytes().to_vec();
        bytes[at] ^= 1;
        let Err(Error::Serialization(why)) = reads(&Dictionary::new(&bytes)) else { panic!("byte {at}: it was read") };
        assert!(why.contains("is refused: its signature is wrong") || why.contains("which no node has"), "{why}");
    }
}

#[test]
fn a_length_that_is_not_true_takes_no_memory() {
    let cache = Cache::new(config(Compression::Lz4).node_bytes(1 << 20).expect("valid"));
    let version = Version::put(Timestamp::MAX, 0);
    // 64 times the node's 1 MiB may be said, and more not; and what is said is not believed where nothing is behind it.
    for (codec, said, why) in [
        (1_u8, 8 << 20, "corrupt"),
        (2, 8 << 20, "corrupt"),
        (2, 60 << 20, "corrupt"),
        (2, 65 << 20, "more bytes than a node could have taken"),
        (2, 1 << 30, "more bytes than a node could have taken"),
    ] {
        for filling in [0, 0xff, b'x'] {
            let mut head = [0; 1 + LENGTH_BYTES_MAX];
            head[0] = codec;
            let len = write_length(&mut head[1..], said);
            let forged = [&head[..=len], &[filling; 40_000]].concat();
            let packing = cache.packing();
            let Err(Error::Serialization(said)) = packing.unpack(key("key"), version, packed(&forged), &*cache) else {
                panic!("it was unpacked")
            };
            assert!(said.contains(why), "{said}");
            if why != "corrupt" {
                let written = cache.write(Write::put(key("key"), Timestamp::MAX, packed(&forged)), None, None);
                assert!(matches!(written, Err(Error::UnpacksTooLarge { .. })), "what cannot be read is not taken");
            }
        }
    }
}

#[test]
fn what_repeats_for_long_comes_back_up_to_64_nodes_full_of_it() {
    let zeros = vec![0; 64 << 20];
    for compression in [Compression::Lz4, Compression::Zstd] {
        let cache = Cache::new(config(compression).node_bytes(1 << 20).expect("valid"));
        for length in [1 << 20, (1 << 20) + 1, 5 << 20, zeros.len()] {
            assert_eq!(cache.put("key", &zeros[..length], length as u64), Ok(true));
            assert_eq!(cache.get("key"), Ok(Some((zeros[..length].to_vec(), length as u64))));
        }
        let longer = vec![0; zeros.len() + 1];
        assert!(matches!(cache.put("key", &longer, 1 << 40), Err(Error::UnpacksTooLarge { .. })));
        assert!(cache.get("key").expect("open").is_some_and(|(value, _)| value.len() == zeros.len()), "it stays");
    }
}
