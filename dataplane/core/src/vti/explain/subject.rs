//! The packet in question: made of a flow's words, taken out of an outer packet, put in a line.

use crate::device::{Device, LinkKind, LinkSpec};
use crate::packet::{Buf, Incoming, Inner, Outer, UDP_HEADER, UdpPorts, checksum, proto};
use crate::tables::Snapshot;
use crate::xfrm::{Direction, Proto};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A flow in a user's words, from which a packet is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol.
    pub proto: u8,
    /// Source port, or ICMP type.
    pub sport: u16,
    /// Destination port, or ICMP code.
    pub dport: u16,
    /// Length of the whole packet, bytes.
    pub len: u16,
    /// IPv4: don't fragment.
    pub df: bool,
    /// TOS or traffic class.
    pub tos: u8,
}

/// Why no packet can be made of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An IPv4 and an IPv6 address.
    #[error("the addresses are of different families")]
    Families,
    /// No room for the headers.
    #[error("len {0} is too short for the headers, which take {1} bytes")]
    Short(u16, usize),
}

/// What a device is known by, in words: its ends and that key of its, or its if_id.
pub(super) fn device(spec: &LinkSpec, key: (&str, u32)) -> String {
    match spec.kind {
        LinkKind::Xfrm => format!("if_id {:#x}", spec.if_id),
        _ => format!("local {} remote {} {} {:#x}", spec.local, spec.remote, key.0, key.1),
    }
}

/// What it looks policies up by.
pub(super) fn key(device: &Device, dir: Direction) -> String {
    match device.policy_key(dir) {
        key if device.is_xfrm() => format!("if_id {:#x}", key.if_id),
        key => format!("mark {:#x}", key.mark),
    }
}

impl Flow {
    /// The packet: headers, and a payload of zeros.
    pub fn packet(&self) -> Result<Vec<u8>, Invalid> {
        let upper = match self.proto {
            proto::UDP | proto::ICMP | proto::ICMPV6 => 8,
            proto::TCP => 20,
            proto::SCTP | proto::DCCP => 12,
            _ => 0,
        };
        let header = if self.src.is_ipv4() { 20 } else { 40 };
        if usize::from(self.len) < header + upper {
            return Err(Invalid::Short(self.len, header + upper));
        }
        let mut p = vec![0; usize::from(self.len)];
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (p[0], p[1], p[8], p[9]) = (0x45, self.tos, 64, self.proto);
                p[2..4].copy_from_slice(&self.len.to_be_bytes());
                p[6] = if self.df { 0x40 } else { 0 };
                p[12..16].copy_from_slice(&src.octets());
                p[16..20].copy_from_slice(&dst.octets());
                let sum = checksum(&p[..20]);
                p[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                p[..4].copy_from_slice(&(6 << 28 | u32::from(self.tos) << 20).to_be_bytes());
                p[4..6].copy_from_slice(&(self.len - 40).to_be_bytes());
                (p[6], p[7]) = (self.proto, 64);
                p[8..24].copy_from_slice(&src.octets());
                p[24..40].copy_from_slice(&dst.octets());
            }
            _ => return Err(Invalid::Families),
        }
        self.fill_upper(&mut p[header..]);
        Ok(p)
    }

    fn fill_upper(&self, p: &mut [u8]) {
        match self.proto {
            proto::ICMP | proto::ICMPV6 => (p[0], p[1]) = (self.sport as u8, self.dport as u8),
            proto::TCP | proto::UDP | proto::SCTP | proto::DCCP => {
                p[..2].copy_from_slice(&self.sport.to_be_bytes());
                p[2..4].copy_from_slice(&self.dport.to_be_bytes());
                if self.proto == proto::UDP {
                    let len = p.len() as u16;
                    p[4..6].copy_from_slice(&len.to_be_bytes());
                }
            }
            _ => {}
        }
    }
}

