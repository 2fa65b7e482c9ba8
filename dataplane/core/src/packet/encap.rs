//! Outer headers: IPv4, IPv6, UDP.

use super::checksum::{Sum, finish, fold};
use super::{Buf, UdpPorts, checksum, proto};
use std::net::IpAddr;

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_HEADER: usize = 40;
/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;
/// The TTL and hop limit of an outer header. kernel: the route's hop limit, by default sysctl ip_default_ttl
pub const TTL: u8 = 64;

/// An outer header, all but what differs from packet to packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    /// IP header and UDP header; fields of [`PerPacket`] and lengths are 0.
    bytes: [u8; IPV6_HEADER + UDP_HEADER],
    ipv4: bool,
    udp: bool,
    /// IPv4: the sum of its words. IPv6 with UDP: that of the pseudo header without the length, and of the ports.
    sum: u32,
}

/// What differs from packet to packet in an outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerPacket {
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: don't fragment.
    pub df: bool,
    /// IPv4: identification; 0 goes with `df`.
    pub id: u16,
    /// IPv6: flow label.
    pub flow_label: u32,
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

    /// Around ESP between two addresses of one family, or around UDP with these ports.
    pub fn new(src: IpAddr, dst: IpAddr, udp: Option<UdpPorts>) -> Result<Self, NoRoom> {
        Self::build(src, dst, if udp.is_some() { proto::UDP } else { proto::ESP }, udp)
    }

    /// An IP header alone, around a packet of `protocol`.
    pub fn around(src: IpAddr, dst: IpAddr, protocol: u8) -> Result<Self, NoRoom> {
        Self::build(src, dst, protocol, None)
    }

    fn build(src: IpAddr, dst: IpAddr, protocol: u8, udp: Option<UdpPorts>) -> Result<Self, NoRoom> {
        let mut h = Self { bytes: [0; 48], ipv4: src.is_ipv4(), udp: udp.is_some(), sum: 0 };
        let ip = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                h.bytes[0] = 0x45;
                (h.bytes[8], h.bytes[9]) = (TTL, protocol);
                h.bytes[12..16].copy_from_slice(&src.octets());
                h.bytes[16..20].copy_from_slice(&dst.octets());
                h.sum = u32::from(!checksum(&h.bytes[..IPV4_HEADER]));
                IPV4_HEADER
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                h.bytes[0] = 0x60;
                (h.bytes[6], h.bytes[7]) = (protocol, TTL);
                h.bytes[8..24].copy_from_slice(&src.octets());
                h.bytes[24..40].copy_from_slice(&dst.octets());
                IPV6_HEADER
            }
            _ => return Err(NoRoom),
        };
        if let Some(ports) = udp {
            h.bytes[ip..ip + 2].copy_from_slice(&ports.src.to_be_bytes());
            h.bytes[ip + 2..ip + 4].copy_from_slice(&ports.dst.to_be_bytes());
            // RFC 3948 §2.1: the checksum is 0 over IPv4. Over IPv6 it has to be there (RFC 8200 §8.1).
            if !h.ipv4 {
                h.sum = u32::from(!checksum(&h.bytes[8..ip + 4])) + u32::from(proto::UDP);
            }
        }
        Ok(h)
    }

    /// Puts the header in front of an ESP packet.
    #[inline]
    pub fn push(&self, buf: &mut Buf, packet: PerPacket) -> Result<(), NoRoom> {
        // Lengths known when compiled: no call to copy twenty bytes.
        match (self.ipv4, self.udp) {
            (true, false) => self.push_ipv4::<IPV4_HEADER>(buf, packet),
            (true, true) => self.push_ipv4::<{ IPV4_HEADER + UDP_HEADER }>(buf, packet),
            (false, false) => self.push_ipv6::<IPV6_HEADER>(buf, packet),
            (false, true) => self.push_ipv6::<{ IPV6_HEADER + UDP_HEADER }>(buf, packet),
        }
    }

    #[inline]
    fn push_ipv4<const N: usize>(&self, buf: &mut Buf, packet: PerPacket) -> Result<(), NoRoom> {
        let total = u16::try_from(buf.len() + N).map_err(|_| NoRoom)?;
        let h = self.push_bytes::<N>(buf)?;
        let flags: u16 = if packet.df { 0x4000 } else { 0 };
        h[1] = packet.tos;
        h[2..4].copy_from_slice(&total.to_be_bytes());
        h[4..6].copy_from_slice(&packet.id.to_be_bytes());
        h[6..8].copy_from_slice(&flags.to_be_bytes());
        let words = [u16::from(packet.tos), total, packet.id, flags];
        let sum = self.sum + words.into_iter().map(u32::from).sum::<u32>();
        h[10..12].copy_from_slice(&finish(sum).to_be_bytes());
        write_udp_length(h, IPV4_HEADER, total - IPV4_HEADER as u16);
        Ok(())
    }

    #[inline]
    fn push_ipv6<const N: usize>(&self, buf: &mut Buf, packet: PerPacket) -> Result<(), NoRoom> {
        let payload = u16::try_from(buf.len() + N - IPV6_HEADER).map_err(|_| NoRoom)?;
        let h = self.push_bytes::<N>(buf)?;
        let word = 6 << 28 | u32::from(packet.tos) << 20 | (packet.flow_label & 0xf_ffff);
        h[0..4].copy_from_slice(&word.to_be_bytes());
        h[4..6].copy_from_slice(&payload.to_be_bytes());
        write_udp_length(h, IPV6_HEADER, payload);
        if N > IPV6_HEADER {
            self.sum_udp::<N>(buf, payload);
        }
        Ok(())
    }

    /// The UDP checksum over IPv6. kernel: net/ipv6/esp6.c esp6_output_encap_csum()
    #[inline]
    fn sum_udp<const N: usize>(&self, buf: &mut Buf, length: u16) {
        let mut sum = Sum::default();
        // The length is in the pseudo header and in UDP's own.
        for word in [fold(u64::from(self.sum)), length, length] {
            sum.add_word(word);
        }
        let bytes = buf.bytes_mut();
        sum.add(&bytes[N..]);
        let checksum = match sum.checksum() {
            // Zero would say that there is none.
            0 => 0xffff,
            some => some,
        };
        bytes[N - 2..N].copy_from_slice(&checksum.to_be_bytes());
    }

    #[inline]
    fn push_bytes<'a, const N: usize>(&self, buf: &'a mut Buf) -> Result<&'a mut [u8; N], NoRoom> {
        let h: &mut [u8; N] = buf.push_front(N).and_then(|b| b.first_chunk_mut()).ok_or(NoRoom)?;
        *h = *self.bytes.first_chunk().ok_or(NoRoom)?;
        Ok(h)
    }
}

