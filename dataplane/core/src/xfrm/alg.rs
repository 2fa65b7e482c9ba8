//! Algorithms as a user names them. What they mean in bytes is [`crate::esp`]'s business.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Key material. Zeroed when dropped; its `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Vec<u8>);

impl Key {
    /// iproute2's limit on a key, bytes.
    pub const MAX: usize = 512;

    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes. Secret: for a cipher or for `ip xfrm state` without `nokeys`.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.0.len() * 8)
    }
}

/// `aead NAME KEY ICVBITS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgAead {
    /// Kernel crypto API name, such as `rfc4106(gcm(aes))`.
    pub name: String,
    /// Key and salt, as the kernel takes them.
    pub key: Key,
    /// ICV length, bits.
    pub icv_bits: u32,
}

/// `enc NAME KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgEnc {
    /// Kernel crypto API name, such as `cbc(aes)`.
    pub name: String,
    /// Key.
    pub key: Key,
}

/// `auth NAME KEY` or `auth-trunc NAME KEY BITS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgAuth {
    /// Kernel crypto API name, such as `hmac(sha256)`.
    pub name: String,
    /// Key.
    pub key: Key,
    /// Truncated length, bits; `None` (from `auth`) is the kernel's default for the algorithm.
    pub trunc_bits: Option<u32>,
}

/// The algorithms of a state: an AEAD, or encryption with authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Algorithms {
    /// Combined mode.
    pub aead: Option<AlgAead>,
    /// Encryption.
    pub enc: Option<AlgEnc>,
    /// Authentication.
    pub auth: Option<AlgAuth>,
}

impl Algorithms {
    /// Leaves the names, and makes every key an empty one.
    pub fn hide_keys(&mut self) {
        let aead = self.aead.iter_mut().map(|alg| &mut alg.key);
        let enc = self.enc.iter_mut().map(|alg| &mut alg.key);
        let auth = self.auth.iter_mut().map(|alg| &mut alg.key);
        aead.chain(enc).chain(auth).for_each(|key| *key = Key::new(Vec::new()));
    }
}