/// The ESP packet that `packet` is, bare or in UDP, with its outer header; `None` if it is none, or a fragment of one.
///
/// UDP counts as ESP where it is for us: to an address and port from which a device or an SA of ours would have it.
pub fn incoming(tables: &Snapshot, packet: &[u8]) -> Option<Incoming> {
    let packet = whole(packet)?;
    let outer = Inner::dissect(packet).ok()?;
    if outer.later_fragment || (packet[0] >> 4 == 4 && packet[6] & 0x20 != 0) {
        return None;
    }
    let (src, dst) = (outer.flow.src, outer.flow.dst);
    let (at, udp) = match outer.flow.proto {
        proto::ESP => (outer.payload, None),
        proto::UDP => {
            let ports = UdpPorts { src: outer.flow.sport, dst: outer.flow.dport };
            (outer.payload + UDP_HEADER, Some(ports).filter(|p| is_nat_port(tables, dst, p.dst))?.into())
        }
        _ => return None,
    };
    let outer = Outer { src, dst, tos: outer.tos, udp };
    Some(Incoming { buf: Buf::from_packet(packet.get(at..)?), outer })
}

/// The same, if it is one that we receive, and not one that we have sent.
pub fn received(tables: &Snapshot, packet: &[u8]) -> Option<Incoming> {
    incoming(tables, packet).filter(|packet| is_ours(tables, packet))
}

/// Whether a device of ours has its addresses, or an SA of ours its SPI.
fn is_ours(tables: &Snapshot, packet: &Incoming) -> bool {
    let Outer { src, dst, .. } = packet.outer;
    let by_device = tables.devices.iter().any(|d| d.spec.local == dst && !dst.is_unspecified())
        || tables.devices.tunnel(dst, src).is_some();
    let by_sa = crate::esp::peek(packet.buf.bytes()).is_some_and(|(spi, _)| {
        tables.states.any_mark(dst, spi, Proto::Esp).is_some_and(|sa| sa.spec.src == src)
    });
    let leaves = tables.devices.iter().any(|d| d.spec.local == src && !src.is_unspecified());
    (by_device || by_sa) && !leaves
}

/// The port of RFC 3948, and those that an SA of ours to this address wants.
fn is_nat_port(tables: &Snapshot, dst: IpAddr, port: u16) -> bool {
    let wanted = |sa: &std::sync::Arc<crate::xfrm::Sa>| {
        sa.spec.dst == dst && sa.spec.encap.is_some_and(|encap| encap.dport == port)
    };
    port == 4500 || tables.states.iter().any(wanted)
}

/// As much as the header says: what a link layer added behind it is not the packet's.
fn whole(packet: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| packet.get(at..at + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let len = match packet.first()? >> 4 {
        4 => word(2)?,
        6 => 40 + word(4)?,
        _ => return None,
    };
    Some(packet.get(..len).unwrap_or(packet))
}

/// A packet in a line: `udp 10.1.0.2:4000 > 10.2.0.5:5000, 100 bytes, df`.
pub(super) fn line(inner: Option<&Inner>, len: usize) -> String {
    let Some(inner) = inner else { return format!("{len} bytes that are no IP packet") };
    let flow = &inner.flow;
    let with_port = |address: IpAddr, port: u16| match address {
        IpAddr::V4(a) => format!("{a}:{port}"),
        IpAddr::V6(a) => format!("[{a}]:{port}"),
    };
    let ends = match flow.proto {
        proto::TCP | proto::UDP | proto::SCTP | proto::DCCP => {
            format!("{} > {}", with_port(flow.src, flow.sport), with_port(flow.dst, flow.dport))
        }
        proto::ICMP | proto::ICMPV6 => {
            format!("{} > {} type {} code {}", flow.src, flow.dst, flow.sport, flow.dport)
        }
        _ => format!("{} > {}", flow.src, flow.dst),
    };
    let df = if inner.df && flow.src.is_ipv4() { ", df" } else { "" };
    let fragment = if inner.later_fragment { ", a later fragment" } else { "" };
    let tos = if inner.tos == 0 { String::new() } else { format!(", tos {:#x}", inner.tos) };
    format!("{} {ends}, {len} bytes{df}{fragment}{tos}", super::command::protocol(flow.proto))
}