/// The length of a UDP header, if there is one behind an IP header of `ip` bytes.
#[inline]
fn write_udp_length<const N: usize>(h: &mut [u8; N], ip: usize, length: u16) {
    if N > ip {
        h[ip + 4..ip + 6].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(udp: Option<UdpPorts>) -> OuterHeader {
        OuterHeader::new("198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap(), udp).unwrap()
    }

    const PACKET: PerPacket = PerPacket { tos: 0xb8, df: true, id: 7, flow_label: 0x12345 };

    #[test]
    fn headers_stand_in_front() {
        let mut buf = Buf::from_packet(&[9; 48]);
        header(None).push(&mut buf, PACKET).unwrap();
        let b = buf.bytes();
        assert_eq!((b.len(), b[1], b[6], b[8], b[9], checksum(&b[..20])), (68, 0xb8, 0x40, 64, 50, 0));
        let mut buf = Buf::from_packet(&[9; 48]);
        header(Some(UdpPorts { src: 4500, dst: 4501 })).push(&mut buf, PACKET).unwrap();
        let b = buf.bytes();
        assert_eq!(checksum(&b[..20]), 0);
        assert_eq!((b.len(), b[9], &b[20..28]), (76, 17, &[0x11, 0x94, 0x11, 0x95, 0, 56, 0, 0][..]));
    }

    #[test]
    fn ipv6_headers_stand_in_front() {
        let [src, dst] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
        let mut buf = Buf::from_packet(&[9; 48]);
        let udp = Some(UdpPorts { src: 4500, dst: 4501 });
        OuterHeader::new(src, dst, udp).unwrap().push(&mut buf, PACKET).unwrap();
        let b = buf.bytes();
        assert_eq!((&b[..8], b.len()), (&[0x6b, 0x81, 0x23, 0x45, 0, 56, 17, 64][..], 96));
        assert_eq!(b[40..46], [0x11, 0x94, 0x11, 0x95, 0, 56]);
        assert_eq!(udp_sum(b), 0, "RFC 8200 §8.1: as the receiver sums it up");
        assert_eq!(OuterHeader::new(src, "192.0.2.1".parse().unwrap(), None), Err(NoRoom));
    }

    /// The checksum over UDP over IPv6 and its pseudo header, 0 if it is right.
    fn udp_sum(packet: &[u8]) -> u16 {
        let length = (packet.len() - IPV6_HEADER) as u16;
        let mut pseudo = packet[8..40].to_vec();
        pseudo.extend([0, 0, (length >> 8) as u8, length as u8, 0, 0, 0, proto::UDP]);
        pseudo.extend(&packet[IPV6_HEADER..]);
        checksum(&pseudo)
    }

    #[test]
    fn a_checksum_of_zero_is_written_as_all_ones() {
        let [src, dst] = ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
        let outer = OuterHeader::new(src, dst, Some(UdpPorts { src: 4500, dst: 4500 })).unwrap();
        let send = |payload: [u8; 3]| {
            let mut buf = Buf::from_packet(&payload);
            outer.push(&mut buf, PACKET).unwrap();
            buf
        };
        let base = send([0; 3]);
        // With the checksum of the rest as its first word, the sum is all ones.
        let [high, low] = *base.bytes()[46..].first_chunk().unwrap();
        let buf = send([high, low, 0]);
        assert_eq!(buf.bytes()[46..48], [0xff, 0xff]);
        assert_eq!((udp_sum(base.bytes()), udp_sum(buf.bytes())), (0, 0));
    }

    #[test]
    fn an_ip_packet_ends_at_64_k() {
        let mut buf = Buf::from_packet(&vec![0; 65_530]);
        assert_eq!(header(None).push(&mut buf, PACKET), Err(NoRoom));
    }
}
