//! Fragments of an outer packet: what an inner packet that may be fragmented becomes where the outer one does not fit.

use super::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER, checksum, proto};

/// Length of an IPv6 fragment header (RFC 8200 §4.5).
const FRAGMENT_HEADER: usize = 8;

/// Cuts an outer packet (no options, no extension headers) into fragments of at most `mtu` bytes, and hands header and
/// payload of each to `emit`. False, and nothing is handed over, if it fits or has DF.
///
/// kernel: net/ipv4/ip_output.c ip_do_fragment(), net/ipv6/ip6_output.c ip6_fragment(): an inner packet without DF
/// travels whole, its ESP in pieces
pub fn fragment(packet: &[u8], mtu: usize, emit: impl FnMut(&[u8], &[u8])) -> bool {
    if packet.len() <= mtu {
        return false;
    }
    match packet.first().map(|b| b >> 4) {
        Some(4) => fragment_ipv4(packet, mtu, emit),
        Some(6) => fragment_ipv6(packet, mtu, emit),
        _ => false,
    }
}

fn fragment_ipv4(packet: &[u8], mtu: usize, mut emit: impl FnMut(&[u8], &[u8])) -> bool {
    let Some((header, payload)) = packet.split_first_chunk::<IPV4_HEADER>() else { return false };
    if header[6] & 0x40 != 0 {
        return false;
    }
    for Piece { offset, payload, more } in pieces(payload, mtu, IPV4_HEADER) {
        let mut h = *header;
        let total = (IPV4_HEADER + payload.len()) as u16;
        h[2..4].copy_from_slice(&total.to_be_bytes());
        let more = if more { 0x2000 } else { 0 };
        h[6..8].copy_from_slice(&((offset / 8) as u16 | more).to_be_bytes());
        h[10..12].fill(0);
        let sum = checksum(&h);
        h[10..12].copy_from_slice(&sum.to_be_bytes());
        emit(&h, payload);
    }
    true
}

fn fragment_ipv6(packet: &[u8], mtu: usize, mut emit: impl FnMut(&[u8], &[u8])) -> bool {
    let Some((header, payload)) = packet.split_first_chunk::<IPV6_HEADER>() else { return false };
    let id = identification(header, payload);
    for Piece { offset, payload, more } in pieces(payload, mtu, IPV6_HEADER + FRAGMENT_HEADER) {
        let mut h = [0; IPV6_HEADER + FRAGMENT_HEADER];
        h[..IPV6_HEADER].copy_from_slice(header);
        let length = (FRAGMENT_HEADER + payload.len()) as u16;
        h[4..6].copy_from_slice(&length.to_be_bytes());
        h[6] = proto::FRAGMENT;
        h[40] = header[6];
        h[42..44].copy_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
        h[44..48].copy_from_slice(&id.to_be_bytes());
        emit(&h, payload);
    }
    true
}

/// An identification that no other packet between the two has for a long time, and that nobody guesses who does not
/// see the packets (RFC 7739): SPI and sequence number, mixed.
fn identification(header: &[u8; IPV6_HEADER], payload: &[u8]) -> u32 {
    let esp = if header[6] == proto::UDP { payload.get(UDP_HEADER..) } else { Some(payload) };
    let Some([a, b, c, d, seq @ ..]) = esp.and_then(<[u8]>::first_chunk::<8>) else { return 0 };
    let spi = u32::from_be_bytes([*a, *b, *c, *d]);
    // Odd, so that one SA's numbers stay apart, and far apart from those of the next SPI.
    u32::from_be_bytes(*seq).wrapping_add(spi.wrapping_mul(0x9e37_79b1))
}

/// A part of what follows the header.
struct Piece<'a> {
    offset: usize,
    payload: &'a [u8],
    more: bool,
}

/// All but the last are as long as fits behind `header` bytes, in whole units of eight.
fn pieces(payload: &[u8], mtu: usize, header: usize) -> impl Iterator<Item = Piece<'_>> {
    let step = (mtu.saturating_sub(header) & !7).max(8);
    let last = payload.len().div_ceil(step).saturating_sub(1);
    payload.chunks(step).enumerate().map(move |(i, payload)| Piece {
        offset: i * step,
        payload,
        more: i < last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Buf, OuterHeader, PerPacket};
    use proptest::prelude::*;

    fn outer(ends: [&str; 2], payload: &[u8], df: bool) -> Buf {
        let [src, dst] = ends.map(|a| a.parse().unwrap());
        let mut buf = Buf::from_packet(payload);
        let packet = PerPacket { tos: 0xb8, df, id: 7, flow_label: 0x12345 };
        OuterHeader::new(src, dst, None).unwrap().push(&mut buf, packet).unwrap();
        buf
    }

    const V4: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
    const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

    fn cut(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
        let mut pieces = Vec::new();
        fragment(packet, mtu, |h, p| pieces.push([h, p].concat())).then_some(pieces)
    }

    #[test]
    fn what_fits_or_must_not_be_cut_is_left_alone() {
        assert_eq!(cut(outer(V4, &[1; 1480], false).bytes(), 1500), None);
        assert_eq!(cut(outer(V4, &[1; 1481], true).bytes(), 1500), None);
        assert_eq!(cut(outer(V6, &[1; 1460], false).bytes(), 1500), None);
        assert_eq!(cut(&[0x30; 2000], 1500), None);
        assert_eq!(cut(&[], 0), None);
    }

    /// Lengths as a kernel's vti6 sends them for an inner packet of 1440 bytes.
    #[test]
    fn an_ipv6_packet_in_two() {
        let mut esp = vec![9; 1476];
        esp[..8].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 5]);
        let pieces = cut(outer(V6, &esp, false).bytes(), 1500).unwrap();
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1496, 76]);
        assert_eq!(pieces[0][..8], [0x6b, 0x81, 0x23, 0x45, 0x05, 0xb0, 44, 64]);
        assert_eq!((&pieces[0][40..44], &pieces[1][40..44]), (&[50, 0, 0, 1][..], &[50, 0, 0x05, 0xa8][..]));
        assert_eq!(pieces[0][44..48], pieces[1][44..48]);
        esp[7] = 6;
        let next = cut(outer(V6, &esp, false).bytes(), 1500).unwrap();
        assert_ne!(pieces[0][44..48], next[0][44..48], "the next packet has another identification");
    }

    proptest! {
        #[test]
        fn fragments_carry_every_byte_once(len in 1usize..4000, mtu in 68usize..1500, v6: bool) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let packet = outer(if v6 { V6 } else { V4 }, &payload, false);
            let header = if v6 { 48 } else { 20 };
            let mut got = Vec::new();
            let mut more = true;
            let cut = fragment(packet.bytes(), mtu, |h, piece| {
                assert!(more && h.len() == header && header + piece.len() <= mtu);
                let (offset, flag) = if v6 {
                    assert_eq!(usize::from(u16::from_be_bytes([h[4], h[5]])), 8 + piece.len());
                    let field = u16::from_be_bytes([h[42], h[43]]);
                    (field & !7, field & 1 != 0)
                } else {
                    assert_eq!(checksum(h), 0);
                    let field = u16::from_be_bytes([h[6], h[7]]);
                    ((field & 0x1fff) * 8, field & 0x2000 != 0)
                };
                assert_eq!(usize::from(offset), got.len());
                more = flag;
                got.extend_from_slice(piece);
            });
            prop_assert_eq!(cut, packet.len() > mtu);
            if cut {
                prop_assert!(!more);
                prop_assert_eq!(got, payload);
            }
        }
    }
}
