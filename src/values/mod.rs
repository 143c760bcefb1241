//! ```text
//!   serialized bytes --compress?--> --sign?--> [ flag | signature | length | dictionary | packed bytes ]  -> nodes
//!                  \------- neither: as they are, no flag byte, no cost ----------------------------------> nodes
//!
//!   nodes -> signature right?  ->  length true?  ->  decompress  ->  digest that of the version?  ->  serialized bytes
//! ```
//! How a value's bytes are packed before they go to the nodes and unpacked after they come back. It knows no node, no
//! cluster and no Python: only bytes, versions, and a library of dictionaries.
//!
//! Promise: what is unpacked is what was packed, byte for byte, or an error that names the key. The signature is checked
//! before anything else is looked at, the length before memory is taken for it, and what a codec gives against the digest
//! of the version, which was made of the bytes before they were packed.

mod codec;
mod dictionaries;
mod sign;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::{Compression, Config};
use crate::dictionary::{DictionaryId, Library};
use crate::entry::{Form, Key, Value};
use crate::error::{Error, Need};
use crate::lock::OnlyThread;
use crate::lock::RawLock;
use crate::message::Write;
use crate::packed::{BROKEN, Codec, LENGTH_BYTES_MAX, Parts, SIGNATURE_BYTES, SIGNED, UNFRAMED, write_length};
use crate::shortage;
use crate::shown::Quoted;
use crate::stats::{DictionaryState, ValueStats};
use crate::version::Version;
use codec::Contexts;
use dictionaries::{Dictionaries, Prepared};
use sign::{Signed, Signer};

/// LZ4 and plain Zstandard make little of shorter values.
const COMPRESSED_FROM_BYTES: usize = 1024;
/// A dictionary makes shorter values smaller, too.
const DICTIONARY_FROM_BYTES: usize = 64;
/// What is packed stays packed when it saves one part in so many: a smaller gain is not worth a slower read.
const GAIN_PART: usize = 8;

/// A value is believed to unpack to so many bytes, or to so many times of what it was packed into, because it says so. Of a
/// longer one the beginning is unpacked first.
const BELIEVED_BYTES_MAX: usize = 1 << 20;
const BELIEVED_TIMES: usize = 16;

/// Work that takes longer is done without what others wait for: letting go of the GIL costs about as much.
const LONG_NS: u64 = 5_000;

const NOT_SIGNED: &str = "it is not signed, and this cache has a signing key";

const fn compressed_from(compression: Compression) -> usize {
    match compression {
        Compression::None => usize::MAX,
        Compression::Lz4 | Compression::Zstd => COMPRESSED_FROM_BYTES,
        Compression::ZstdDict => DICTIONARY_FROM_BYTES,
    }
}

/// How a cache packs its values, and what became of them.
pub struct Packing {
    compression: Compression,
    /// Shorter values are left as they are.
    packs_from: usize,
    signer: Option<Signer>,
    dictionaries: Dictionaries,
    contexts: codec::Pool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    tried: AtomicU64,
    packed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    corrupt: AtomicU64,
    refused: AtomicU64,
}

/// A write that is ready for the nodes. While it lives, the dictionary that its value needs stays.
pub struct Packed<'a> {
    as_given: Write<'a>,
    /// What the value became, if it was packed.
    packed: Option<Vec<u8>>,
    _dictionary: Option<Arc<Prepared>>,
}

impl Packed<'_> {
    /// The write.
    pub fn write(&self) -> Write<'_> {
        match &self.packed {
            // The digest stays that of the value as it was given.
            Some(packed) => Write { value: Some(Value::stored(packed, Form::Packed)), ..self.as_given },
            None => self.as_given,
        }
    }
}

/// A value as it came back, found to be signed as it should be. It is still to be decompressed, if it was compressed.
pub struct Opened<'a> {
    key: Key<'a>,
    version: Version,
    form: Form,
    codec: Codec,
    packed: &'a [u8],
    bytes: usize,
    dictionary: Option<Arc<Prepared>>,
}

impl<'a> Opened<'a> {
    /// The form of what it unpacks to: never [`Form::Packed`].
    pub const fn form(&self) -> Form {
        self.form
    }

