//! The header in front of each packet of a device with `IFF_VNET_HDR`: what is left to be done.
//! kernel: include/uapi/linux/virtio_net.h struct virtio_net_hdr, in the machine's byte order

use uvti_core::packet::Transport;

/// Its length, bytes.
pub(super) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Goes with a TCP type: the first segment has CWR.
const GSO_ECN: u8 = 0x80;

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing.
    Whole,
    /// The sum from `start` on goes to `start + offset`.
    Checksum { start: u16, offset: u16 },
    /// It is a super-packet, with `size` bytes of payload in each packet; the transport's header is at `start`.
    Segments { transport: Transport, size: u16, start: u16 },
    /// A kind of super-packet that nobody asked for.
    Unknown,
}

/// Reads a header that the host wrote. The length of the headers in it is a hint, and not used.
pub(super) fn read(header: [u8; LEN]) -> Task {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let [flags, gso, ..] = header;
    let (size, start, offset) = (word(4), word(6), word(8));
    let segments = |transport| Task::Segments { transport, size, start };
    match gso & !GSO_ECN {
        GSO_NONE if flags & NEEDS_CSUM != 0 => Task::Checksum { start, offset },
        GSO_NONE => Task::Whole,
        GSO_TCPV4 | GSO_TCPV6 => segments(Transport::Tcp),
        GSO_UDP_L4 => segments(Transport::Udp),
        _ => Task::Unknown,
    }
}

/// The header of a super-packet, whose checksum the host completes. `headers` is where the payload starts.
pub(super) fn super_packet(transport: Transport, v6: bool, size: u16, start: u16, headers: u16) -> [u8; LEN] {
    let gso = match (transport, v6) {
        (Transport::Tcp, false) => GSO_TCPV4,
        (Transport::Tcp, true) => GSO_TCPV6,
        (Transport::Udp, _) => GSO_UDP_L4,
    };
    let mut header = [0; LEN];
    header[0] = NEEDS_CSUM;
    header[1] = gso;
    let offset = transport.checksum_at() as u16;
    for (at, value) in [(2, headers), (4, size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (transport, v6) in [(Transport::Tcp, false), (Transport::Tcp, true), (Transport::Udp, true)] {
            let header = super_packet(transport, v6, 1400, 40, 60);
            assert_eq!(read(header), Task::Segments { transport, size: 1400, start: 40 });
        }
    }

    #[test]
    fn only_what_was_asked_for_is_known() {
        assert_eq!(read([0; LEN]), Task::Whole);
        let mut header = super_packet(Transport::Tcp, false, 0, 20, 40);
        header[1] |= GSO_ECN;
        assert_eq!(read(header), Task::Segments { transport: Transport::Tcp, size: 0, start: 20 });
        header[1] = GSO_NONE;
        assert_eq!(read(header), Task::Checksum { start: 20, offset: 16 });
        for gso in [2, 3, 6, 0x7f] {
            header[1] = gso;
            assert_eq!(read(header), Task::Unknown, "{gso}");
        }
    }
}
