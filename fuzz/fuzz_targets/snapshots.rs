//! ```text
//!   first byte   the rest
//!   0            a whole file
//!   1            a header is put before it
//!   2, 3         a block of it, plain or compressed, with right checksums and a footer
//! ```
//! Whatever a snapshot says, it is read through or refused; what was read is the same when it is written and read again.

#![no_main]

use distributed_consistent_cache::Config;
use distributed_consistent_cache::entry::{Form, Value};
use distributed_consistent_cache::message::Write;
use distributed_consistent_cache::snapshot::block::Builder;
use distributed_consistent_cache::snapshot::reader::{Next, Reader};
use distributed_consistent_cache::snapshot::writer::Writer;
use distributed_consistent_cache::snapshot::{Fault, Header};
use distributed_consistent_cache::version::Version;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A key, its version, and its value as a node has it, if it has one.
type Record = (Vec<u8>, Version, Option<(Form, Vec<u8>)>);

fn read(bytes: &[u8]) -> Result<(Header, Vec<Record>), Fault> {
    let mut reader = Reader::new(bytes, bytes.len() as u64)?;
    let mut records = Vec::new();
    loop {
        match reader.go_on()? {
            Next::Block(packed) => {
                assert!(packed.unpacked_bytes() <= 255 * bytes.len() as u64, "memory that the file does not have");
                let block = packed.unpack()?;
                block.check()?;
                for write in block.writes() {
                    let Write { key, version, value } = write?;
                    let value = value.map(|value| (value.form(), value.bytes().to_vec()));
                    records.push((key.bytes().to_vec(), version, value));
                }
            }
            Next::Footer(_) => return Ok((reader.header().clone(), records)),
        }
    }
}

fn header() -> Header {
    Header { config: Config::new(3, Some(2)).expect("valid"), saved_at_us: 1 }
}

/// A file of one block of these bytes, whose checksums are all right.
fn forged(body: &[u8], compression: u8, unpacked: u32, records: u32) -> Vec<u8> {
    let mut bytes = header().encode();
    let mut chain = Xxh3::new();
    chain.update(&bytes);
    let mut block = |kind: u8, compression: u8, body: &[u8], unpacked: u32, records: u32| {
        let mut head = vec![kind, compression, 0, 0];
        [body.len() as u32, unpacked, records].iter().for_each(|number| head.extend(number.to_le_bytes()));
        let checksum = xxh3_64(&[&head, body].concat());
        bytes.extend([&head, &checksum.to_le_bytes()[..], body].concat());
        checksum
    };
    chain.update(&block(1, compression, body, unpacked, records).to_le_bytes());
    let totals = [1, records.into(), 0, u64::from(unpacked), chain.digest()];
    let footer: Vec<u8> = totals.iter().flat_map(|word| word.to_le_bytes()).collect();
    block(255, 0, &footer, 40, 0);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else { return };
    let number = |at: usize| u32::from(rest.get(at).copied().unwrap_or_default());
    let bytes = match kind {
        0 => rest.to_vec(),
        1 => [&header().encode(), rest].concat(),
        2 => forged(rest.get(1..).unwrap_or_default(), 0, rest.len().saturating_sub(1) as u32, number(0)),
        _ => forged(rest.get(3..).unwrap_or_default(), 1, number(0) << 8 | number(1), number(2)),
    };
    let Ok((header, records)) = read(&bytes) else { return };
    let mut builder = Builder::default();
    for (key, version, value) in &records {
        let value = value.as_ref().map(|(form, bytes)| match form {
            Form::Raw => Value::new(bytes),
            Form::Unframed => Value::unframed(bytes),
            Form::Packed => Value::packed_before(bytes, version.digest),
        });
        builder.push(key, *version, value.map(|value| value.expect("it was one")));
    }
    let mut writer = Writer::new(Vec::new(), &header).expect("memory");
    writer.write(&builder.seal().expect("memory")).expect("memory");
    let again = writer.finish().expect("memory").0;
    assert_eq!(read(&again).expect("it was just written"), (header, records));
});