    /// The bytes that it unpacks to.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value, if there is nothing to decompress.
    pub fn plain(&self) -> Option<Value<'a>> {
        (self.codec == Codec::None).then(|| Value::stored(self.packed, self.form))
    }
}

impl Packing {
    /// Its locks.
    pub fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        self.contexts.locks(each);
        self.dictionaries.locks(each);
    }

    /// In a forked child: what other threads were doing is not done.
    pub fn in_child(&self, alone: &OnlyThread) {
        self.dictionaries.in_child(alone);
    }

    /// As the configuration says.
    pub fn new(config: &Config) -> Self {
        let (dictionaries, signer) = (Dictionaries::new(config), Signer::new(config.keys()));
        let compression = match config.packs() {
            // Nodes that have no room for a dictionary get what comes nearest.
            Compression::ZstdDict if dictionaries.bytes_max() == 0 => Compression::Zstd,
            compression => compression,
        };
        Self {
            compression,
            packs_from: if signer.is_some() { 0 } else { compressed_from(compression) },
            signer,
            dictionaries,
            contexts: codec::Pool::default(),
            counts: Counts::default(),
        }
    }

    /// Whether values are signed.
    #[inline]
    pub const fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// Whether a write goes to the nodes as it is.
    #[inline]
    pub fn leaves(&self, write: &Write<'_>) -> bool {
        write.value.is_none_or(|value| self.leaves_value(value))
    }

    #[inline]
    fn leaves_value(&self, value: Value<'_>) -> bool {
        value.bytes().len() < self.packs_from || value.form() == Form::Packed
    }

    /// Whether a value that came back in this form is as it was given.
    #[inline]
    pub fn left(&self, form: Form) -> bool {
        form != Form::Packed && self.signer.is_none()
    }

    /// Whether packing a value takes longer than others should wait for.
    #[inline]
    pub fn packs_long(&self, value: Value<'_>) -> bool {
        if self.leaves_value(value) {
            return false;
        }
        let bytes = value.bytes().len();
        self.lasts_long(bytes, codec::pack_ns(self.codec_wanted(bytes), bytes))
    }

    /// Whether unpacking a value takes longer than others should wait for.
    pub fn unpacks_long(&self, stored: Value<'_>) -> bool {
        if self.left(stored.form()) {
            return false;
        }
        let Ok(parts) = Parts::read(stored.bytes()) else { return false };
        self.lasts_long(stored.bytes().len(), codec::unpack_ns(parts.codec, parts.bytes))
    }

    fn lasts_long(&self, signed_bytes: usize, codec_ns: u64) -> bool {
        let sign_ns = if self.signs() { sign::sign_ns(signed_bytes) } else { 0 };
        codec_ns + sign_ns > LONG_NS
    }

    fn codec_wanted(&self, bytes: usize) -> Codec {
        match self.compression {
            _ if bytes < compressed_from(self.compression) => Codec::None,
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
            Compression::ZstdDict => Codec::ZstdDictionary,
        }
    }

    /// Packs the value of a write for the nodes. One that is not made smaller by an eighth and is not signed stays as it is.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] for a value that is too long once it is signed, [`Error::OutOfMemory`].
    pub fn pack<'a>(&self, write: Write<'a>) -> Result<Packed<'a>, Error> {
        let as_it_is = Packed { as_given: write, packed: None, _dictionary: None };
        let Some(value) = write.value.filter(|&value| !self.leaves_value(value)) else { return Ok(as_it_is) };
        let bytes = value.bytes();
        let (codec, dictionary) = self.choose(bytes);
        let mut flag = if value.is_unframed() { UNFRAMED } else { 0 };
        let mut head = [0; 1 + SIGNATURE_BYTES + LENGTH_BYTES_MAX + size_of::<DictionaryId>()];
        let mut head_len = 1;
        if self.signs() {
            flag |= SIGNED;
            head_len += SIGNATURE_BYTES;
        }
        let body_start = head_len;
        head_len += write_length(&mut head[head_len..], bytes.len());
        if let Some(prepared) = &dictionary {
            head[head_len..head_len + 4].copy_from_slice(&prepared.dictionary().id().to_le_bytes());
            head_len += 4;
        }
        let mut compressed = None;
        if codec != Codec::None {
            // What is not shorter than this is no gain.
            let room = (bytes.len() - bytes.len() / GAIN_PART).saturating_sub(head_len - (body_start - 1));
            compressed = self.contexts.with(|contexts| {
                let packed = contexts.compress(codec, dictionary.as_deref(), bytes, room)?;
                shortage::joined(Need::Value, &[&head[..head_len], packed]).ok()
            });
            let bytes_out = compressed.as_ref().map_or(bytes.len(), Vec::len);
            self.count(bytes.len(), bytes_out, compressed.is_some());
            if let Some(prepared) = &dictionary {
                self.dictionaries.note(prepared, bytes.len(), bytes_out);
            }
        }
        let (mut packed, dictionary) = match compressed {
            Some(packed) => {
                flag |= codec as u8;
                (packed, dictionary)
            }
            None if self.signs() => (shortage::joined(Need::Value, &[&head[..body_start], bytes])?, None),
            None => return Ok(as_it_is),
        };
        packed[0] = flag;
        if let Some(signer) = &self.signer {
            let signed = Signed {
                key: write.key.bytes(),
                version: write.version,
                flag,
                dictionary: dictionary.as_ref().map(|prepared| prepared.dictionary().hash()),
                body: &packed[body_start..],
            };
            let signature = signer.sign(&signed);
            packed[1..=SIGNATURE_BYTES].copy_from_slice(&signature);
        }
        // A value that was as long as it may be is too long with its signature.
        Value::packed_before(&packed, write.version.digest)?;
        Ok(Packed { as_given: write, packed: Some(packed), _dictionary: dictionary })
    }

    /// The codec for a value, and its dictionary. In passing, the value may be kept as a sample for the next.
    fn choose(&self, bytes: &[u8]) -> (Codec, Option<Arc<Prepared>>) {
        match self.codec_wanted(bytes.len()) {
            Codec::ZstdDictionary => {
                self.dictionaries.offer(bytes);
                match self.dictionaries.current() {
                    Some(prepared) => (Codec::ZstdDictionary, Some(prepared)),
                    None if bytes.len() >= COMPRESSED_FROM_BYTES => (Codec::Zstd, None),
                    None => (Codec::None, None),
                }
            }
            codec => (codec, None),
        }
    }

    fn count(&self, bytes_in: usize, bytes_out: usize, is_packed: bool) {
        self.counts.tried.fetch_add(1, Ordering::Relaxed);
        self.counts.packed.fetch_add(u64::from(is_packed), Ordering::Relaxed);
        self.counts.bytes_in.fetch_add(bytes_in as u64, Ordering::Relaxed);
        self.counts.bytes_out.fetch_add(bytes_out as u64, Ordering::Relaxed);
    }

    /// Looks at what came back from the nodes under this key and version: its signature first, then its length, and the
    /// dictionary that it needs, which is looked for in the library if it is not known here.
    ///
    /// # Errors
    /// [`Error::Serialization`] when it is not signed as this cache asks for, is corrupt, or needs a dictionary that is gone.
    /// It names the key, and is counted.
    pub fn open<'a>(
        &self,
        key: Key<'a>,
        version: Version,
        stored: Value<'a>,
        library: &dyn Library,
    ) -> Result<Opened<'a>, Error> {
        let (form, packed) = (stored.form(), stored.bytes());
        let mut opened =
            Opened { key, version, form, codec: Codec::None, packed, bytes: packed.len(), dictionary: None };
        if self.left(form) {
            return Ok(opened);
        }
        if form != Form::Packed {
            return Err(self.refuse(key, NOT_SIGNED));
        }
        let parts = Parts::read(packed).map_err(|why| self.failed(key, why))?;
        (opened.form, opened.codec) = (parts.form(), parts.codec);
        (opened.packed, opened.bytes) = (parts.packed, parts.bytes);
        self.check_signed(key, &parts)?;
        if let Some(id) = parts.dictionary {
            let missing = || self.failed(key, format!("it needs the dictionary {id:08x}, which no node has"));
            opened.dictionary = Some(self.dictionaries.find(id, library).ok_or_else(missing)?);
        }
        let dictionary = opened.dictionary.as_ref().map(|prepared| prepared.dictionary().hash());
        self.check_signature(key, version, dictionary, &parts)?;
        if parts.bytes > BELIEVED_BYTES_MAX {
            self.check_length(&opened, library)?;
        }
        Ok(opened)
    }

    /// Unpacks into `to`, which has exactly [`Opened::bytes`] bytes, and checks them against the digest of the version.
    ///
    /// # Errors
    /// [`Error::Serialization`] when the bytes are not what was packed; then `to` holds anything. It names the key, and is
    /// counted.
    pub fn unpack_into(&self, opened: &Opened<'_>, to: &mut [u8]) -> Result<(), Error> {
        let Opened { key, version, codec, packed, dictionary, .. } = opened;
        if *codec == Codec::None && packed.len() == to.len() {
            to.copy_from_slice(packed);
            return Ok(());
        }
        let unpacked = self.contexts.with(|contexts| contexts.decompress(*codec, dictionary.as_deref(), packed, to));
        unpacked.map_err(|why| self.not_unpacked(*key, why, to.len()))?;
        if Value::stored(to, opened.form).digest() != version.digest {
            return Err(self.failed(*key, BROKEN));
        }
        Ok(())
    }

    /// Unpacks what came back from the nodes: the bytes, and their form. See [`Packing::open`].
    ///
    /// # Errors
    /// Those of [`Packing::open`] and [`Packing::unpack_into`].
    pub fn unpack<'a>(
        &self,
        key: Key<'a>,
        version: Version,
        stored: Value<'a>,
        library: &dyn Library,
    ) -> Result<(Cow<'a, [u8]>, Form), Error> {
        let opened = self.open(key, version, stored, library)?;
        if let Some(plain) = opened.plain() {
            return Ok((Cow::Borrowed(plain.bytes()), plain.form()));
        }
        let mut unpacked = Vec::new();
        let bytes = opened.bytes as u64;
        unpacked.try_reserve_exact(opened.bytes).map_err(|_| Error::OutOfMemory { what: Need::Value, bytes })?;
        unpacked.resize(opened.bytes, 0);
        self.unpack_into(&opened, &mut unpacked)?;
        Ok((Cow::Owned(unpacked), opened.form))
    }

    /// Whether it is signed if it must be, and is not if it must not.
    fn check_signed(&self, key: Key<'_>, parts: &Parts<'_>) -> Result<(), Error> {
        match (&self.signer, parts.signature) {
            (None, None) | (Some(_), Some(_)) => Ok(()),
            (None, Some(_)) => Err(self.refuse(key, "it is signed, and this cache has no signing key")),
            (Some(_), None) => Err(self.refuse(key, NOT_SIGNED)),
        }
    }

    fn check_signature(
        &self,
        key: Key<'_>,
        version: Version,
        dictionary: Option<&[u8; 32]>,
        parts: &Parts<'_>,
    ) -> Result<(), Error> {
        let (Some(signer), Some(signature)) = (&self.signer, parts.signature) else { return Ok(()) };
        let signed = Signed { key: key.bytes(), version, flag: parts.flag, dictionary, body: parts.body };
        if signer.verifies(&signed, signature) {
            return Ok(());
        }
        // Earlier releases did not sign the dictionary: anybody could have exchanged it.
        if dictionary.is_some() && signer.verifies(&Signed { dictionary: None, ..signed }, signature) {
            return Err(self.refuse(key, "its signature, of an earlier release, does not cover its dictionary"));
        }
        Err(self.refuse(key, "its signature is wrong: it was changed, or signed under another key"))
    }

    /// Whether a long value can be as long as it says: before memory is taken for it.
    #[cold]
    fn check_length(&self, opened: &Opened<'_>, library: &dyn Library) -> Result<(), Error> {
        if opened.bytes as u64 > library.unpacked_bytes_max() {
            return Err(self.failed(opened.key, "it says that it unpacks to more bytes than a node could have taken"));
        }
        let Opened { codec, packed, bytes, dictionary, .. } = opened;
        let prepared = dictionary.as_deref();
        // What comes out of the beginning shows how much is yet to come, and memory is taken for four times as much at most.
        let mut room = BELIEVED_BYTES_MAX;
        while *codec != Codec::None && room < *bytes && packed.len().saturating_mul(BELIEVED_TIMES) < *bytes {
            let begins = self.contexts.with(|contexts| contexts.begins(*codec, prepared, packed, room));
            begins.map_err(|why| self.not_unpacked(opened.key, why, room))?;
            room = room.saturating_mul(4);
        }
        Ok(())
    }

    /// Where there was no memory, nothing is wrong with the value.
    #[cold]
    fn not_unpacked(&self, key: Key<'_>, why: &str, bytes: usize) -> Error {
        match why {
            codec::NO_MEMORY => Error::OutOfMemory { what: Need::Value, bytes: bytes as u64 },
            _ => self.failed(key, why),
        }
    }

    #[cold]
    fn failed(&self, key: Key<'_>, why: impl Display) -> Error {
        self.counts.corrupt.fetch_add(1, Ordering::Relaxed);
        let key = String::from_utf8_lossy(key.bytes());
        Error::Serialization(format!("the value of {} cannot be unpacked: {why}", Quoted(&key)))
    }

    #[cold]
    fn refuse(&self, key: Key<'_>, why: &str) -> Error {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let key = String::from_utf8_lossy(key.bytes());
        Error::Serialization(format!("the value of {} is refused: {why}", Quoted(&key)))
    }

    /// One step in the background: trains a dictionary when enough samples are there, has every node know it, and only then
    /// uses it; and gives up one that no value needs any more. It can take a few tenths of a second.
    pub fn study(&self, library: &dyn Library, now: Instant) {
        if self.compression == Compression::ZstdDict {
            self.dictionaries.study(library, now);
        }
    }

    /// Whether there is anything to study.
    pub fn studies(&self) -> bool {
        self.compression == Compression::ZstdDict
    }

    /// What became of values until now.
    pub fn stats(&self) -> ValueStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let learned = self.dictionaries.stats();
        ValueStats {
            compression: self.compression,
            tried: get(&self.counts.tried),
            packed: get(&self.counts.packed),
            bytes_in: get(&self.counts.bytes_in),
            bytes_out: get(&self.counts.bytes_out),
            dictionary: match self.compression {
                Compression::ZstdDict => learned.state,
                Compression::None | Compression::Lz4 | Compression::Zstd => DictionaryState::Off,
            },
            samples: learned.samples,
            dictionaries: learned.dictionaries,
            trainings: learned.trainings,
            corrupt: get(&self.counts.corrupt),
            refused: get(&self.counts.refused),
        }
    }
}

