//! From an inner packet to ESP (RFC 4303 §3.3).

use super::layout::{HEADER, Parts, TRAILER};
use super::{Crypter, Suite};
use crate::packet::Buf;
use crate::xfrm::Spi;

/// What stands in front of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// SPI.
    pub spi: Spi,
    /// Sequence number. Its low half goes on the wire.
    pub seq: u64,
    /// Whether its high half is authenticated (extended sequence numbers, RFC 4303 §2.2.1).
    pub esn: bool,
}

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer still holds the inner packet, unchanged.
    #[error("the buffer has no room for ESP header, padding and ICV")]
    NoRoom,
    /// The cipher took the packet for too long. The buffer is empty, so that nothing can leave in the clear.
    #[error("the cipher refused the packet")]
    Cipher,
}

/// The padding of RFC 4303 §2.4: 1, 2, 3…, its length and the next header. A block is at most 16 bytes.
#[inline]
fn write_trailer(trailer: &mut [u8], next_header: u8) {
    let [padding @ .., length, next] = trailer else { return };
    // A loop of a few bytes, not a call to copy them.
    let mut pad = 0;
    for byte in padding {
        pad += 1;
        *byte = pad;
    }
    (*length, *next) = (pad, next_header);
}

impl Crypter {
    /// Builds ESP around the inner packet in `buf`: afterwards `buf` holds SPI to ICV.
    ///
    /// `iv` must never repeat under one key: the SA's salt XOR its 64-bit number. The inner packet is padded with
    /// zeros to `tfc_len` bytes, if it is shorter (RFC 4303 §2.7); 0 is off.
    // kernel: net/ipv4/esp4.c esp_output()
    #[inline]
    pub fn seal(
        &self,
        buf: &mut Buf,
        header: Header,
        iv: u64,
        next_header: u8,
        tfc_len: usize,
    ) -> Result<(), SealError> {
        let o = self.overhead;
        let inner = buf.len();
        let padded = inner.max(tfc_len);
        let front = HEADER + o.iv;
        let pad = (padded + TRAILER).next_multiple_of(o.block) - padded - TRAILER;
        let back = padded - inner + pad + TRAILER + o.icv;
        if buf.headroom() < front || buf.push_back(back).is_none() {
            return Err(SealError::NoRoom);
        }
        let packet = buf.push_front(front).ok_or(SealError::NoRoom)?;
        let parts = Parts::split(packet, &o).ok_or(SealError::NoRoom)?;

        parts.header[..4].copy_from_slice(&header.spi.0.to_be_bytes());
        parts.header[4..].copy_from_slice(&(header.seq as u32).to_be_bytes());
        let (tfc, trailer) = parts.text[inner..].split_at_mut(padded - inner);
        if !tfc.is_empty() {
            tfc.fill(0);
        }
        write_trailer(trailer, next_header);

        if self.suite.seal(parts, header.esn.then_some((header.seq >> 32) as u32), iv) {
            Ok(())
        } else {
            buf.clear();
            Err(SealError::Cipher)
        }
    }
}

impl Suite {
    /// Writes the explicit IV, encrypts the text, writes the ICV.
    #[inline]
    fn seal(&self, parts: Parts<'_>, seq_hi: Option<u32>, iv: u64) -> bool {
        match self {
            Suite::Ring(aead) => {
                parts.iv.copy_from_slice(&iv.to_be_bytes());
                aead.seal(parts, seq_hi)
            }
        }
    }
}
