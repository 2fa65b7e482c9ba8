//! Small packets for tests and benches.

use super::{checksum, proto};
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 UDP packet of `len` bytes (at least 28), payload zeros, DF clear.
///
/// # Panics
/// If an address does not parse: it is for tests.
pub fn udp4(src: &str, dst: &str, sport: u16, dport: u16, len: usize) -> Vec<u8> {
    let (src, dst): (Ipv4Addr, Ipv4Addr) = (src.parse().expect("address"), dst.parse().expect("address"));
    let len = len.max(28);
    let mut p = vec![0; len];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    p[8] = 64;
    p[9] = proto::UDP;
    p[12..16].copy_from_slice(&src.octets());
    p[16..20].copy_from_slice(&dst.octets());
    let sum = checksum(&p[..20]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    udp_header(&mut p[20..], sport, dport);
    p
}

/// An IPv6 UDP packet of `len` bytes (at least 48), payload zeros.
///
/// # Panics
/// If an address does not parse: it is for tests.
pub fn udp6(src: &str, dst: &str, sport: u16, dport: u16, len: usize) -> Vec<u8> {
    let (src, dst): (Ipv6Addr, Ipv6Addr) = (src.parse().expect("address"), dst.parse().expect("address"));
    let len = len.max(48);
    let mut p = vec![0; len];
    p[0] = 0x60;
    p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    p[6] = proto::UDP;
    p[7] = 64;
    p[8..24].copy_from_slice(&src.octets());
    p[24..40].copy_from_slice(&dst.octets());
    udp_header(&mut p[40..], sport, dport);
    p
}

/// Sets the DF bit of an IPv4 packet.
pub fn set_df(p: &mut [u8]) {
    p[6] |= 0x40;
    p[10..12].fill(0);
    let sum = checksum(&p[..20]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn udp_header(p: &mut [u8], sport: u16, dport: u16) {
    let len = p.len() as u16;
    p[0..2].copy_from_slice(&sport.to_be_bytes());
    p[2..4].copy_from_slice(&dport.to_be_bytes());
    p[4..6].copy_from_slice(&len.to_be_bytes());
}

/// An IPv4 TCP packet with an option of 4 bytes and the right checksums; DF, ID 100.
pub fn tcp4(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 0, 0, 100, 0x40, 0, 64, proto::TCP, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    p.extend(tcp(seq, flags, payload));
    let len = p.len() as u16;
    p[2..4].copy_from_slice(&len.to_be_bytes());
    with_checksum(p)
}

/// The same over IPv6.
pub fn tcp6(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let tcp = tcp(seq, flags, payload);
    let mut p = udp6("2001:db8::1", "2001:db8::2", 0, 0, 48);
    p.truncate(40);
    p[6] = proto::TCP;
    p[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
    p.extend(tcp);
    with_checksum(p)
}

fn tcp(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x10, 0x00, 0x20, 0x00];
    p.extend(seq.to_be_bytes());
    p.extend([0, 0, 0, 9, 0x60, flags, 0x40, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
    p.extend(payload);
    p
}

/// Writes the checksums of the IPv4 header and of TCP or UDP, word by word: independent of what is tested.
///
/// # Panics
/// If it is not a packet of TCP or UDP without IP options: it is for tests.
pub fn with_checksum(mut p: Vec<u8>) -> Vec<u8> {
    let (at, addresses, protocol) = if p[0] >> 4 == 4 { (20, 12..20, p[9]) } else { (40, 8..40, p[6]) };
    let sum = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0))).sum()
    };
    let fold = |mut sum: u32| {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    };
    if at == 20 {
        p[10..12].fill(0);
        let header = fold(sum(&p[..20]));
        p[10..12].copy_from_slice(&header.to_be_bytes());
    }
    let field = at + if protocol == proto::TCP { 16 } else { 6 };
    p[field..field + 2].fill(0);
    let mut value = fold(sum(&p[addresses]) + u32::from(protocol) + (p.len() - at) as u32 + sum(&p[at..]));
    if protocol == proto::UDP && value == 0 {
        value = 0xffff;
    }
    p[field..field + 2].copy_from_slice(&value.to_be_bytes());
    p
}
