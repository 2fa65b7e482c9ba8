//! HMAC (RFC 2104) with SHA-1 (RFC 2404) and SHA-2 (RFC 4868), cut to any length.

use super::alg::MacKind;
use hmac::digest::{FixedOutput, MacMarker, Update};
use hmac::{Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// Bytes of the longest MAC.
pub(super) const LONGEST: usize = 64;

/// A keyed MAC.
pub(super) trait Mac: Send + Sync {
    /// The MAC over these pieces, one after the other; zeros where it is shorter than [`LONGEST`].
    fn sign(&self, pieces: &[&[u8]]) -> [u8; LONGEST];

    /// Whether `icv` is how that MAC begins, in a time that does not tell where it differs.
    fn verify(&self, pieces: &[&[u8]], icv: &[u8]) -> bool;
}

/// `None` for `digest_null`. A key may have any length, as in the kernel.
///
/// What is kept are states of the hash, which the feature `zeroize` of `sha1` and `sha2` erases.
pub(super) fn new(kind: MacKind, key: &[u8]) -> Option<Box<dyn Mac>> {
    fn keyed<M: Mac + KeyInit + 'static>(key: &[u8]) -> Option<Box<dyn Mac>> {
        Some(Box::new(M::new_from_slice(key).ok()?))
    }
    match kind {
        MacKind::Null => None,
        MacKind::Sha1 => keyed::<Hmac<Sha1>>(key),
        MacKind::Sha256 => keyed::<Hmac<Sha256>>(key),
        MacKind::Sha384 => keyed::<Hmac<Sha384>>(key),
        MacKind::Sha512 => keyed::<Hmac<Sha512>>(key),
    }
}

impl<H: Update + FixedOutput + MacMarker + Clone + Send + Sync> Mac for H {
    fn sign(&self, pieces: &[&[u8]]) -> [u8; LONGEST] {
        let mut mac = [0; LONGEST];
        let bytes = fed(self, pieces).finalize().into_bytes();
        mac[..bytes.len()].copy_from_slice(&bytes);
        mac
    }

    fn verify(&self, pieces: &[&[u8]], icv: &[u8]) -> bool {
        fed(self, pieces).verify_truncated_left(icv).is_ok()
    }
}

fn fed<H: Update + Clone>(keyed: &H, pieces: &[&[u8]]) -> H {
    let mut mac = keyed.clone();
    pieces.iter().for_each(|piece| Update::update(&mut mac, piece));
    mac
}
