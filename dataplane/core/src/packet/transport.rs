//! Where the headers of a TCP or UDP packet end, and the parts of its checksum.

use super::checksum::Sum;
use super::{Inner, proto};

/// Protocols that packets are cut and joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// Where its header has the checksum, bytes.
    pub const fn checksum_at(self) -> usize {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    /// Its IP protocol number.
    pub const fn proto(self) -> u8 {
        match self {
            Transport::Tcp => proto::TCP,
            Transport::Udp => proto::UDP,
        }
    }
}

/// The headers of a complete TCP or UDP packet. Every offset is within the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// The protocol.
    pub transport: Transport,
    /// Where the transport header starts, bytes.
    pub header: usize,
    /// Where the payload starts, bytes.
    pub payload: usize,
}

impl Layout {
    /// Reads the headers; `None` unless it is one whole TCP or UDP packet whose lengths are those of the bytes.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let inner = Inner::dissect(packet).ok()?;
        let v6 = inner.flow.src.is_ipv6();
        let length = usize::from(be16(packet, if v6 { 4 } else { 2 })?);
        // More fragments, or an offset; with IPv6 a fragment header is one that we do not know.
        let fragment = if v6 { packet[6] == proto::FRAGMENT } else { be16(packet, 6)? & 0x3fff != 0 };
        let header = inner.payload;
        if length + if v6 { 40 } else { 0 } != packet.len() || fragment || header < if v6 { 40 } else { 20 } {
            return None;
        }
        let (transport, len) = match inner.flow.proto {
            proto::TCP => (Transport::Tcp, usize::from(packet.get(header + 12)? >> 4) * 4),
            proto::UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let payload = header + len;
        let fits = payload <= packet.len() && (transport == Transport::Udp || len >= 20);
        fits.then_some(Self { v6, transport, header, payload })
    }

    /// The sum over the pseudo header of a packet with these headers, whose transport part has `len` bytes.
    #[inline]
    pub fn pseudo(&self, packet: &[u8], len: usize) -> Sum {
        let mut sum = Sum::default();
        // Source and destination lie together in both families.
        sum.add(&packet[if self.v6 { 8..40 } else { 12..20 }]);
        sum.add_word(self.transport.proto().into());
        sum.add_word(len as u16);
        sum
    }

    /// Where the checksum stands.
    pub fn checksum_at(&self) -> usize {
        self.header + self.transport.checksum_at()
    }
}

pub(super) fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

pub(super) fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

/// TCP's flags. RFC 9293 §3.1
pub(super) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const PSH: u8 = 8;
    pub(crate) const ACK: u8 = 16;
    pub(crate) const CWR: u8 = 128;
}
