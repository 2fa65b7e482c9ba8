//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) on `ring`: the fast path.

use super::alg::AeadKind;
use super::layout::{HEADER, Parts};
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Implicit part of the nonce, from the end of the keying material (RFC 4106 §4, RFC 7634 §2).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Salt(pub(super) [u8; 4]);

impl Salt {
    /// Salt and explicit IV: the nonce of RFC 4106 §4. An IV that is not 8 bytes long makes none.
    #[inline]
    pub(super) fn nonce(&self, iv: &[u8]) -> Option<[u8; 12]> {
        let iv: &[u8; 8] = iv.try_into().ok()?;
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.0);
        nonce[4..].copy_from_slice(iv);
        Some(nonce)
    }
}

/// SPI and sequence number as they are authenticated: 8 bytes, or 12 with the high half between (RFC 4106 §5).
pub(super) struct AadBytes {
    bytes: [u8; 12],
    len: usize,
}

impl AadBytes {
    #[inline]
    pub(super) fn new(header: &[u8; HEADER], seq_hi: Option<u32>) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(header);
        let Some(hi) = seq_hi else { return Self { bytes, len: 8 } };
        bytes[4..8].copy_from_slice(&hi.to_be_bytes());
        bytes[8..].copy_from_slice(&header[4..]);
        Self { bytes, len: 12 }
    }
}

impl AsRef<[u8]> for AadBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An AEAD with 16 bytes of ICV and a 128- or 256-bit key.
pub(super) struct RingAead {
    key: LessSafeKey,
    salt: Salt,
}

impl RingAead {
    /// `None` for what `ring` does not implement: shorter ICVs, 192-bit keys, GMAC.
    pub(super) fn new(kind: AeadKind, key: &[u8], salt: [u8; 4], icv: usize) -> Option<Self> {
        let algorithm = match (kind, key.len()) {
            _ if icv != MAX_TAG_LEN => return None,
            (AeadKind::Gcm, 16) => &AES_128_GCM,
            (AeadKind::Gcm, 32) => &AES_256_GCM,
            (AeadKind::ChaCha20Poly1305, 32) => &CHACHA20_POLY1305,
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, salt: Salt(salt) })
    }

    /// Encrypts and writes the ICV. `None` only for a text longer than the cipher's limit of 64 GiB.
    #[inline]
    pub(super) fn seal(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Option<()> {
        let nonce = self.salt.nonce(parts.iv)?;
        let aad = Aad::from(AadBytes::new(parts.header, seq_hi));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, parts.text).ok()?;
        parts.icv.copy_from_slice(tag.as_ref());
        Some(())
    }

    /// Checks the ICV and decrypts. On `false` the text is wiped.
    #[inline]
    pub(super) fn open(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> bool {
        let (Some(nonce), Ok(tag)) = (self.salt.nonce(parts.iv), (*parts.icv).try_into()) else {
            return false;
        };
        let aad = Aad::from(AadBytes::new(parts.header, seq_hi));
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place_separate_tag(nonce, aad, tag, parts.text, 0..).is_ok()
    }
}
