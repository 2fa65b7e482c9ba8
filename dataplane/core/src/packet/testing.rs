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
