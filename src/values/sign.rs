//! ```text
//!   secret --derive--> 32 bytes --keyed BLAKE3--> 16 bytes
//!                                    ^
//!           length of the key, key, timestamp, kind, flag, hash of the dictionary, packed bytes
//! ```
//! Signatures: whoever does not know a key can neither make a value, nor change one, nor move it to another key or time.
//!
//! All that decides what the packed bytes unpack to is signed: how they are coded, and with which dictionary, byte for byte.
//!
//! Promise: a value whose signature is wrong is not looked at any further. The first key signs; all are accepted, so that
//! keys can be exchanged one after the other. What was signed and is sent again is not told apart from the first time.

use crate::config::SigningKey;
use crate::packed::SIGNATURE_BYTES;
use crate::version::{Kind, Version};

/// What sets these keys apart from others that are derived from the same secret.
const CONTEXT: &str = "distributed-consistent-cache 2026-11 signatures of values";

/// About how long signing takes: BLAKE3 does 1 to 2 bytes a nanosecond, and needs 200 ns for the least.
pub(super) const fn sign_ns(bytes: usize) -> u64 {
    200 + bytes as u64 * 7 / 10
}

/// What is signed.
pub(super) struct Signed<'a> {
    pub(super) key: &'a [u8],
    pub(super) version: Version,
    pub(super) flag: u8,
    /// The hash of the dictionary that the body was packed with. The flag says whether there is one.
    pub(super) dictionary: Option<&'a [u8; 32]>,
    pub(super) body: &'a [u8],
}

/// The keys.
pub(super) struct Signer {
    keys: Vec<[u8; 32]>,
}

impl Signer {
    /// Nothing when there are no keys.
    pub(super) fn new(keys: &[SigningKey]) -> Option<Self> {
        let keys: Vec<_> = keys.iter().map(|key| blake3::derive_key(CONTEXT, key.secret())).collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    pub(super) fn sign(&self, signed: &Signed<'_>) -> [u8; SIGNATURE_BYTES] {
        sign(&self.keys[0], signed)
    }

    pub(super) fn verifies(&self, signed: &Signed<'_>, signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.keys.iter().any(|key| is_same(&sign(key, signed), signature))
    }
}

fn sign(key: &[u8; 32], signed: &Signed<'_>) -> [u8; SIGNATURE_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&(signed.key.len() as u32).to_le_bytes());
    hasher.update(signed.key);
    hasher.update(&signed.version.timestamp.get().to_le_bytes());
    hasher.update(&[matches!(signed.version.kind(), Kind::Remove).into(), signed.flag]);
    if let Some(dictionary) = signed.dictionary {
        hasher.update(dictionary);
    }
    hasher.update(signed.body);
    let mut signature = [0; SIGNATURE_BYTES];
    signature.copy_from_slice(&hasher.finalize().as_bytes()[..SIGNATURE_BYTES]);
    signature
}

/// Compares without telling by its time how much was right.
fn is_same(a: &[u8; SIGNATURE_BYTES], b: &[u8; SIGNATURE_BYTES]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
}
