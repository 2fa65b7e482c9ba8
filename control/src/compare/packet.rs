//! Packets by hand, byte for byte: what a scenario sends. Written apart from uvti's own, so that both cannot share a
//! mistake.

use super::scenario::{Esp, Inject, Inner, Odd, Outer, Udp};
use anyhow::{Result, anyhow};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::net::IpAddr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
const IPIP: u8 = 4;
const IPV6: u8 = 41;

/// The bytes of an inner packet.
pub(crate) fn inner(what: &Inner) -> Vec<u8> {
    match what {
        Inner::Bytes(bytes) => bytes.clone(),
        Inner::Udp(udp) => datagram(udp),
    }
}

fn datagram(p: &Udp) -> Vec<u8> {
    let header =
        Header { tos: p.tos, ttl: p.ttl, flow: p.flow, df: p.df == Some(true), ..Header::new(p.src, p.dst) };
    let payload = usize::from(p.len) - if p.src.is_ipv4() { 28 } else { 48 };
    match p.odd {
        None => header.packet(UDP, &udp(p, payload)),
        Some(Odd::Fragment(offset)) => {
            Header { fragment: offset, ..header }.packet(UDP, &vec![0; payload + 8])
        }
        Some(Odd::Checksum) => {
            let mut packet = header.packet(UDP, &udp(p, payload));
            packet[10] ^= 1;
            packet
        }
        Some(Odd::IcmpError) => {
            let about = Header::new(p.dst, p.src).packet(UDP, &[0; 8]);
            header.packet(ICMP, &icmp(3, 1, 0, &about))
        }
    }
}

/// The packets of an `inject` line, outer header included.
pub(crate) fn injected(inject: &Inject) -> Result<Vec<Vec<u8>>> {
    let header = Header { tos: inject.tos, ..Header::new(inject.src, inject.dst) };
    let mut packets = Vec::new();
    match &inject.what {
        Outer::Esp(esp) => {
            for sequence in &esp.sequences {
                packets.extend(outer(header, inject, &seal(esp, *sequence)?));
            }
        }
        Outer::Ipip(packet) => packets.push(header.packet(IPIP, &inner(packet))),
        Outer::FragNeeded { mtu, spi } => {
            let quoted = [spi.to_be_bytes(), 1_u32.to_be_bytes()].concat();
            let mut about =
                Header::new(inject.dst, inject.src).packet(ESP, &[&quoted[..], &[0; 92]].concat());
            about.truncate(28);
            packets.push(header.packet(ICMP, &icmp(3, 4, u32::from(*mtu), &about)));
        }
    }
    let once = packets.clone();
    for _ in 1..inject.count {
        packets.extend(once.iter().cloned());
    }
    Ok(packets)
}

fn outer(header: Header, inject: &Inject, esp: &[u8]) -> Vec<Vec<u8>> {
    let whole = header.packet(ESP, esp);
    match inject.fragment.map(usize::from).filter(|at| *at < esp.len()) {
        Some(at) => {
            let first = Header { id: 7, more: true, ..header }.packet(ESP, &esp[..at]);
            let second = Header { id: 7, fragment: (at / 8) as u16, ..header }.packet(ESP, &esp[at..]);
            vec![first, second]
        }
        None if inject.bad_checksum => {
            let mut bad = whole;
            bad[10] ^= 1;
            vec![bad]
        }
        None => vec![whole],
    }
}

/// rfc4106(gcm(aes)) with an ICV of 16 bytes. RFC 4303 §2, RFC 4106 §3
fn seal(esp: &Esp, sequence: u32) -> Result<Vec<u8>> {
    let packet = inner(&esp.inner);
    let v6 = packet.first().is_some_and(|b| b >> 4 == 6);
    let next_header = esp.next_header.unwrap_or(if v6 { IPV6 } else { IPIP });
    let length = packet.len() + usize::from(esp.tfc);
    let regular: Vec<u8> = (1..=(length + 2).next_multiple_of(4) - length - 2).map(|i| i as u8).collect();
    let padding = esp.pad.as_ref().unwrap_or(&regular);
    let pad_length = esp.pad_length.unwrap_or(padding.len() as u8);
    let mut text =
        [&packet[..], &vec![0; usize::from(esp.tfc)], padding, &[pad_length, next_header]].concat();

    let (key, salt) = esp.key.split_last_chunk::<4>().ok_or_else(|| anyhow!("a key without salt"))?;
    let key = UnboundKey::new(&AES_128_GCM, key).map_err(|_| anyhow!("a key of a wrong length"))?;
    // Any number that differs from packet to packet will do. RFC 4106 §3.1
    let iv = (0x1122_3344_0000_0000 + u64::from(sequence)).to_be_bytes();
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(&iv);
    let high = esp.high.map(u32::to_be_bytes);
    let (spi, low) = (esp.spi.to_be_bytes(), sequence.to_be_bytes());
    let aad = [&spi[..], high.as_ref().map_or(&[][..], |h| &h[..]), &low].concat();
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
        .map_err(|_| anyhow!("too long to be sealed"))?;
    let mut sealed = [&spi[..], &low, &iv, &text].concat();
    if let (true, Some(last)) = (esp.bad_icv, sealed.last_mut()) {
        *last ^= 1;
    }
    sealed.truncate(esp.cut.map_or(usize::MAX, usize::from));
    Ok(sealed)
}

/// An IP header without options.
#[derive(Clone, Copy, Debug)]
struct Header {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    flow: u32,
    df: bool,
    more: bool,
    id: u16,
    /// In units of 8 bytes.
    fragment: u16,
}

impl Header {
    fn new(src: IpAddr, dst: IpAddr) -> Self {
        Self { src, dst, tos: 0, ttl: 64, flow: 0, df: false, more: false, id: 0, fragment: 0 }
    }

    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let flags = u16::from(self.df) << 14 | u16::from(self.more) << 13 | self.fragment;
                let length = (20 + payload.len()) as u16;
                let mut bytes = vec![0x45, self.tos];
                [length, self.id, flags].iter().for_each(|word| bytes.extend(word.to_be_bytes()));
                bytes.extend([self.ttl, protocol, 0, 0]);
                bytes.extend([src.octets(), dst.octets()].concat());
                let sum = checksum(&bytes).to_be_bytes();
                bytes[10..12].copy_from_slice(&sum);
                bytes
            }
            (src, dst) => {
                let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow;
                let mut bytes = first.to_be_bytes().to_vec();
                bytes.extend((payload.len() as u16).to_be_bytes());
                bytes.extend([protocol, self.ttl]);
                bytes.extend([octets(src), octets(dst)].concat());
                bytes
            }
        };
        bytes.extend(payload);
        bytes
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A datagram of zeros with a right checksum.
fn udp(p: &Udp, payload: usize) -> Vec<u8> {
    let length = 8 + payload as u16;
    let mut datagram = [p.sport, p.dport, length, 0].map(u16::to_be_bytes).concat();
    datagram.resize(usize::from(length), 0);
    let pseudo = [&octets(p.src)[..], &octets(p.dst), &[0, UDP], &length.to_be_bytes(), &datagram].concat();
    let sum = match checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

fn icmp(kind: u8, code: u8, rest: u32, about: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), about].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// The Internet checksum. RFC 1071
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
