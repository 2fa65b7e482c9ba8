//! What the algorithms of an SA do to a packet, whoever implements them.

use super::aead::RingAead;
use super::alg::{self, Resolved};
use super::layout::{Overhead, Parts};
use super::open::OpenError;
use super::{authenc, gcm};
use crate::tables::Refusal;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::ZeroizeOnDrop;

/// The families of algorithms, by who implements them. The fast ones are called without a detour.
#[expect(clippy::large_enum_variant, reason = "the large one is the fast one, and has no pointer to follow")]
pub(super) enum Suite {
    /// `ring`'s AEADs.
    Ring(RingAead),
    /// All the rest.
    Other(Box<dyn Transform>),
}

/// Algorithms, keyed, at work on a packet that was taken apart.
pub(super) trait Transform: Send + Sync {
    /// Makes the explicit IV of the packet with this number, which never repeats.
    fn write_iv(&self, number: u64, iv: &mut [u8]);

    /// Encrypts the text with the IV that is there, and writes the ICV. `None` where the packet is not one of these
    /// algorithms'; what the buffer then holds must not leave.
    fn seal(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Option<()>;

    /// Checks the ICV, then decrypts the text.
    fn open(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Result<(), OpenError>;
}

/// AES with a key of some length, which is erased when it is dropped.
pub(super) trait Aes:
    BlockCipherEncrypt<BlockSize = U16>
    + BlockCipherDecrypt<BlockSize = U16>
    + KeyInit
    + ZeroizeOnDrop
    + Send
    + Sync
    + 'static
{
}

impl Aes for aes::Aes128 {}
impl Aes for aes::Aes192 {}
impl Aes for aes::Aes256 {}

/// `$make::new(aes, …)`, boxed, with the AES whose key has this length; `None` if there is none.
macro_rules! by_key_size {
    ($key:expr, $make:ident $(, $arg:expr)*) => {{
        use aes::{Aes128, Aes192, Aes256, cipher::KeyInit};
        match $key.len() {
            16 => Aes128::new_from_slice($key).ok().map(|aes| Box::new($make::new(aes $(, $arg)*)) as Box<_>),
            24 => Aes192::new_from_slice($key).ok().map(|aes| Box::new($make::new(aes $(, $arg)*)) as Box<_>),
            32 => Aes256::new_from_slice($key).ok().map(|aes| Box::new($make::new(aes $(, $arg)*)) as Box<_>),
            _ => None,
        }
    }};
}
pub(super) use by_key_size;

impl Suite {
    /// Expands the keys, and says what the algorithms add to a packet.
    pub(super) fn new(resolved: Resolved<'_>) -> Result<(Self, Overhead), Refusal> {
        match resolved {
            Resolved::Aead { kind, key, salt, icv } => {
                let suite = match RingAead::new(kind, key, salt, icv) {
                    Some(ring) => Suite::Ring(ring),
                    None => Suite::Other(gcm::new(kind, key, salt).ok_or_else(alg::no_cipher)?),
                };
                Ok((suite, Overhead::new(8, 1, icv)))
            }
            Resolved::Split { cipher, enc_key, mac, auth_key, icv } => {
                let both = authenc::new(cipher, enc_key, mac, auth_key).ok_or_else(alg::bad_key)?;
                let (iv, block) = authenc::iv_and_block(cipher);
                Ok((Suite::Other(both), Overhead::new(iv, block, icv)))
            }
        }
    }

    /// Makes the explicit IV of the packet with this number.
    #[inline]
    pub(super) fn write_iv(&self, number: u64, iv: &mut [u8]) {
        match self {
            Suite::Ring(_) => iv.copy_from_slice(&number.to_be_bytes()),
            Suite::Other(other) => other.write_iv(number, iv),
        }
    }

    /// Encrypts the text, writes the ICV.
    #[inline]
    pub(super) fn seal(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Option<()> {
        match self {
            Suite::Ring(aead) => aead.seal(parts, seq_hi),
            Suite::Other(other) => other.seal(parts, seq_hi),
        }
    }

    /// Checks the ICV, decrypts the text.
    #[inline]
    pub(super) fn open(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Result<(), OpenError> {
        match self {
            Suite::Ring(aead) => aead.open(parts, seq_hi).then_some(()).ok_or(OpenError::BadIcv),
            Suite::Other(other) => other.open(parts, seq_hi),
        }
    }
}
