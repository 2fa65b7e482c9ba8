//! Packets made by hand.

use super::classes::BY_HAND;
use super::stage::{A, B, SINK};
use anyhow::{Context, Result, anyhow};
use std::net::Ipv4Addr;
use uvti_core::esp::{Crypter, Header};
use uvti_core::packet::Buf;
use uvti_core::packet::checksum;
use uvti_core::xfrm::{AlgAead, Algorithms, Key, Spi};

const UDP: u8 = 17;
const IP_HEADER: usize = 20;

/// A UDP packet of `len` bytes (IP header included) that nobody answers.
pub(crate) fn inner(src: Ipv4Addr, dst: Ipv4Addr, len: usize, df: bool) -> Vec<u8> {
    let mut p = vec![0; len.max(IP_HEADER + 8)];
    let total = p.len() as u16;
    p[0] = 0x45;
    p[2..4].copy_from_slice(&total.to_be_bytes());
    p[6] = if df { 0x40 } else { 0 };
    p[8] = 64;
    p[9] = UDP;
    p[12..16].copy_from_slice(&src.octets());
    p[16..20].copy_from_slice(&dst.octets());
    let sum = checksum(&p[..IP_HEADER]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    // RFC 768: the checksum 0 is none.
    for port in [20, 22] {
        p[port..port + 2].copy_from_slice(&SINK.to_be_bytes());
    }
    p[24..26].copy_from_slice(&(total - IP_HEADER as u16).to_be_bytes());
    p
}

/// An echo request.
pub(super) fn echo(id: u16, seq: u16) -> Vec<u8> {
    let mut p = vec![0; 64];
    p[0] = 8;
    p[4..6].copy_from_slice(&id.to_be_bytes());
    p[6..8].copy_from_slice(&seq.to_be_bytes());
    let sum = checksum(&p);
    p[2..4].copy_from_slice(&sum.to_be_bytes());
    p
}

/// Whether an IPv4 packet is the answer to [`echo`].
pub(super) fn is_echo_reply(packet: &[u8], id: u16, seq: u16) -> bool {
    let header = packet.first().map_or(0, |b| usize::from(b & 15) * 4);
    let Some(icmp) = packet.get(header..) else { return false };
    icmp.first() == Some(&0)
        && icmp.get(4..6) == Some(&id.to_be_bytes())
        && icmp.get(6..8) == Some(&seq.to_be_bytes())
}

/// The sender of ESP by hand: seals with the key of [`BY_HAND`], which nothing else seals with.
pub(super) struct Sealer(Crypter);

impl Sealer {
    pub(super) fn new() -> Result<Self> {
        let key = Key::new(BY_HAND.to_vec());
        let aead = AlgAead { name: "rfc4106(gcm(aes))".into(), key, icv_bits: 128 };
        let algorithms = Algorithms { aead: Some(aead), ..Algorithms::default() };
        Ok(Self(Crypter::new(&algorithms).map_err(|refusal| anyhow!("{refusal}"))?))
    }

    /// A packet from B to A in ESP, with a bit of its ICV wrong if `forged`. `iv` must be new.
    pub(super) fn seal(&self, spi: u32, seq: u32, iv: u64, forged: bool) -> Result<Vec<u8>> {
        let mut buf = Buf::from_packet(&inner(B, A, 100, false));
        let header = Header { spi: Spi(spi), seq: seq.into(), esn: false };
        self.0.seal(&mut buf, header, iv, 4, 0).context("cannot seal")?;
        if forged && let Some(last) = buf.bytes_mut().last_mut() {
            *last ^= 1;
        }
        Ok(buf.bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_answered_by_its_own_reply_only() {
        let mut reply = vec![0x45; 20];
        reply.extend(echo(7, 1));
        assert!(!is_echo_reply(&reply, 7, 1), "a request is no reply");
        reply[20] = 0;
        assert!(is_echo_reply(&reply, 7, 1));
        assert!(!is_echo_reply(&reply, 7, 2));
        assert!(!is_echo_reply(&reply, 8, 1));
        assert!(!is_echo_reply(&[0x4f; 8], 7, 1));
        assert!(!is_echo_reply(&[], 7, 1));
    }

    #[test]
    fn what_is_sealed_opens_unless_it_is_forged() {
        let sealer = Sealer::new().unwrap();
        for forged in [false, true] {
            let mut buf = Buf::from_packet(&sealer.seal(0x300, 1, 1, forged).unwrap());
            assert_eq!(sealer.0.open(&mut buf, None).is_err(), forged);
        }
    }
}
