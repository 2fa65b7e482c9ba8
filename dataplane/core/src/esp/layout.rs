//! Where the fields of an ESP packet stand (RFC 4303 §2).

use crate::xfrm::Spi;

/// SPI and low half of the sequence number, bytes.
pub(super) const HEADER: usize = 8;

/// Pad length and next header, bytes.
pub(super) const TRAILER: usize = 2;

/// The bytes that ESP adds to an inner packet with given algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overhead {
    /// Explicit IV, bytes.
    pub iv: usize,
    /// What the ciphertext is padded to a multiple of, bytes: the cipher's block, and at least 4.
    pub block: usize,
    /// ICV, bytes.
    pub icv: usize,
}

impl Overhead {
    /// With a cipher whose block is `cipher_block` bytes (a power of two; 1 for a stream cipher).
    ///
    /// RFC 4303 §2.4: the ciphertext ends on a 4-byte boundary whatever the cipher.
    pub(super) const fn new(iv: usize, cipher_block: usize, icv: usize) -> Self {
        let block = if cipher_block < 4 { 4 } else { cipher_block };
        Self { iv, block, icv }
    }

    /// Bytes from SPI to ICV around an inner packet of `inner` bytes (TFC padding included).
    #[inline]
    pub const fn esp_len(&self, inner: usize) -> usize {
        HEADER + self.iv + (inner + TRAILER).next_multiple_of(self.block) + self.icv
    }

    /// The largest inner packet, bytes, whose ESP packet (SPI to ICV) has at most `esp_room` bytes; 0 if none fits.
    ///
    /// `esp_room` is the path's MTU less the outer header (20 or 40 bytes, and 8 for UDP encapsulation).
    // kernel: net/xfrm/xfrm_state.c __xfrm_state_mtu()
    pub const fn largest_inner(&self, esp_room: usize) -> usize {
        let text = esp_room.saturating_sub(HEADER + self.iv + self.icv);
        (text - text % self.block).saturating_sub(TRAILER)
    }
}

/// SPI and low half of the sequence number of an ESP packet; `None` if it is shorter than those.
#[inline]
pub fn peek(bytes: &[u8]) -> Option<(Spi, u32)> {
    let (spi, rest) = bytes.split_first_chunk()?;
    let (seq, _) = rest.split_first_chunk()?;
    Some((Spi(u32::from_be_bytes(*spi)), u32::from_be_bytes(*seq)))
}

/// An ESP packet taken apart: the view that the algorithms work on.
pub(super) struct Parts<'a> {
    /// SPI and low half of the sequence number.
    pub(super) header: &'a mut [u8; HEADER],
    /// Explicit IV.
    pub(super) iv: &'a mut [u8],
    /// Inner packet, padding, pad length, next header: what is encrypted.
    pub(super) text: &'a mut [u8],
    /// Integrity check value.
    pub(super) icv: &'a mut [u8],
}

impl<'a> Parts<'a> {
    /// `None` if the packet is too short for header, IV and ICV.
    #[inline]
    pub(super) fn split(packet: &'a mut [u8], overhead: &Overhead) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk_mut()?;
        let (iv, rest) = rest.split_at_mut_checked(overhead.iv)?;
        let text = rest.len().checked_sub(overhead.icv)?;
        let (text, icv) = rest.split_at_mut(text);
        Some(Self { header, iv, text, icv })
    }
}
