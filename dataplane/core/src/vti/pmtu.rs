//! ICMP that says that an outer packet of ours was too big: what it quotes, and whether it is believed.
//!
//! It comes from anybody. It is believed only if it quotes an SA: whoever can name the SPI has seen the packet.

use crate::packet::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER, UdpPorts, checksum, proto};
use crate::tables::Snapshot;
use crate::xfrm::{Proto, Sa, Spi};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Type, code, checksum, MTU.
const ICMP_HEADER: usize = 8;
/// Fragmentation needed and DF set.
const FRAG_NEEDED: [u8; 2] = [3, 4];
/// Packet too big.
const TOO_BIG: [u8; 2] = [2, 0];

/// What a router reported: the packet that it could not pass on, and the MTU it has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Of the ESP packet.
    pub spi: Spi,
    /// Ports, if ESP was in UDP.
    pub udp: Option<UdpPorts>,
    /// MTU of the router's next link, bytes; 0 from one that does not know.
    pub mtu: u32,
}

impl Report {
    /// Reads an ICMP packet from its IPv4 header on, as a raw socket has it: its checksum has not been looked at.
    /// `None` if it is none about size, or quotes no ESP as far as the SPI.
    pub fn from_ipv4(packet: &[u8]) -> Option<Report> {
        let icmp = packet.get(header_len(packet)?..)?;
        let head: &[u8; ICMP_HEADER] = icmp.first_chunk()?;
        if head[..2] != FRAG_NEEDED || checksum(icmp) != 0 {
            return None;
        }
        Self::quoted(&icmp[ICMP_HEADER..], u32::from(u16::from_be_bytes([head[6], head[7]])))
    }

    /// Reads an ICMPv6 message; the socket has checked its sum.
    pub fn from_icmpv6(icmp: &[u8]) -> Option<Report> {
        let (head, quote) = icmp.split_first_chunk::<ICMP_HEADER>()?;
        if head[..2] != TOO_BIG {
            return None;
        }
        Self::quoted(quote, u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
    }

    fn quoted(packet: &[u8], mtu: u32) -> Option<Report> {
        let (src, dst, protocol, payload) = match packet.first()? >> 4 {
            4 => {
                let head: &[u8; IPV4_HEADER] = packet.first_chunk()?;
                let later_fragment = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
                let payload = packet.get(header_len(packet)?..).filter(|_| !later_fragment)?;
                let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
                (address(12).into(), address(16).into(), head[9], payload)
            }
            // We send no extension headers.
            6 => {
                let (head, payload) = packet.split_first_chunk::<IPV6_HEADER>()?;
                let address = |at: usize| head[at..].first_chunk::<16>().map(|a| Ipv6Addr::from(*a));
                (IpAddr::V6(address(8)?), IpAddr::V6(address(24)?), head[6], payload)
            }
            _ => return None,
        };
        let (udp, esp) = match protocol {
            proto::ESP => (None, payload),
            proto::UDP => {
                let (head, esp) = payload.split_first_chunk::<UDP_HEADER>()?;
                let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
                (Some(UdpPorts { src: port(0), dst: port(2) }), esp)
            }
            _ => return None,
        };
        // The sequence number may be any, and need not be quoted.
        let spi = esp.first_chunk().map(|bytes| Spi(u32::from_be_bytes(*bytes)))?;
        Some(Report { src, dst, spi, udp, mtu })
    }

    /// The SA whose packet it was: of the device between these addresses, found by destination, SPI and the device's
    /// okey, or one with an if_id, and carried alike. Without one the report is not believed.
    ///
    /// kernel: net/ipv4/ip_vti.c vti4_err(), net/ipv6/ip6_vti.c vti6_err(), net/xfrm/xfrm_interface_core.c xfrmi4_err(),
    /// and while that device is down net/ipv4/esp4.c esp4_err()
    pub fn sa<'a>(&self, tables: &'a Snapshot) -> Option<&'a Arc<Sa>> {
        let device = tables.devices.tunnel(self.src, self.dst);
        let mark = device.map_or(0, |device| device.spec.okey);
        let sa = tables.states.lookup(self.dst, self.spi, Proto::Esp, mark)?;
        if device.is_none() && sa.spec.if_id == 0 {
            return None;
        }
        let ports = sa.spec.encap.map(|e| UdpPorts { src: e.sport, dst: e.dport });
        (sa.spec.src == self.src && ports == self.udp).then_some(sa)
    }
}

