//! The inner packet as xfrm sees it: its flow, and what decides about size and outer header.

use crate::xfrm::Family;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers that are looked into.
pub mod proto {
    #![allow(missing_docs, reason = "IANA names")]
    pub const HOPOPTS: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IPIP: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const IPV6: u8 = 41;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const ICMPV6: u8 = 58;
    pub const NONE: u8 = 59;
    pub const DSTOPTS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MH: u8 = 135;
}

/// What a selector can look at. Equal flows get equal decisions.
///
/// Ports are 0 for every fragment, the first included. kernel: net/xfrm/xfrm_policy.c decode_session4()
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub proto: u8,
    /// Source port, ICMP type, high half of a GRE key, or mobility header type.
    pub sport: u16,
    /// Destination port, ICMP code, or low half of a GRE key.
    pub dport: u16,
}

/// In few words: every packet's flow is hashed.
impl Hash for Flow {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_ends(self.src, self.dst, state);
        let upper = u64::from(self.sport) << 32 | u64::from(self.dport) << 16 | u64::from(self.proto);
        state.write_u64(upper);
    }
}

/// Hashes two addresses in one word, or in four.
#[inline]
pub(crate) fn hash_ends<H: Hasher>(src: IpAddr, dst: IpAddr, state: &mut H) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            state.write_u64(u64::from(u32::from(src)) << 32 | u64::from(u32::from(dst)));
        }
        (src, dst) => [src, dst].map(to_u128).into_iter().for_each(|a| state.write_u128(a)),
    }
}

fn to_u128(a: IpAddr) -> u128 {
    match a {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

impl Flow {
    /// Its address family.
    #[inline]
    pub const fn family(&self) -> Family {
        Family::of(self.dst)
    }
}

/// An IP packet, dissected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its flow.
    pub flow: Flow,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: the DF bit. IPv6: true, a router may not fragment.
    pub df: bool,
    /// Whether it is a fragment other than the first.
    pub later_fragment: bool,
    /// Where the upper-layer header starts, bytes.
    pub payload: usize,
    /// IPv6 flow label, 0 for IPv4.
    pub flow_label: u32,
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIp {
    /// Shorter than the IP header its version asks for.
    Runt,
    /// Version neither 4 nor 6.
    Version,
}

impl Inner {
    /// Dissects an IP packet. Length fields are not believed: what is not there is not read.
    #[inline]
    pub fn dissect(bytes: &[u8]) -> Result<Inner, NotIp> {
        match bytes.first().ok_or(NotIp::Runt)? >> 4 {
            4 => dissect4(bytes),
            6 => dissect6(bytes),
            _ => Err(NotIp::Version),
        }
    }

    /// Takes bytes for a packet of `family`, whatever their version says.
    pub fn read_as(family: Family, bytes: &[u8]) -> Result<Inner, NotIp> {
        match family {
            Family::V4 => dissect4(bytes),
            Family::V6 => dissect6(bytes),
        }
    }
}

#[inline]
fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

#[inline]
fn dissect4(b: &[u8]) -> Result<Inner, NotIp> {
    let h: &[u8; 20] = b.first_chunk().ok_or(NotIp::Runt)?;
    let payload = usize::from(h[0] & 15) * 4;
    let frag = u16::from_be_bytes([h[6], h[7]]);
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
    let mut flow = Flow { src: address(12), dst: address(16), proto: h[9], sport: 0, dport: 0 };
    if frag & 0x3fff == 0 {
        (flow.sport, flow.dport) = ports(h[9], b, payload);
    }
    let (df, later_fragment) = (frag & 0x4000 != 0, frag & 0x1fff != 0);
    Ok(Inner { flow, tos: h[1], df, later_fragment, payload, flow_label: 0 })
}

fn dissect6(b: &[u8]) -> Result<Inner, NotIp> {
    let h: &[u8; 40] = b.first_chunk().ok_or(NotIp::Runt)?;
    let word = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
    let mut address = [0; 16];
    address.copy_from_slice(&h[8..24]);
    let src = IpAddr::V6(Ipv6Addr::from(address));
    address.copy_from_slice(&h[24..40]);
    let dst = IpAddr::V6(Ipv6Addr::from(address));
    let upper = upper_layer(b, h[6]);
    let mut flow = Flow { src, dst, proto: upper.proto, sport: 0, dport: 0 };
    if !upper.fragment {
        (flow.sport, flow.dport) = ports(upper.proto, b, upper.at);
    }
    Ok(Inner {
        flow,
        tos: (word >> 20) as u8,
        df: true,
        later_fragment: upper.later_fragment,
        payload: upper.at,
        flow_label: word & 0xf_ffff,
    })
}

struct Upper {
    proto: u8,
    at: usize,
    fragment: bool,
    later_fragment: bool,
}

/// Walks IPv6 extension headers. kernel: net/xfrm/xfrm_policy.c decode_session6()
fn upper_layer(b: &[u8], first: u8) -> Upper {
    let mut u = Upper { proto: first, at: 40, fragment: false, later_fragment: false };
    loop {
        let step = match u.proto {
            proto::HOPOPTS | proto::ROUTING | proto::DSTOPTS => {
                b.get(u.at + 1).map(|n| (usize::from(*n) + 1) * 8)
            }
            proto::FRAGMENT => Some(8),
            _ => None,
        };
        let (Some(step), Some(next)) = (step, b.get(u.at)) else { return u };
        if u.proto == proto::FRAGMENT {
            u.fragment = true;
            u.later_fragment = be16(b, u.at + 2).is_some_and(|offset| offset & !7 != 0);
        }
        u.proto = *next;
        u.at += step;
        if u.later_fragment {
            return u;
        }
    }
}

/// What selectors call ports.
#[inline]
fn ports(protocol: u8, b: &[u8], at: usize) -> (u16, u16) {
    if !matches!(protocol, proto::TCP | proto::UDP | proto::SCTP | proto::DCCP) {
        return like_ports(protocol, b, at);
    }
    let Some([s0, s1, d0, d1]) = b.get(at..).and_then(|b| b.first_chunk()) else {
        return (0, 0);
    };
    (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1]))
}

