//! ICMP errors to the sender of a dropped inner packet: when, and with what in them.

use crate::packet::{Inner, checksum, proto};
use crate::reason::Icmp;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// An ICMP or ICMPv6 message, from its type on; the host's stack adds the IP header and chooses the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender of the dropped packet.
    pub dst: IpAddr,
    /// Type, code, checksum and what follows. The ICMPv6 checksum is left to the socket: it needs the source.
    pub bytes: Vec<u8>,
}

/// RFC 1812 §4.3.2.3: an ICMP error is at most 576 bytes.
const QUOTE_V4: usize = 576 - 20 - 8;
/// RFC 4443 §2.4: an ICMPv6 error is at most 1280 bytes.
const QUOTE_V6: usize = 1280 - 40 - 8;
/// The smallest MTU of an IPv6 link (RFC 8200 §5): not reported smaller.
pub(super) const MIN_MTU_V6: u32 = 1280;

/// The error about `packet`, unless none may be sent: about ICMP errors, later fragments, multicast.
///
/// kernel: net/ipv4/icmp.c icmp_send(), net/ipv6/icmp.c icmp6_send()
pub fn error(kind: Icmp, packet: &[u8], inner: &Inner, mtu: u32) -> Option<Message> {
    if kind == Icmp::Silent || inner.later_fragment || !may_answer(inner, packet) {
        return None;
    }
    match inner.flow.src {
        IpAddr::V4(_) => {
            let (code, word) = match kind {
                Icmp::TooBig | Icmp::TooBigForIpv6 => (4, mtu.min(0xffff)),
                _ => (1, 0),
            };
            let mut bytes = message(3, code, word, packet, QUOTE_V4);
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            Some(Message { dst: inner.flow.src, bytes })
        }
        IpAddr::V6(_) => {
            let (kind, code, word) = match kind {
                Icmp::TooBig => (2, 0, mtu.max(MIN_MTU_V6)),
                Icmp::TooBigForIpv6 => (2, 0, mtu),
                _ => (1, 3, 0),
            };
            Some(Message { dst: inner.flow.src, bytes: message(kind, code, word, packet, QUOTE_V6) })
        }
    }
}

fn message(kind: u8, code: u8, word: u32, packet: &[u8], quote: usize) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(quote)];
    let mut m = Vec::with_capacity(8 + quoted.len());
    m.extend([kind, code, 0, 0]);
    m.extend(word.to_be_bytes());
    m.extend_from_slice(quoted);
    m
}