/// Length of an IPv4 header, options included.
fn header_len(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    (len >= IPV4_HEADER && packet[0] >> 4 == 4).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vti::testing::{Lab, OUT, SPI_OUT, ip};
    use crate::xfrm::{Encap, EncapKind};
    use proptest::prelude::*;

    /// An outer packet of the lab's tunnel as far as its SPI, in front of it an ICMP frag-needed and an IPv4 header.
    fn frag_needed(lab: &Lab, mtu: u16, spi: u32, udp: Option<(u16, u16)>) -> Vec<u8> {
        let octets = |a: IpAddr| match a {
            IpAddr::V4(a) => a.octets(),
            IpAddr::V6(_) => panic!("the lab's tunnel is IPv4"),
        };
        let sa = &lab.states[OUT];
        let protocol = if udp.is_some() { proto::UDP } else { proto::ESP };
        let mut icmp = vec![3, 4, 0, 0, 0, 0];
        icmp.extend(mtu.to_be_bytes());
        icmp.extend([0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 60, protocol, 0, 0]);
        icmp.extend(octets(sa.src));
        icmp.extend(octets(sa.dst));
        if let Some((sport, dport)) = udp {
            icmp.extend([sport, dport, 1480, 0].map(u16::to_be_bytes).concat());
        }
        icmp.extend(spi.to_be_bytes());
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 9, 198, 51, 100, 1];
        packet.extend(icmp);
        packet
    }

    fn believed(lab: &Lab, packet: &[u8]) -> bool {
        Report::from_ipv4(packet).is_some_and(|report| report.sa(&lab.tables()).is_some())
    }

    #[test]
    fn a_report_about_an_sa_is_believed() {
        let lab = Lab::vti();
        let packet = frag_needed(&lab, 1300, SPI_OUT.0, None);
        let report = Report::from_ipv4(&packet).unwrap();
        assert_eq!((report.spi, report.mtu, report.udp), (SPI_OUT, 1300, None));
        assert_eq!(report.sa(&lab.tables()).unwrap().spec.spi, SPI_OUT);
    }

    #[test]
    fn what_names_no_sa_of_the_path_is_not() {
        let lab = Lab::vti();
        assert!(!believed(&lab, &frag_needed(&lab, 1300, 0x666, None)), "an unknown SPI");
        assert!(!believed(&lab, &frag_needed(&lab, 1300, SPI_OUT.0, Some((4500, 4500)))), "not in UDP");
        let spoilt = |spoil: fn(&mut Lab)| {
            let packet = frag_needed(&lab, 1300, SPI_OUT.0, None);
            let mut other = lab.clone();
            spoil(&mut other);
            believed(&other, &packet)
        };
        assert!(!spoilt(|l| l.states[OUT].mark = crate::xfrm::Mark::exact(7)), "not the device's okey");
        assert!(!spoilt(|l| l.states[OUT].src = ip("198.51.100.77")), "another path");
        assert!(!spoilt(|l| l.devices[0].spec.remote = ip("198.51.100.77")), "no device there");
        assert!(spoilt(|_| ()));
    }

    #[test]
    fn esp_in_udp_is_known_by_its_ports_too() {
        let mut lab = Lab::vti();
        let kind = EncapKind::EspInUdp;
        lab.states[OUT].encap = Some(Encap { kind, sport: 4500, dport: 4500, original: ip("0.0.0.0") });
        assert!(believed(&lab, &frag_needed(&lab, 1300, SPI_OUT.0, Some((4500, 4500)))));
        assert!(!believed(&lab, &frag_needed(&lab, 1300, SPI_OUT.0, Some((4500, 4501)))));
        assert!(!believed(&lab, &frag_needed(&lab, 1300, SPI_OUT.0, None)));
    }

    #[test]
    fn other_messages_and_damaged_ones_are_none() {
        let packet = frag_needed(&Lab::vti(), 1300, SPI_OUT.0, None);
        for (at, value, what) in [
            (20, 11, "another type"),
            (21, 1, "another code"),
            (22, packet[22] ^ 1, "its sum"),
            (28 + 7, 1, "a later fragment"),
            (28 + 9, 6, "another protocol"),
            (28, 0x44, "no header"),
            (0, 0x65, "not IPv4"),
        ] {
            let mut packet = packet.clone();
            packet[at] = value;
            if at != 22 {
                packet[22..24].fill(0);
                let sum = checksum(&packet[20..]);
                packet[22..24].copy_from_slice(&sum.to_be_bytes());
            }
            assert_eq!(Report::from_ipv4(&packet), None, "{what}");
        }
    }

    #[test]
    fn packet_too_big_is_read() {
        let mut icmp = vec![2, 0, 0xab, 0xcd, 0, 0, 5, 20, 0x60, 0, 0, 0, 5, 0, proto::ESP, 60];
        let (src, dst): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        icmp.extend(src.octets());
        icmp.extend(dst.octets());
        icmp.extend(SPI_OUT.0.to_be_bytes());
        let expected = Report { src: src.into(), dst: dst.into(), spi: SPI_OUT, udp: None, mtu: 1300 };
        assert_eq!(Report::from_icmpv6(&icmp), Some(expected));
        assert_eq!(Report::from_icmpv6(&icmp[..icmp.len() - 1]), None, "no whole SPI");
        icmp[0] = 1;
        assert_eq!(Report::from_icmpv6(&icmp), None);
    }

    proptest! {
        /// Whatever comes, and wherever a good one is cut.
        #[test]
        fn hostile_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..120), cut in 0usize..56) {
            let _ = (Report::from_ipv4(&bytes), Report::from_icmpv6(&bytes));
            let good = frag_needed(&Lab::vti(), 1300, SPI_OUT.0, None);
            prop_assert_eq!(good.len(), 52);
            let mut whole = good.clone();
            whole.truncate(cut);
            prop_assert_eq!(Report::from_ipv4(&whole).is_some(), cut >= 52);
        }
    }
}
