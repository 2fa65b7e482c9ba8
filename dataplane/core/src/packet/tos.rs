//! DSCP and ECN between inner and outer headers, as the kernel does it.

use super::checksum::adjust;
use serde::{Deserialize, Serialize};

const ECN: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// How congestion passes between inner and outer headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EcnRule {
    /// As the kernel's xfrm does, which is near RFC 3168 §9.1.1.
    #[default]
    Kernel,
    /// RFC 6040, in normal mode.
    Rfc6040,
}

/// Which parts of the inner TOS the outer header gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// Copy the DSCP (not `extra-flag dont-encap-dscp`).
    pub dscp: bool,
    /// Copy ECN (not `flag noecn`).
    pub ecn: bool,
    /// How.
    pub rule: EcnRule,
}

/// Which parts of the outer TOS reach the inner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decap {
    /// The DSCP (`flag decap-dscp`).
    pub dscp: bool,
    /// Congestion (not `flag noecn`).
    pub ecn: bool,
    /// How.
    pub rule: EcnRule,
}

/// The outer header says congestion experienced, the inner one that its sender would not understand that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

/// The outer TOS for an inner one. By the kernel CE is not copied: it becomes ECT(0); by RFC 6040 §4.1 it is.
///
/// kernel: include/net/inet_ecn.h INET_ECN_encapsulate(), net/xfrm/xfrm_output.c xfrm4_tunnel_encap_add()
pub const fn encap(inner: u8, e: Encap) -> u8 {
    let dscp = if e.dscp { inner & !ECN } else { 0 };
    let ecn = match inner & ECN {
        _ if !e.ecn => 0,
        CE if matches!(e.rule, EcnRule::Kernel) => ECT0,
        ecn => ecn,
    };
    dscp | ecn
}

/// The inner TOS after decapsulation: CE on the outer header marks an ECN-capable inner packet, and with
/// `flag decap-dscp` the outer DSCP wins. What the two rules differ in is CE on a Not-ECT inner packet, which the kernel
/// ignores and RFC 6040 drops, and ECT(1) on an ECT(0) one, which RFC 6040 copies.
///
/// kernel: net/xfrm/xfrm_input.c xfrm4_remove_tunnel_encap(), ipip_ecn_decapsulate()
/// RFC 6040 §4.2, figure 4
pub const fn decap(inner: u8, outer: u8, d: Decap) -> Result<u8, Congested> {
    let tos = if d.dscp { (outer & !ECN) | (inner & ECN) } else { inner };
    match (inner & ECN, outer & ECN) {
        _ if !d.ecn => Ok(tos),
        (NOT_ECT, CE) if matches!(d.rule, EcnRule::Rfc6040) => Err(Congested),
        (NOT_ECT, _) => Ok(tos),
        (_, CE) => Ok(tos | CE),
        (ECT0, ECT1) if matches!(d.rule, EcnRule::Rfc6040) => Ok((tos & !ECN) | ECT1),
        _ => Ok(tos),
    }
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
    use proptest::prelude::*;

    /// Measured on Linux 6.1: 0xbb goes out as 0xba; with dont-encap-dscp b8,b9,ba,bb become 0,1,2,2.
    #[test]
    fn outer_tos_is_the_kernels() {
        let rule = EcnRule::Kernel;
        let all = Encap { dscp: true, ecn: true, rule };
        assert_eq!([0xb8, 0xb9, 0xba, 0xbb].map(|t| encap(t, all)), [0xb8, 0xb9, 0xba, 0xba]);
        let no_dscp = Encap { dscp: false, ecn: true, rule };
        assert_eq!([0xb8, 0xb9, 0xba, 0xbb].map(|t| encap(t, no_dscp)), [0, 1, 2, 2]);
        assert_eq!(encap(0xbb, Encap { dscp: false, ecn: false, rule }), 0);
    }

    /// Measured on Linux 6.1: outer CE marks ECT inner packets and leaves Not-ECT ones alone.
    #[test]
    fn congestion_reaches_the_inner_header() {
        let usual = Decap { dscp: false, ecn: true, rule: EcnRule::Kernel };
        let with = |inner, outer, dscp, ecn| decap(inner, outer, Decap { dscp, ecn, ..usual }).unwrap();
        assert_eq!([0, 1, 2, 3].map(|ecn| with(0xb8 | ecn, 0x03, false, true)), [0xb8, 0xbb, 0xbb, 0xbb]);
        assert_eq!([0, 1, 2].map(|outer| with(0xba, outer, false, true)), [0xba; 3]);
        assert_eq!(with(0x02, 0xb8, true, true), 0xba);
        assert_eq!(with(0xb9, 0x03, false, false), 0xb9);
        assert_eq!(with(0xb9, 0x2b, true, false), 0x29);
    }

    /// RFC 6040 figure 4: a row for each inner codepoint, a column for each outer one, both in the order of the figure,
    /// Not-ECT, ECT(0), ECT(1), CE.
    #[rustfmt::skip]
    const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
        (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
        (0b10, [Some(0b10), Some(0b10), Some(0b01), Some(0b11)]),
        (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
        (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
    ];
    const COLUMNS: [u8; 4] = [0b00, 0b10, 0b01, 0b11];

    proptest! {
        /// Whatever the DSCPs are, and with `decap-dscp` or without.
        #[test]
        fn rfc_6040_is_its_figure(inner in any::<u8>(), outer in any::<u8>(), dscp in any::<bool>()) {
            let row = FIGURE_4.iter().find(|(ecn, _)| *ecn == inner & ECN).unwrap().1;
            let column = COLUMNS.iter().position(|ecn| *ecn == outer & ECN).unwrap();
            let expected = row[column].map(|ecn| (if dscp { outer } else { inner }) & !ECN | ecn);
            let rule = EcnRule::Rfc6040;
            prop_assert_eq!(decap(inner, outer, Decap { dscp, ecn: true, rule }).ok(), expected);
            // `noecn` is noecn.
            let without = decap(inner, outer, Decap { dscp, ecn: false, rule });
            prop_assert_eq!(without, decap(inner, outer, Decap { dscp, ecn: false, rule: EcnRule::Kernel }));
        }

        /// RFC 6040 §4.1, figure 3, normal mode: copied; and what a network does not mark comes out as it went in.
        #[test]
        fn rfc_6040_is_transparent(inner in any::<u8>()) {
            let rule = EcnRule::Rfc6040;
            let outer = encap(inner, Encap { dscp: true, ecn: true, rule });
            prop_assert_eq!(outer, inner);
            prop_assert_eq!(decap(inner, outer, Decap { dscp: false, ecn: true, rule }), Ok(inner));
        }
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
