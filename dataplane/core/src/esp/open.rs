//! From ESP to the inner packet (RFC 4303 §3.4).

use super::Crypter;
use super::layout::{HEADER, Parts, TRAILER};
use crate::packet::Buf;

/// What an ESP packet carries: an IP protocol number, 4 for IPv4 and 41 for IPv6 in tunnel mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHeader(pub u8);

impl NextHeader {
    /// IPv4.
    pub const IPV4: NextHeader = NextHeader(4);
    /// IPv6.
    pub const IPV6: NextHeader = NextHeader(41);
    /// No next header: a dummy packet (RFC 4303 §2.6).
    pub const NONE: NextHeader = NextHeader(59);
}

/// Why a packet was not opened.
///
/// The buffer then still starts with SPI, sequence number and IV as they came. What follows is as it came
/// ([`OpenError::Truncated`]), wiped or as it came ([`OpenError::BadIcv`]), or authentic plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short for header, IV and ICV, or not whole blocks of the cipher.
    #[error("too short for IV, padding and ICV")]
    Truncated,
    /// Another key, another high half of the sequence number, or the packet was changed on its way.
    #[error("the ICV is wrong")]
    BadIcv,
    /// Authentic, but the padding leaves no inner packet.
    #[error("the pad length is longer than the packet")]
    BadPadding,
    /// Authentic, but a dummy packet (next header 59).
    #[error("a dummy packet")]
    Dummy,
}

impl Crypter {
    /// Takes ESP off: `buf` holds SPI to ICV, afterwards the inner packet and its TFC padding, if any.
    ///
    /// `seq_hi` is the high half of the sequence number with ESN ([`Replay::check`](super::Replay::check) says
    /// which). Like the kernel, and unlike RFC 4303 §2.4, this compares no pad bytes: they are authentic, and some
    /// peers fill them otherwise.
    // kernel: net/ipv4/esp4.c esp_input(), esp_remove_trailer(), esp_input_done2()
    #[inline]
    pub fn open(&self, buf: &mut Buf, seq_hi: Option<u32>) -> Result<NextHeader, OpenError> {
        let o = self.overhead;
        let parts = Parts::split(buf.bytes_mut(), &o).ok_or(OpenError::Truncated)?;
        self.suite.open(parts, seq_hi)?;

        let packet = buf.bytes();
        let text = &packet[HEADER + o.iv..packet.len() - o.icv];
        let [.., pad, next_header] = *text else { return Err(OpenError::BadPadding) };
        let inner = text.len().saturating_sub(TRAILER + usize::from(pad));
        if inner == 0 {
            return Err(OpenError::BadPadding);
        }
        if NextHeader(next_header) == NextHeader::NONE {
            return Err(OpenError::Dummy);
        }
        buf.pull_front(HEADER + o.iv);
        buf.truncate(inner);
        Ok(NextHeader(next_header))
    }
}
