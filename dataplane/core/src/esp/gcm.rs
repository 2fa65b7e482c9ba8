//! AES-GCM and AES-GMAC where `ring` has neither: 192-bit keys, ICVs of 8 and 12 bytes, and an associated text that
//! does not stand in one piece (RFC 4106, RFC 4543, NIST SP 800-38D).

use super::aead::{AadBytes, Salt};
use super::alg::AeadKind;
use super::cipher::count;
use super::layout::Parts;
use super::open::OpenError;
use super::suite::{Aes, Transform, by_key_size};
use aes::cipher::Block;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Bytes of a block of AES and of GHASH.
const BLOCK: usize = 16;

/// AES in counter mode, authenticated by GHASH.
struct Gcm<A: Aes> {
    aes: A,
    /// Keyed, and not fed yet.
    hash: GHash,
    salt: Salt,
    encrypts: bool,
}

/// `None` for a key that is not AES's, and for what is not GCM.
pub(super) fn new(kind: AeadKind, key: &[u8], salt: [u8; 4]) -> Option<Box<dyn Transform>> {
    let encrypts = match kind {
        AeadKind::Gcm => true,
        AeadKind::Gmac => false,
        AeadKind::ChaCha20Poly1305 => return None,
    };
    by_key_size!(key, Gcm, Salt(salt), encrypts)
}

impl<A: Aes> Gcm<A> {
    fn new(aes: A, salt: Salt, encrypts: bool) -> Self {
        let mut subkey = Block::<A>::default();
        aes.encrypt_block(&mut subkey);
        let hash = GHash::new(&subkey);
        subkey.as_mut_slice().zeroize();
        Self { aes, hash, salt, encrypts }
    }

    /// Encrypts or decrypts. The first counter hides the ICV, the text begins at the second.
    fn crypt(&self, parts: &mut Parts<'_>) -> Option<()> {
        if self.encrypts {
            count(&self.aes, self.salt.nonce(parts.iv)?, 2, parts.text);
        }
        Some(())
    }

    /// The whole ICV of a packet whose text is as it is on the wire.
    fn tag(&self, parts: &Parts<'_>, seq_hi: Option<u32>) -> Option<[u8; BLOCK]> {
        let aad = AadBytes::new(parts.header, seq_hi);
        let mut hash = self.hash.clone();
        let (aad_len, text_len) = if self.encrypts {
            hash.update_padded(aad.as_ref());
            hash.update_padded(parts.text);
            (aad.as_ref().len(), parts.text.len())
        } else {
            update_joined(&mut hash, [aad.as_ref(), parts.iv], parts.text);
            (aad.as_ref().len() + parts.iv.len() + parts.text.len(), 0)
        };
        let mut lengths = [0; BLOCK];
        lengths[..8].copy_from_slice(&(aad_len as u64 * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(text_len as u64 * 8).to_be_bytes());
        hash.update(&[lengths.into()]);
        let mut tag: [u8; BLOCK] = hash.finalize().into();
        count(&self.aes, self.salt.nonce(parts.iv)?, 1, &mut tag);
        Some(tag)
    }
}

/// Hashes a header in two pieces and the text behind it as one: what of the text fills up the header's last block
/// goes with it.
fn update_joined(hash: &mut GHash, [first, second]: [&[u8]; 2], text: &[u8]) {
    let header = first.len() + second.len();
    let (fill, rest) = text.split_at((header.next_multiple_of(BLOCK) - header).min(text.len()));
    let mut head = [0; 2 * BLOCK];
    head[..first.len()].copy_from_slice(first);
    head[first.len()..header].copy_from_slice(second);
    head[header..header + fill.len()].copy_from_slice(fill);
    hash.update_padded(&head[..header + fill.len()]);
    hash.update_padded(rest);
}

impl<A: Aes> Transform for Gcm<A> {
    /// The number itself: IVs may be told in advance, but must not repeat. kernel: crypto/seqiv.c
    fn write_iv(&self, number: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&number.to_be_bytes());
    }

    fn seal(&self, mut parts: Parts<'_>, seq_hi: Option<u32>) -> Option<()> {
        self.crypt(&mut parts)?;
        let tag = self.tag(&parts, seq_hi)?;
        parts.icv.copy_from_slice(tag.get(..parts.icv.len())?);
        Some(())
    }

    fn open(&self, mut parts: Parts<'_>, seq_hi: Option<u32>) -> Result<(), OpenError> {
        let tag = self.tag(&parts, seq_hi).ok_or(OpenError::BadIcv)?;
        let icv: &[u8] = parts.icv;
        let right = tag.get(..icv.len()).is_some_and(|tag| tag.ct_eq(icv).into());
        if !right {
            return Err(OpenError::BadIcv);
        }
        self.crypt(&mut parts).ok_or(OpenError::BadIcv)
    }
}
