//! Names what came out at the far ends: one entry for packets that look alike.

use super::packet::{ESP, ICMP, UDP};
use super::scenario::Counts;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Counts what the peer saw: `wire esp4 len 152 df tos 0xb8`.
pub(crate) fn wire(frame: &[u8], counts: &mut Counts) {
    if let Some(packet) = Packet::of(frame).filter(|p| !p.is_noise()) {
        add(counts, format!("wire {}", packet.look()));
    }
}

/// Counts what the client saw: ICMP errors (`icmp frag-needed mtu 1446 from 10.1.0.1`) and packets
/// (`delivered udp4 len 100`).
pub(crate) fn client(frame: &[u8], counts: &mut Counts) {
    let Some(packet) = Packet::of(frame).filter(|p| !p.is_noise()) else { return };
    match packet.icmp_error() {
        Some(error) => add(counts, format!("icmp {error}")),
        None => add(counts, format!("delivered {}", packet.look())),
    }
}

fn add(counts: &mut Counts, name: String) {
    *counts.entry(name).or_default() += 1;
}

struct Packet<'a> {
    v6: bool,
    protocol: u8,
    tos: u8,
    len: usize,
    df: bool,
    fragment: bool,
    /// Flow label.
    flow: u32,
    ttl: u8,
    source: String,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet of an Ethernet frame, if it is IP.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (header, packet) = frame.split_first_chunk::<14>()?;
        match [header[12], header[13]] {
            [0x08, 0x00] => Self::v4(packet),
            [0x86, 0xdd] => Self::v6(packet),
            _ => None,
        }
    }

    fn v4(bytes: &'a [u8]) -> Option<Self> {
        let h = bytes.first_chunk::<20>()?;
        let flags = u16::from_be_bytes([h[6], h[7]]);
        Some(Self {
            v6: false,
            protocol: h[9],
            tos: h[1],
            len: usize::from(u16::from_be_bytes([h[2], h[3]])),
            df: flags & 0x4000 != 0,
            fragment: flags & 0x3fff != 0,
            flow: 0,
            ttl: h[8],
            source: Ipv4Addr::new(h[12], h[13], h[14], h[15]).to_string(),
            payload: bytes.get(usize::from(h[0] & 15) * 4..)?,
        })
    }

    fn v6(bytes: &'a [u8]) -> Option<Self> {
        let h = bytes.first_chunk::<40>()?;
        let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
        let source: [u8; 16] = *h[8..].first_chunk()?;
        Some(Self {
            v6: true,
            protocol: h[6],
            tos: (first >> 20) as u8,
            len: 40 + usize::from(u16::from_be_bytes([h[4], h[5]])),
            df: false,
            fragment: h[6] == 44,
            flow: first & 0xf_ffff,
            ttl: h[7],
            source: Ipv6Addr::from(source).to_string(),
            payload: &bytes[40..],
        })
    }

    /// What hosts send of their own accord: neighbour discovery and multicast listening. RFC 4861, RFC 3810
    fn is_noise(&self) -> bool {
        self.v6
            && (self.protocol == 0
                || (self.protocol == 58 && matches!(self.payload.first(), Some(130..=136 | 143))))
    }

    fn look(&self) -> String {
        let family = if self.v6 { 6 } else { 4 };
        let kind = match self.protocol {
            _ if self.fragment => "frag".to_owned(),
            ESP => "esp".to_owned(),
            UDP => "udp".to_owned(),
            ICMP | 58 => "icmp".to_owned(),
            other => format!("proto-{other}-"),
        };
        let mut look = format!("{kind}{family} len {}", self.len);
        if self.df {
            look.push_str(" df");
        }
        if self.tos != 0 {
            look.push_str(&format!(" tos {:#x}", self.tos));
        }
        if self.flow != 0 {
            look.push_str(&format!(" flow {:#x}", self.flow));
        }
        // 64 is sent, 63 was forwarded once.
        if !(63..=64).contains(&self.ttl) {
            look.push_str(&format!(" ttl {}", self.ttl));
        }
        look
    }

    fn icmp_error(&self) -> Option<String> {
        let (&[kind, code], rest) = (self.payload.first_chunk::<2>()?, self.payload.get(4..8)?);
        let info = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let name = match (self.v6, self.protocol, kind, code) {
            (false, ICMP, 3, 4) => format!("frag-needed mtu {}", info & 0xffff),
            (true, 58, 2, 0) => format!("packet-too-big mtu {info}"),
            (false, ICMP, 3 | 5 | 11 | 12, _) => v4_error(kind, code),
            (true, 58, 1..=4, _) => v6_error(kind, code),
            _ => return None,
        };
        Some(format!("{name} from {}", self.source))
    }
}

/// RFC 792, RFC 1812 §5.2.7
pub(crate) fn v4_error(kind: u8, code: u8) -> String {
    let name = match (kind, code) {
        (3, 0) => "net-unreachable",
        (3, 1) => "host-unreachable",
        (3, 2) => "protocol-unreachable",
        (3, 3) => "port-unreachable",
        (3, 4) => "frag-needed",
        (3, 13) => "admin-prohibited",
        (11, 0) => "ttl-exceeded",
        _ => return format!("{kind}/{code}"),
    };
    name.to_owned()
}

/// RFC 4443 §3
pub(crate) fn v6_error(kind: u8, code: u8) -> String {
    let name = match (kind, code) {
        (1, 0) => "no-route",
        (1, 1) => "admin-prohibited",
        (1, 3) => "address-unreachable",
        (1, 4) => "port-unreachable",
        (2, 0) => "packet-too-big",
        (3, 0) => "ttl-exceeded",
        _ => return format!("{kind}/{code}"),
    };
    name.to_owned()
}