fn may_answer(inner: &Inner, packet: &[u8]) -> bool {
    let unicast = match (inner.flow.src, inner.flow.dst) {
        // kernel: net/ipv4/route.c ipv4_send_dest_unreach()
        _ if !is_whole(inner, packet) => false,
        (IpAddr::V4(src), IpAddr::V4(dst)) => single4(src) && !dst.is_multicast() && !dst.is_broadcast(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => single6(src) && !dst.is_multicast(),
        _ => false,
    };
    unicast && !is_icmp_error(inner, packet)
}

/// Whether an IPv4 header says that it is one.
fn is_whole(inner: &Inner, packet: &[u8]) -> bool {
    inner.flow.src.is_ipv6() || packet.first().is_some_and(|byte| byte >> 4 == 4 && byte & 15 >= 5)
}

fn single4(a: Ipv4Addr) -> bool {
    !(a.is_multicast() || a.is_broadcast() || a.is_unspecified() || a.octets()[0] == 0)
}

fn single6(a: Ipv6Addr) -> bool {
    !(a.is_multicast() || a.is_unspecified())
}

/// RFC 1122 §3.2.2: never about an ICMP error. A type that is not there is taken for one.
fn is_icmp_error(inner: &Inner, packet: &[u8]) -> bool {
    let kind = packet.get(inner.payload).copied();
    match inner.flow.proto {
        proto::ICMP => !matches!(kind, Some(0 | 8 | 9 | 10 | 13..=18 | 40 | 42 | 43)),
        proto::ICMPV6 => kind.is_none_or(|k| k < 128),
        _ => false,
    }
}

/// Limits errors per destination: a burst of 6, then one a second. Errors about size are not limited, for path MTU
/// discovery lives on them.
///
/// kernel: net/ipv4/icmp.c icmpv4_xrlim_allow(), net/ipv4/inetpeer.c inet_peer_xrlim_allow()
#[derive(Debug, Default)]
pub struct RateLimit {
    peers: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Credit, in time.
    tokens: Duration,
    last: Duration,
}

/// sysctl icmp_ratelimit's default.
const INTERVAL: Duration = Duration::from_secs(1);
/// Peers remembered; then all start anew.
const PEERS: usize = 4096;

impl RateLimit {
    /// Most errors that are sent to one destination at the same moment, but for those about size.
    pub const BURST: u32 = 6;

    /// Whether `message` may be sent at `now`, a time since any fixed moment.
    pub fn allow(&mut self, message: &Message, now: Duration) -> bool {
        let about_size = match message.dst {
            IpAddr::V4(_) => message.bytes.starts_with(&[3, 4]),
            IpAddr::V6(_) => message.bytes.starts_with(&[2]),
        };
        if about_size {
            return true;
        }
        if self.peers.len() >= PEERS && !self.peers.contains_key(&message.dst) {
            self.peers.clear();
        }
        let bucket =
            self.peers.entry(message.dst).or_insert(Bucket { tokens: INTERVAL * Self::BURST, last: now });
        bucket.tokens = (bucket.tokens + now.saturating_sub(bucket.last)).min(INTERVAL * Self::BURST);
        bucket.last = now;
        let allowed = bucket.tokens >= INTERVAL;
        if allowed {
            bucket.tokens -= INTERVAL;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{udp4, udp6};

    fn about(packet: &[u8], kind: Icmp) -> Option<Vec<u8>> {
        error(kind, packet, &Inner::dissect(packet).unwrap(), 1246).map(|m| m.bytes)
    }

    #[test]
    fn types_and_codes_are_the_kernels() {
        let m = about(&udp4("10.1.0.2", "10.2.0.5", 1, 2, 1000), Icmp::TooBig).unwrap();
        assert_eq!((&m[..2], u32::from_be_bytes([m[4], m[5], m[6], m[7]])), (&[3, 4][..], 1246));
        assert_eq!((checksum(&m), m.len()), (0, 556));
        assert_eq!(about(&udp4("10.1.0.2", "10.2.0.5", 1, 2, 100), Icmp::Unreachable).unwrap()[..2], [3, 1]);
        let six = udp6("2001:db8::1", "2001:db8::2", 1, 2, 1300);
        let m = about(&six, Icmp::TooBig).unwrap();
        assert_eq!((&m[..2], u32::from_be_bytes([m[4], m[5], m[6], m[7]])), (&[2, 0][..], 1280));
        assert_eq!(about(&six, Icmp::Unreachable).unwrap()[..2], [1, 3]);
    }

    #[test]
    fn no_error_about_errors_fragments_and_multicast() {
        let good = udp4("10.1.0.2", "10.2.0.5", 1, 2, 100);
        assert!(about(&good, Icmp::Silent).is_none());
        let mut fragment = good.clone();
        fragment[7] = 5;
        assert!(about(&fragment, Icmp::Unreachable).is_none());
        let mut icmp = good.clone();
        icmp[9] = proto::ICMP;
        icmp[20] = 3;
        assert!(about(&icmp, Icmp::Unreachable).is_none());
        icmp[20] = 8;
        assert!(about(&icmp, Icmp::Unreachable).is_some());
        assert!(about(&udp4("10.1.0.2", "224.0.0.5", 1, 2, 100), Icmp::Unreachable).is_none());
        assert!(about(&udp4("0.0.0.0", "10.2.0.5", 1, 2, 100), Icmp::Unreachable).is_none());
    }

    /// Measured on Linux 6.1: of 20 errors in a row 6 are sent, then one a second.
    #[test]
    fn six_in_a_row_then_one_a_second() {
        let mut limit = RateLimit::default();
        let mut allowed = |kind, secs| {
            let message = Message { dst: "10.1.0.2".parse().unwrap(), bytes: kind };
            limit.allow(&message, Duration::from_secs(secs))
        };
        let sent = (0..20).filter(|_| allowed(vec![3, 1], 5)).count();
        assert_eq!(sent, 6);
        assert!(allowed(vec![3, 4], 5), "frag-needed is not limited");
        assert!(allowed(vec![3, 1], 6));
        assert!(!allowed(vec![3, 1], 6));
    }
}