/// What stands for ports in protocols that have something like it.
fn like_ports(protocol: u8, b: &[u8], at: usize) -> (u16, u16) {
    let pair = match protocol {
        proto::ICMP | proto::ICMPV6 => {
            b.get(at).zip(b.get(at + 1)).map(|(kind, code)| (u16::from(*kind), u16::from(*code)))
        }
        proto::MH => b.get(at + 2).map(|kind| (u16::from(*kind), 0)),
        // The key is there if the K bit is set; a checksum before it takes four bytes.
        proto::GRE => be16(b, at).filter(|flags| flags & 0x2000 != 0).and_then(|flags| {
            let key = at + if flags & 0x8000 != 0 { 8 } else { 4 };
            be16(b, key).zip(be16(b, key + 2))
        }),
        _ => None,
    };
    pair.unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing;
    use proptest::prelude::*;

    #[test]
    fn udp_ports_are_read_from_whole_packets_only() {
        let mut p = testing::udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100);
        let i = Inner::dissect(&p).unwrap();
        assert_eq!((i.flow.sport, i.flow.dport, i.flow.proto, i.df), (4000, 5000, proto::UDP, false));
        p[6] = 0x20; // more fragments: the first of several
        let i = Inner::dissect(&p).unwrap();
        assert_eq!((i.flow.sport, i.flow.dport, i.later_fragment), (0, 0, false));
        p[7] = 1;
        assert!(Inner::dissect(&p).unwrap().later_fragment);
    }

    #[test]
    fn ipv6_extension_headers_are_walked() {
        let plain = testing::udp6("2001:db8::1", "2001:db8::2", 4000, 5000, 100);
        let i = Inner::dissect(&plain).unwrap();
        assert_eq!((i.flow.sport, i.flow.dport, i.payload), (4000, 5000, 40));
        let mut p = plain[..40].to_vec();
        p[6] = proto::HOPOPTS;
        p.extend([proto::FRAGMENT, 0, 1, 4, 0, 0, 0, 0]);
        p.extend([proto::UDP, 0, 0, 1, 0, 0, 0, 9]);
        p.extend(&plain[40..]);
        let i = Inner::dissect(&p).unwrap();
        assert_eq!((i.flow.proto, i.flow.sport, i.payload, i.later_fragment), (proto::UDP, 0, 56, false));
    }

    #[test]
    fn neither_version_nor_length_is_believed() {
        assert_eq!(Inner::dissect(&[]), Err(NotIp::Runt));
        assert_eq!(Inner::dissect(&[0x45; 19]), Err(NotIp::Runt));
        assert_eq!(Inner::dissect(&[0x60; 39]), Err(NotIp::Runt));
        assert_eq!(Inner::dissect(&[0; 40]), Err(NotIp::Version));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(b in proptest::collection::vec(any::<u8>(), 0..120), v in prop::sample::select(vec![0x45u8, 0x4f, 0x60, 0x00])) {
            let mut b = b;
            if let Some(first) = b.first_mut() { *first = v; }
            let _ = Inner::dissect(&b);
        }
    }
}
