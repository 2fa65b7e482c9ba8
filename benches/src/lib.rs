//! What the benches share: buffers in rotation, suites, and `ring` without anything around it.
//!
//! Every time is that of one packet. Buffers are 2 KiB, 64 of them in rotation, allocated before the clock starts.
//! What is not measured (filling a buffer again) happens between bursts of 64, while the clock stands.

pub mod lane;

use criterion::Bencher;
use ring::aead::{AES_128_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::time::{Duration, Instant};
use uvti_core::packet::{Buf, HEADROOM, TAILROOM};
use uvti_core::vti::testing::{aes_gcm, chacha20_poly1305};
use uvti_core::xfrm::Algorithms;

/// Inner packets, bytes.
pub const SIZES: [usize; 3] = [64, 576, 1400];

/// Packets in a burst, and buffers in rotation.
pub const BURST: usize = 64;

/// Bytes of an ICV.
pub const ICV: usize = 16;

/// An algorithm, as `ip xfrm state` names it and as `ring` does.
pub struct Suite {
    /// Short name.
    pub name: &'static str,
    /// For an SA.
    pub algorithms: Algorithms,
    ring: &'static Algorithm,
}

/// AES-128-GCM and ChaCha20-Poly1305.
pub fn suites() -> [Suite; 2] {
    [
        Suite { name: "aes-128-gcm", algorithms: aes_gcm(), ring: &AES_128_GCM },
        Suite { name: "chacha20-poly1305", algorithms: chacha20_poly1305(), ring: &CHACHA20_POLY1305 },
    ]
}

impl Suite {
    /// `ring` with the same key and salt.
    ///
    /// # Panics
    /// If the suite is not an AEAD.
    pub fn bare(&self) -> Bare {
        let keymat = self.algorithms.aead.as_ref().expect("an AEAD").key.bytes();
        let (key, salt) = keymat.split_last_chunk().expect("a salt");
        let key = LessSafeKey::new(UnboundKey::new(self.ring, key).expect("a key"));
        Bare { key, salt: *salt }
    }
}

/// `ring` alone: one call a packet, and the ICV copied to its place.
pub struct Bare {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl Bare {
    fn nonce(&self, iv: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts all of `packet` but the last [`ICV`] bytes, where the ICV goes.
    ///
    /// # Panics
    /// If `ring` refuses.
    #[inline]
    pub fn seal(&self, packet: &mut [u8], aad: [u8; 8], iv: u64) {
        let (text, icv) = packet.split_at_mut(packet.len() - ICV);
        let tag = self.key.seal_in_place_separate_tag(self.nonce(iv), Aad::from(aad), text).expect("sealed");
        icv.copy_from_slice(tag.as_ref());
    }

    /// Checks and decrypts what [`Bare::seal`] made.
    ///
    /// # Panics
    /// If the ICV is wrong.
    #[inline]
    pub fn open(&self, packet: &mut [u8], aad: [u8; 8], iv: u64) {
        let (text, icv) = packet.split_at_mut(packet.len() - ICV);
        let tag = (&*icv).try_into().expect("an ICV");
        self.key.open_in_place_separate_tag(self.nonce(iv), Aad::from(aad), tag, text, 0..).expect("opened");
    }
}

/// 64 buffers of 2 KiB.
pub fn buffers() -> Vec<Buf> {
    (0..BURST).map(|_| Buf::with_capacity(2048 - HEADROOM - TAILROOM)).collect()
}

/// Measures `act` on bursts, in packets; `prepare` makes a burst ready while the clock stands.
pub fn per_packet<T>(
    b: &mut Bencher<'_>,
    burst: &mut [T],
    mut prepare: impl FnMut(&mut [T]),
    mut act: impl FnMut(&mut [T]),
) {
    b.iter_custom(|packets| {
        let mut time = Duration::ZERO;
        let mut left = packets as usize;
        while left > 0 {
            let n = left.min(burst.len());
            prepare(&mut burst[..n]);
            let start = Instant::now();
            act(&mut burst[..n]);
            time += start.elapsed();
            left -= n;
        }
        time
    });
}
