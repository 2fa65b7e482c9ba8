//! A cipher, then a MAC over what it made (RFC 4303 §3.3.2.1).

use super::alg::{CipherKind, MacKind};
use super::cipher::{self, Cipher};
use super::layout::Parts;
use super::mac::{self, Mac};
use super::open::OpenError;
use super::suite::Transform;

/// The two of them. Without a MAC there is no ICV, and anything is authentic.
struct Authenc {
    cipher: Box<dyn Cipher>,
    mac: Option<Box<dyn Mac>>,
}

/// `None` for a cipher's key of a wrong length. A MAC takes any.
pub(super) fn new(
    cipher: CipherKind,
    enc_key: &[u8],
    mac: MacKind,
    auth_key: &[u8],
) -> Option<Box<dyn Transform>> {
    Some(Box::new(Authenc { cipher: cipher::new(cipher, enc_key)?, mac: mac::new(mac, auth_key) }))
}

/// The explicit IV and the block of a cipher, bytes.
pub(super) const fn iv_and_block(cipher: CipherKind) -> (usize, usize) {
    match cipher {
        CipherKind::Null => (0, 1),
        CipherKind::Cbc => (16, 16),
        CipherKind::Ctr => (8, 1),
    }
}

/// Everything from the SPI to the ciphertext, and with ESN the high half after it, where no wire carries it
/// (RFC 4303 §2.2.1).
fn covered<'a>(parts: &'a Parts<'_>, seq_hi: &'a Option<[u8; 4]>) -> [&'a [u8]; 4] {
    [parts.header, parts.iv, parts.text, seq_hi.as_ref().map_or(&[], |hi| hi)]
}

impl Transform for Authenc {
    fn write_iv(&self, number: u64, iv: &mut [u8]) {
        self.cipher.write_iv(number, iv);
    }

    fn seal(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Option<()> {
        self.cipher.encrypt(parts.iv, parts.text)?;
        if let Some(mac) = &self.mac {
            let icv = mac.sign(&covered(&parts, &seq_hi.map(u32::to_be_bytes)));
            parts.icv.copy_from_slice(icv.get(..parts.icv.len())?);
        }
        Some(())
    }

    fn open(&self, parts: Parts<'_>, seq_hi: Option<u32>) -> Result<(), OpenError> {
        if let Some(mac) = &self.mac
            && !mac.verify(&covered(&parts, &seq_hi.map(u32::to_be_bytes)), parts.icv)
        {
            return Err(OpenError::BadIcv);
        }
        self.cipher.decrypt(parts.iv, parts.text).ok_or(OpenError::Truncated)
    }
}
