//! Ethernet, IPv4 and UDP by hand: what is injected, and what is read off the wire.

use std::net::Ipv4Addr;

/// EtherType of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// Protocol number of ESP.
pub const ESP: u8 = 50;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;

/// Puts an Ethernet header before a packet.
pub fn ethernet(dst: [u8; 6], src: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &kind.to_be_bytes(), packet].concat()
}

/// Writes a MAC address as `ip` takes it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is set in an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Don't fragment.
    pub df: bool,
    /// More fragments, or a fragment offset: the packet is a fragment.
    pub fragment: bool,
    /// Identification.
    pub id: u16,
    /// Total length in the header.
    pub length: u16,
}

impl Ipv4 {
    /// A header with usual values; the length is set when it is written.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Ipv4 {
        Ipv4 { src, dst, protocol, tos: 0, ttl: 64, df: false, fragment: false, id: 0, length: 0 }
    }

    /// The packet: this header without options, then the payload.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, self.tos];
        bytes.extend((20 + payload.len() as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend([if self.df { 0x40 } else { 0 }, 0, self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.src.octets());
        bytes.extend(self.dst.octets());
        let sum = checksum(&bytes).to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
        bytes.extend(payload);
        bytes
    }

    /// Reads a header without options; the rest of the packet, as long as the header says.
    pub fn parse(bytes: &[u8]) -> Option<(Ipv4, &[u8])> {
        let header = bytes.first_chunk::<20>()?;
        if header[0] != 0x45 {
            return None;
        }
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let parsed = Ipv4 {
            src: address(12),
            dst: address(16),
            protocol: header[9],
            tos: header[1],
            ttl: header[8],
            df: word(6) & 0x4000 != 0,
            fragment: word(6) & 0x3fff != 0,
            id: word(4),
            length: word(2),
        };
        Some((parsed, bytes.get(20..usize::from(parsed.length))?))
    }
}

/// A UDP datagram with a right checksum, for an IPv4 packet from `src` to `dst`.
pub fn udp(src: Ipv4Addr, dst: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    let pseudo = [&src.octets()[..], &dst.octets(), &[0, UDP], &length.to_be_bytes(), &datagram].concat();
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let header = Ipv4 { tos: 0xb8, df: true, id: 7, ..Ipv4::new(src, dst, UDP) };
        let packet = header.packet(&udp(src, dst, (4000, 5000), b"hello"));
        assert_eq!(checksum(&packet[..20]), 0);
        let (read, payload) = Ipv4::parse(&packet).unwrap();
        assert_eq!(read, Ipv4 { length: 33, ..header });
        assert_eq!(&payload[8..], b"hello");
        assert!(Ipv4::parse(&packet[..19]).is_none());
    }
}
