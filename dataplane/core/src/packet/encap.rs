//! Outer headers: IPv4, IPv6, UDP, and fragments of an outer IPv4 packet.

use super::{Buf, UdpPorts, checksum, proto};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_HEADER: usize = 40;
/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;
/// The TTL and hop limit of an outer header. kernel: the route's hop limit, by default sysctl ip_default_ttl
pub const TTL: u8 = 64;

/// An outer header to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: don't fragment.
    pub df: bool,
    /// IPv4: identification; 0 goes with `df`.
    pub id: u16,
    /// IPv6: flow label.
    pub flow_label: u32,
    /// UDP encapsulation.
    pub udp: Option<UdpPorts>,
}

/// The packet would be longer than an IP packet can be, has no room in front, or mixes families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl OuterHeader {
    /// Bytes it takes in front of ESP.
    pub const fn len(src: IpAddr, udp: bool) -> usize {
        let ip = if src.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
        ip + if udp { UDP_HEADER } else { 0 }
    }

    /// Puts the header in front of an ESP packet.
    pub fn push(&self, buf: &mut Buf) -> Result<(), NoRoom> {
        let mut protocol = proto::ESP;
        if let Some(ports) = self.udp {
            push_udp(buf, ports)?;
            protocol = proto::UDP;
        }
        self.push_around(buf, protocol)
    }

    /// Puts the IP header alone in front of a packet of `protocol`.
    pub fn push_around(&self, buf: &mut Buf, protocol: u8) -> Result<(), NoRoom> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.push_ipv4(buf, src, dst, protocol),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.push_ipv6(buf, src, dst, protocol),
            _ => Err(NoRoom),
        }
    }

    fn push_ipv4(&self, buf: &mut Buf, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Result<(), NoRoom> {
        let total = u16::try_from(buf.len() + IPV4_HEADER).map_err(|_| NoRoom)?;
        let h: &mut [u8; IPV4_HEADER] =
            buf.push_front(IPV4_HEADER).and_then(|b| b.first_chunk_mut()).ok_or(NoRoom)?;
        h[0] = 0x45;
        h[1] = self.tos;
        h[2..4].copy_from_slice(&total.to_be_bytes());
        h[4..6].copy_from_slice(&self.id.to_be_bytes());
        h[6..8].copy_from_slice(&if self.df { [0x40, 0] } else { [0, 0] });
        h[8] = TTL;
        h[9] = protocol;
        h[10..12].fill(0);
        h[12..16].copy_from_slice(&src.octets());
        h[16..20].copy_from_slice(&dst.octets());
        let sum = checksum(h);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        Ok(())
    }

    fn push_ipv6(&self, buf: &mut Buf, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8) -> Result<(), NoRoom> {
        let payload = u16::try_from(buf.len()).map_err(|_| NoRoom)?;
        let h: &mut [u8; IPV6_HEADER] =
            buf.push_front(IPV6_HEADER).and_then(|b| b.first_chunk_mut()).ok_or(NoRoom)?;
        let word = 6 << 28 | u32::from(self.tos) << 20 | (self.flow_label & 0xf_ffff);
        h[0..4].copy_from_slice(&word.to_be_bytes());
        h[4..6].copy_from_slice(&payload.to_be_bytes());
        h[6] = protocol;
        h[7] = TTL;
        h[8..24].copy_from_slice(&src.octets());
        h[24..40].copy_from_slice(&dst.octets());
        Ok(())
    }
}

/// RFC 3948 §2.1: the checksum is 0 over IPv4.
fn push_udp(buf: &mut Buf, ports: UdpPorts) -> Result<(), NoRoom> {
    let len = u16::try_from(buf.len() + UDP_HEADER).map_err(|_| NoRoom)?;
    let h: &mut [u8; UDP_HEADER] =
        buf.push_front(UDP_HEADER).and_then(|b| b.first_chunk_mut()).ok_or(NoRoom)?;
    h[0..2].copy_from_slice(&ports.src.to_be_bytes());
    h[2..4].copy_from_slice(&ports.dst.to_be_bytes());
    h[4..6].copy_from_slice(&len.to_be_bytes());
    h[6..8].fill(0);
    Ok(())
}

/// Cuts an outer IPv4 packet (no options) into fragments of at most `mtu` bytes, each handed to `emit`.
///
/// kernel: net/ipv4/ip_output.c ip_do_fragment(): an inner packet without DF travels whole, its ESP in pieces
pub fn fragment_ipv4(packet: &[u8], mtu: usize, mut emit: impl FnMut(&[u8; IPV4_HEADER], &[u8])) {
    let Some((header, payload)) = packet.split_first_chunk::<IPV4_HEADER>() else { return };
    let step = (mtu.saturating_sub(IPV4_HEADER) & !7).max(8);
    let pieces = payload.len().div_ceil(step);
    for (i, piece) in payload.chunks(step).enumerate() {
        let mut h = *header;
        let total = (IPV4_HEADER + piece.len()) as u16;
        let more = if i + 1 < pieces { 0x2000 } else { 0 };
        h[2..4].copy_from_slice(&total.to_be_bytes());
        h[6..8].copy_from_slice(&(((i * step) / 8) as u16 | more).to_be_bytes());
        h[10..12].fill(0);
        let sum = checksum(&h);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        emit(&h, piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(udp: Option<UdpPorts>) -> OuterHeader {
        OuterHeader {
            src: "198.51.100.1".parse().unwrap(),
            dst: "198.51.100.2".parse().unwrap(),
            tos: 0xb8,
            df: udp.is_none(),
            id: 7,
            flow_label: 0,
            udp,
        }
    }

    #[test]
    fn headers_stand_in_front() {
        let mut buf = Buf::from_packet(&[9; 48]);
        header(None).push(&mut buf).unwrap();
        let b = buf.bytes();
        assert_eq!((b.len(), b[1], b[6], b[8], b[9], checksum(&b[..20])), (68, 0xb8, 0x40, 64, 50, 0));
        let mut buf = Buf::from_packet(&[9; 48]);
        header(Some(UdpPorts { src: 4500, dst: 4501 })).push(&mut buf).unwrap();
        let b = buf.bytes();
        assert_eq!((b.len(), b[9], &b[20..28]), (76, 17, &[0x11, 0x94, 0x11, 0x95, 0, 56, 0, 0][..]));
    }

    #[test]
    fn an_ip_packet_ends_at_64_k() {
        let mut buf = Buf::from_packet(&vec![0; 65_530]);
        assert_eq!(header(None).push(&mut buf), Err(NoRoom));
    }

    proptest! {
        #[test]
        fn fragments_carry_every_byte_once(len in 1usize..4000, mtu in 68usize..1500) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut buf = Buf::from_packet(&payload);
            let mut h = header(None);
            h.df = false;
            h.push(&mut buf).unwrap();
            let mut got = Vec::new();
            let mut more = true;
            fragment_ipv4(buf.bytes(), mtu, |h, piece| {
                assert!(more && IPV4_HEADER + piece.len() <= mtu && checksum(h) == 0);
                let frag = u16::from_be_bytes([h[6], h[7]]);
                assert_eq!(usize::from(frag & 0x1fff) * 8, got.len());
                more = frag & 0x2000 != 0;
                got.extend_from_slice(piece);
            });
            prop_assert!(!more);
            prop_assert_eq!(got, payload);
        }
    }
}