impl Contexts {
    /// Compresses into at most `room` bytes; nothing when that is not enough.
    fn compress(&mut self, codec: Codec, prepared: Option<&Prepared>, bytes: &[u8], room: usize) -> Option<&[u8]> {
        match codec {
            Codec::None => None,
            Codec::Lz4 => self.lz4(bytes, room),
            Codec::Zstd | Codec::ZstdDictionary => self.zstd(prepared.map(Prepared::encoder), bytes, room),
        }
    }

    /// Whether at least so many bytes come out of this, as far as can be told from the first of them.
    fn begins(
        &mut self,
        codec: Codec,
        prepared: Option<&Prepared>,
        packed: &[u8],
        room: usize,
    ) -> Result<(), &'static str> {
        let mut to = Vec::new();
        to.try_reserve_exact(room).map_err(|_| codec::NO_MEMORY)?;
        to.resize(room, 0);
        match codec {
            Codec::None => Ok(()),
            Codec::Lz4 => codec::lz4_begins(packed, &mut to),
            Codec::Zstd | Codec::ZstdDictionary => self.zstd_begins(prepared.map(Prepared::decoder), packed, &mut to),
        }
    }

    fn decompress(
        &mut self,
        codec: Codec,
        prepared: Option<&Prepared>,
        packed: &[u8],
        to: &mut [u8],
    ) -> Result<(), &'static str> {
        match codec {
            Codec::None => Err(BROKEN),
            Codec::Lz4 => codec::unlz4(packed, to),
            Codec::Zstd | Codec::ZstdDictionary => self.unzstd(prepared.map(Prepared::decoder), packed, to),
        }
    }
}
