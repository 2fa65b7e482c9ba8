//! Finishing what a host with offloads leaves to its device: checksums, and super-packets to be cut.
//!
//! The packet and what is said about it come from outside: nothing of it is believed.

use super::checksum::{Sum, checksum};
use super::transport::{Layout, Transport, be16, be32, flag};
use super::{Buf, IPV4_HEADER};

/// What the host says about a packet does not fit the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit;

/// Completes a checksum: the sum from `start` on goes to `start + offset`, where the pseudo header's stands already.
///
/// A checksum of 0 is written as 0xffff, whatever the protocol. kernel: net/core/dev.c skb_checksum_help()
pub fn finish_checksum(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Misfit> {
    let part = packet.get_mut(start..).ok_or(Misfit)?;
    let mut sum = Sum::default();
    sum.add(part);
    let field = part.get_mut(offset..).and_then(|p| p.first_chunk_mut()).ok_or(Misfit)?;
    *field = mangle(sum.checksum()).to_be_bytes();
    Ok(())
}

/// 0 means "no checksum" (RFC 768).
fn mangle(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// A super-packet, seen as the packets that it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    layout: Layout,
    size: usize,
    count: usize,
}

impl<'a> Segments<'a> {
    /// Cuts `packet` into pieces of `size` bytes of payload each, but the last. `start` is where the host says that the
    /// checksum of the transport begins.
    pub fn new(packet: &'a [u8], transport: Transport, size: u16, start: usize) -> Result<Self, Misfit> {
        let layout = Layout::read(packet).ok_or(Misfit)?;
        if layout.transport != transport || layout.header != start || size == 0 {
            return Err(Misfit);
        }
        let size = usize::from(size);
        let count = (packet.len() - layout.payload).div_ceil(size).max(1);
        Ok(Self { packet, layout, size, count })
    }

    /// How many packets it stands for: at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes packet number `i` into `to`; whether it is one of them, and fits.
    ///
    /// kernel: net/ipv4/tcp_offload.c tcp_gso_segment(), net/ipv4/udp_offload.c __udp_gso_segment(), net/ipv4/af_inet.c
    /// inet_gso_segment(): IDs count up, PSH and FIN are the last one's, CWR the first one's
    pub fn write(&self, i: usize, to: &mut Buf) -> bool {
        let Layout { v6, transport, header, payload } = self.layout;
        let from = payload + i * self.size;
        let Some(part) = self.packet.get(from..self.packet.len().min(from + self.size)) else { return false };
        let len = payload + part.len();
        let Some(out) = to.space_mut().get_mut(..len) else { return false };
        let (head, body) = out.split_at_mut(payload);
        head.copy_from_slice(&self.packet[..payload]);
        if v6 {
            put16(head, 4, (len - 40) as u16);
        } else {
            ipv4_header(head, header, len, i);
        }
        match transport {
            Transport::Tcp => self.tcp_header(&mut head[header..], i),
            Transport::Udp => put16(head, header + 4, (len - header) as u16),
        }
        put16(head, self.layout.checksum_at(), 0);
        let mut sum = self.layout.pseudo(head, len - header);
        sum.add(&head[header..]);
        sum.copy(body, part);
        let sum = match transport {
            Transport::Tcp => sum.checksum(),
            Transport::Udp => mangle(sum.checksum()),
        };
        put16(head, self.layout.checksum_at(), sum);
        to.set_len(len);
        true
    }

    fn tcp_header(&self, tcp: &mut [u8], i: usize) {
        let seq = be32(tcp, 4).unwrap_or(0).wrapping_add((i * self.size) as u32);
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        if i > 0 {
            tcp[13] &= !flag::CWR;
        }
        if i + 1 < self.count {
            tcp[13] &= !(flag::FIN | flag::PSH);
        }
    }
}

fn ipv4_header(packet: &mut [u8], header: usize, len: usize, i: usize) {
    let id = be16(packet, 4).unwrap_or(0).wrapping_add(i as u16);
    put16(packet, 2, len as u16);
    put16(packet, 4, id);
    put16(packet, 10, 0);
    let sum = checksum(&packet[..header.max(IPV4_HEADER)]);
    put16(packet, 10, sum);
}

pub(super) fn put16(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::testing::{tcp4, tcp6, udp4, udp6, with_checksum};
    use super::*;
    use proptest::prelude::*;

    const ACK: u8 = flag::ACK;

    fn cut(packet: &[u8], transport: Transport, size: u16) -> Vec<Vec<u8>> {
        let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let segments = Segments::new(packet, transport, size, start).unwrap();
        let mut buf = Buf::with_capacity(65_536);
        (0..segments.count())
            .map(|i| segments.write(i, &mut buf).then(|| buf.bytes().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn tcp_is_cut_as_the_kernel_cuts_it() {
        let payload: Vec<u8> = (0..25).collect();
        let flags = flag::CWR | flag::PSH | flag::FIN | ACK;
        let (packet4, packet6) = (tcp4(0xffff_fff8, flags, &payload), tcp6(0xffff_fff8, flags, &payload));
        let expect = [
            (0xffff_fff8, flag::CWR | ACK, 0..10),
            (2, ACK, 10..20),
            (12, flag::PSH | flag::FIN | ACK, 20..25),
        ];
        let four: Vec<_> =
            expect.iter().map(|(seq, flags, r)| tcp4(*seq, *flags, &payload[r.clone()])).collect();
        let ids = |i: u16, mut p: Vec<u8>| {
            let id = be16(&p, 4).unwrap().wrapping_add(i);
            put16(&mut p, 4, id);
            with_checksum(p)
        };
        let four: Vec<_> = four.into_iter().enumerate().map(|(i, p)| ids(i as u16, p)).collect();
        assert_eq!(cut(&packet4, Transport::Tcp, 10), four);
        let six: Vec<_> =
            expect.iter().map(|(seq, flags, r)| tcp6(*seq, *flags, &payload[r.clone()])).collect();
        assert_eq!(cut(&packet6, Transport::Tcp, 10), six);
    }

    #[test]
    fn datagrams_are_cut_into_datagrams() {
        let six = cut(&udp6("2001:db8::1", "2001:db8::2", 1, 2, 48 + 25), Transport::Udp, 10);
        let expect = [10, 10, 5].map(|n| with_checksum(udp6("2001:db8::1", "2001:db8::2", 1, 2, 48 + n)));
        assert_eq!(six, expect);
        let four = cut(&udp4("10.1.0.1", "10.2.0.1", 1, 2, 28 + 20), Transport::Udp, 10);
        assert_eq!(
            four.iter().map(|p| (p.len(), be16(p, 4).unwrap())).collect::<Vec<_>>(),
            [(38, 0), (38, 1)]
        );
    }

    #[test]
    fn what_fits_one_packet_is_one() {
        let packet = tcp4(7, ACK, b"0123456789");
        assert_eq!(cut(&packet, Transport::Tcp, 10), std::slice::from_ref(&packet));
        let bare = tcp4(7, ACK, b"");
        assert_eq!(cut(&bare, Transport::Tcp, 10), std::slice::from_ref(&bare));
    }

    #[test]
    fn lies_are_refused() {
        let good = tcp4(7, ACK, &[1; 100]);
        let refused =
            |packet: &[u8], transport, size, start| Segments::new(packet, transport, size, start).is_err();
        assert!(refused(&good, Transport::Tcp, 0, 20), "no size");
        assert!(refused(&good, Transport::Udp, 10, 20), "not UDP");
        assert!(refused(&good, Transport::Tcp, 10, 24), "the checksum starts elsewhere");
        assert!(refused(&good[..119], Transport::Tcp, 10, 20), "cut");
        let with = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            packet
        };
        assert!(!refused(&with(32, 0xf0), Transport::Tcp, 10, 20), "options of 40 bytes fit");
        assert!(refused(&with(32, 0x40), Transport::Tcp, 10, 20), "a TCP header of 16 bytes");
        assert!(refused(&tcp4(7, ACK, b"")[..39], Transport::Tcp, 10, 20), "no whole TCP header");
        assert!(refused(&with(6, 0x20), Transport::Tcp, 10, 20), "a fragment");
        assert!(refused(&with(0, 0x44), Transport::Tcp, 10, 16), "an IPv4 header of 16 bytes");
    }

    #[test]
    fn checksums_are_completed_in_bounds() {
        let want = with_checksum(udp4("10.1.0.1", "10.2.0.1", 1, 2, 60));
        let mut packet = want.clone();
        let layout = Layout::read(&packet).unwrap();
        let pseudo = layout.pseudo(&packet, 40).fold();
        put16(&mut packet, 26, pseudo);
        finish_checksum(&mut packet, 20, 6).unwrap();
        assert_eq!(packet, want);
        assert_eq!(finish_checksum(&mut packet, 61, 0), Err(Misfit));
        assert_eq!(finish_checksum(&mut packet, 20, 39), Err(Misfit));
        assert_eq!(finish_checksum(&mut packet, 60, 0), Err(Misfit));
    }

    proptest! {
        #[test]
        fn nothing_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u16>(),
            first in prop::sample::select(vec![0x45u8, 0x46, 0x60, 0x40]), udp in any::<bool>(),
            start in 0usize..300, offset in 0usize..300,
        ) {
            if bytes.len() > 20 {
                bytes[0] = first;
                let at = if first == 0x60 { 6 } else { 9 };
                bytes[at] = if udp { proto_of(Transport::Udp) } else { proto_of(Transport::Tcp) };
                let len = bytes.len() as u16;
                if first == 0x60 { put16(&mut bytes, 4, len.saturating_sub(40)) } else { put16(&mut bytes, 2, len) };
            }
            let _ = finish_checksum(&mut bytes.clone(), start, offset);
            let mut buf = Buf::with_capacity(100);
            for transport in [Transport::Tcp, Transport::Udp] {
                for start in [start, 20, 24, 40] {
                    if let Ok(s) = Segments::new(&bytes, transport, size, start) {
                        (0..=s.count()).for_each(|i| _ = s.write(i, &mut buf));
                    }
                }
            }
        }
    }

    fn proto_of(transport: Transport) -> u8 {
        transport.proto()
    }
}
