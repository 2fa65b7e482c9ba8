//! DSCP and ECN between inner and outer headers, as the kernel does it.

use super::checksum::adjust;

const ECN: u8 = 3;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// Which parts of the inner TOS the outer header gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// Copy the DSCP (not `extra-flag dont-encap-dscp`).
    pub dscp: bool,
    /// Copy ECN (not `flag noecn`).
    pub ecn: bool,
}

/// Which parts of the outer TOS reach the inner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decap {
    /// The DSCP (`flag decap-dscp`).
    pub dscp: bool,
    /// Congestion (not `flag noecn`).
    pub ecn: bool,
}

/// The outer TOS for an inner one. CE is not copied: it becomes ECT(0).
///
/// kernel: include/net/inet_ecn.h INET_ECN_encapsulate(), net/xfrm/xfrm_output.c xfrm4_tunnel_encap_add()
pub const fn encap(inner: u8, e: Encap) -> u8 {
    let dscp = if e.dscp { inner & !ECN } else { 0 };
    let ecn = match inner & ECN {
        _ if !e.ecn => 0,
        CE => ECT0,
        ecn => ecn,
    };
    dscp | ecn
}

/// The inner TOS after decapsulation: CE on the outer header marks an ECN-capable inner packet, and with
/// `flag decap-dscp` the outer DSCP wins. CE on a Not-ECT inner packet is ignored, not dropped.
///
/// kernel: net/xfrm/xfrm_input.c xfrm4_remove_tunnel_encap(), ipip_ecn_decapsulate(); RFC 6040 §4.2 would drop
pub const fn decap(inner: u8, outer: u8, d: Decap) -> u8 {
    let tos = if d.dscp { (outer & !ECN) | (inner & ECN) } else { inner };
    if d.ecn && outer & ECN == CE && tos & ECN != 0 { tos | CE } else { tos }
}

/// Writes a TOS into an IP packet, keeping an IPv4 header's checksum right. Too short packets stay as they are.
pub fn set(packet: &mut [u8], tos: u8) {
    match packet.first().map(|b| b >> 4) {
        Some(4) if packet.len() >= 20 => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = tos;
            let new = u16::from_be_bytes([packet[0], tos]);
            let sum = adjust(u16::from_be_bytes([packet[10], packet[11]]), old, new);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(6) if packet.len() >= 40 => {
            packet[0] = 0x60 | (tos >> 4);
            packet[1] = (tos << 4) | (packet[1] & 15);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Inner, checksum, testing};

    /// Measured on Linux 6.1: 0xbb goes out as 0xba; with dont-encap-dscp b8,b9,ba,bb become 0,1,2,2.
    #[test]
    fn outer_tos_is_the_kernels() {
        let all = Encap { dscp: true, ecn: true };
        assert_eq!([0xb8, 0xb9, 0xba, 0xbb].map(|t| encap(t, all)), [0xb8, 0xb9, 0xba, 0xba]);
        let no_dscp = Encap { dscp: false, ecn: true };
        assert_eq!([0xb8, 0xb9, 0xba, 0xbb].map(|t| encap(t, no_dscp)), [0, 1, 2, 2]);
        assert_eq!(encap(0xbb, Encap { dscp: false, ecn: false }), 0);
    }

    /// Measured on Linux 6.1: outer CE marks ECT inner packets and leaves Not-ECT ones alone.
    #[test]
    fn congestion_reaches_the_inner_header() {
        let usual = Decap { dscp: false, ecn: true };
        assert_eq!([0, 1, 2, 3].map(|ecn| decap(0xb8 | ecn, 0x03, usual)), [0xb8, 0xbb, 0xbb, 0xbb]);
        assert_eq!([0, 1, 2].map(|outer| decap(0xba, outer, usual)), [0xba; 3]);
        assert_eq!(decap(0x02, 0xb8, Decap { dscp: true, ecn: true }), 0xba);
        assert_eq!(decap(0xb9, 0x03, Decap { dscp: false, ecn: false }), 0xb9);
        assert_eq!(decap(0xb9, 0x2b, Decap { dscp: true, ecn: false }), 0x29);
    }

    #[test]
    fn setting_keeps_the_header_valid() {
        let mut p = testing::udp4("10.0.0.1", "10.0.0.2", 1, 2, 40);
        set(&mut p, 0xba);
        assert_eq!((p[1], checksum(&p[..20])), (0xba, 0));
        let mut p = testing::udp6("::1", "::2", 1, 2, 60);
        set(&mut p, 0xba);
        assert_eq!(Inner::dissect(&p).unwrap().tos, 0xba);
    }
}
