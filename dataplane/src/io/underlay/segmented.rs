//! ESP in UDP with many packets a message (`UDP_SEGMENT`).
//!
//! Two things on the wire are not as a kernel VTI writes them: the UDP checksum is there, and under DF the IDs of one
//! message count up. For that reason the user chooses it.

use super::Outgoing;
use super::intake::bypass_policies;
use super::send::{SendSocket, tune};
use crate::io::{Errno, Outcome};
use crate::sys::cmsg::{Control, source_v4};
use crate::sys::mmsg::Pieces;
use crate::sys::sockopt;
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use uvti_core::packet::{IPV4_HEADER, TTL, UDP_HEADER};

/// kernel: include/uapi/linux/udp.h UDP_SEGMENT
const UDP_SEGMENT: i32 = 103;
/// Most packets in a message. kernel: include/linux/udp.h UDP_MAX_SEGMENTS before 6.9
const SEGMENTS: usize = 64;
/// The longest message, bytes: what an IPv4 packet holds besides its headers.
const LONGEST: usize = 65_535 - HEADERS;
const HEADERS: usize = IPV4_HEADER + UDP_HEADER;
/// The IPv4 dummy address (RFC 7600): a socket bound to it receives nothing.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// The sockets to send from, by port, shared by the workers: the one that receives on a port publishes it.
#[derive(Clone, Debug, Default)]
pub struct SendPorts(Arc<ArcSwap<Vec<SendPort>>>);

/// A port, and the socket that sends from it.
type SendPort = (u16, Arc<Socket>);

impl SendPorts {
    /// Opens a socket that sends from `port`, which `receiver` is bound to.
    pub(super) fn open(&self, port: u16, receiver: &Socket) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // A packet gets DF whatever the path's MTU is thought to be; those without go another way. ICMP errors find the
        // receiver, which takes no notice of them.
        sockopt::set(&socket, libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        sockopt::set(&socket, libc::SOL_IP, libc::IP_RECVERR, 1)?;
        socket.set_ttl_v4(TTL.into())?;
        match bypass_policies(&socket, false) {
            Err(Errno::PERM | Errno::NOPROTOOPT | Errno::OPNOTSUPP) | Ok(()) => {}
            Err(errno) => return Err(errno.into()),
        }
        tune(&socket)?;
        // Both agree to share the port for this moment only.
        socket.set_reuse_address(true)?;
        socket.set_freebind_v4(true)?;
        receiver.set_reuse_address(true)?;
        let bound = socket.bind(&SocketAddr::new(NOWHERE.into(), port).into());
        receiver.set_reuse_address(false)?;
        socket.set_reuse_address(false)?;
        bound?;
        let mut ports = Vec::clone(&self.0.load());
        ports.push((port, Arc::new(socket)));
        self.0.store(Arc::new(ports));
        Ok(())
    }

    pub(super) fn close(&self, port: u16) {
        let ports = self.0.load().iter().filter(|(p, _)| *p != port).cloned().collect();
        self.0.store(Arc::new(ports));
    }
}

/// One worker's way to send with `UDP_SEGMENT`.
pub(super) struct Segmented {
    ports: SendPorts,
    /// Those there were when this burst began.
    open: Arc<Vec<SendPort>>,
    /// Sockets in use, with the batch of each.
    sockets: Vec<(u16, SendSocket)>,
    groups: Vec<Message>,
    /// One outcome a group.
    taken: Vec<Outcome>,
    /// Until the kernel refuses it once.
    segments: bool,
}

/// Packets `from..to` of a burst, in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    from: usize,
    to: usize,
}

impl Segmented {
    pub(super) fn new(ports: SendPorts) -> Self {
        let open = ports.0.load_full();
        Self { ports, open, sockets: Vec::new(), groups: Vec::new(), taken: Vec::new(), segments: true }
    }

    /// Looks which ports there are: once a burst.
    pub(super) fn begin(&mut self) {
        let now = self.ports.0.load();
        if !Arc::ptr_eq(&now, &self.open) {
            self.open = Arc::clone(&now);
        }
    }

    /// The port that a packet may be sent from this way: ESP in UDP over IPv4 with DF, whole, from a port of ours.
    pub(super) fn port(&self, packet: &Outgoing) -> Option<u16> {
        let bytes = packet.buf.bytes();
        let head: &[u8; HEADERS] = bytes.first_chunk()?;
        let fits = head[0] == 0x45 && head[9] == 17 && head[6..8] == [0x40, 0] && bytes.len() > HEADERS;
        let port = u16::from_be_bytes([head[20], head[21]]);
        (fits && self.open.iter().any(|(p, _)| *p == port)).then_some(port)
    }

    /// Sends packets for each of which [`port`](Self::port) is `port`, and appends one outcome each.
    pub(super) fn send(&mut self, port: u16, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        let base = outcomes.len();
        self.group(packets);
        let (groups, mut taken) = (std::mem::take(&mut self.groups), std::mem::take(&mut self.taken));
        taken.clear();
        match self.socket(port) {
            Some(socket) => socket
                .send(&groups, &mut taken, |group, control, pieces| prepare(packets, group, control, pieces)),
            // Closed since the packets were sorted.
            None => taken.resize(groups.len(), Outcome::Failed(Errno::NOTCONN)),
        }
        for (group, outcome) in groups.iter().zip(&taken) {
            outcomes.extend((group.from..group.to).map(|_| *outcome));
        }
        self.retry(port, packets, &groups, &mut outcomes[base..]);
        (self.groups, self.taken) = (groups, taken);
    }

    /// A message that was refused as a whole is tried packet by packet: what is wrong may be with one of them, or the
    /// kernel cannot do it.
    fn retry(&mut self, port: u16, packets: &[Outgoing], groups: &[Message], outcomes: &mut [Outcome]) {
        for group in groups.iter().filter(|g| g.to - g.from > 1) {
            let errno = match outcomes[group.from] {
                Outcome::Failed(errno) => errno,
                Outcome::TooBig => Errno::MSGSIZE,
                Outcome::Sent | Outcome::QueueFull => continue,
            };
            let singles: Vec<Message> =
                (group.from..group.to).map(|i| Message { from: i, to: i + 1 }).collect();
            let mut again = Vec::with_capacity(singles.len());
            let Some(socket) = self.socket(port) else { return };
            socket.send(&singles, &mut again, |one, control, pieces| prepare(packets, one, control, pieces));
            if self.segments && again.contains(&Outcome::Sent) {
                tracing::warn!(%errno, "the kernel refuses UDP_SEGMENT: one packet a message from now on");
                self.segments = false;
            }
            outcomes[group.from..group.to].copy_from_slice(&again);
        }
    }

    /// Groups neighbours that go to the same place, with the same TOS and mark, and are as long as the first; the last
    /// may be shorter.
    fn group(&mut self, packets: &[Outgoing]) {
        self.groups.clear();
        let mut at = 0;
        while at < packets.len() {
            let to = at + 1 + if self.segments { followers(&packets[at..]) } else { 0 };
            self.groups.push(Message { from: at, to });
            at = to;
        }
    }

    /// The worker's own batch on the shared socket.
    fn socket(&mut self, port: u16) -> Option<&mut SendSocket> {
        let socket = &self.open.iter().find(|(p, _)| *p == port)?.1;
        let at = match self.sockets.iter().position(|(p, _)| *p == port) {
            // The port was closed and opened again.
            Some(at) if !self.sockets[at].1.is(socket) => {
                self.sockets[at].1 = SendSocket::over(socket.clone());
                at
            }
            Some(at) => at,
            None => {
                self.sockets.push((port, SendSocket::over(socket.clone())));
                self.sockets.len() - 1
            }
        };
        Some(&mut self.sockets[at].1)
    }

    pub(super) fn async_errors(&self) -> u64 {
        self.sockets.iter().map(|(_, s)| s.async_errors).sum()
    }
}

/// How many packets after the first go with it.
fn followers(packets: &[Outgoing]) -> usize {
    let Some((first, rest)) = packets.split_first() else { return 0 };
    let len = first.buf.len();
    let mut total = len - HEADERS;
    let mut shorter = false;
    rest.iter()
        .take(SEGMENTS - 1)
        .take_while(|packet| {
            total += packet.buf.len() - HEADERS;
            let goes = !shorter && packet.buf.len() <= len && total <= LONGEST && is_same_way(first, packet);
            shorter = packet.buf.len() < len;
            goes
        })
        .count()
}

/// Same addresses, ports, TOS, mark and device.
fn is_same_way(a: &Outgoing, b: &Outgoing) -> bool {
    let (p, q) = (a.buf.bytes(), b.buf.bytes());
    (a.mark, a.oif) == (b.mark, b.oif) && p[1] == q[1] && p[12..24] == q[12..24]
}

fn prepare<'p>(
    packets: &'p [Outgoing],
    group: &Message,
    control: &mut Control,
    pieces: &mut Pieces<'_, 'p>,
) -> SocketAddr {
    let packets = &packets[group.from..group.to];
    let head = packets[0].buf.bytes();
    if packets[0].mark != 0 {
        control.push(libc::SOL_SOCKET, libc::SO_MARK, &packets[0].mark.to_ne_bytes());
    }
    let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
    control.push(libc::SOL_IP, libc::IP_PKTINFO, &source_v4(address(12), packets[0].oif));
    control.push(libc::SOL_IP, libc::IP_TOS, &i32::from(head[1]).to_ne_bytes());
    if packets.len() > 1 {
        let size = (head.len() - HEADERS) as u16;
        control.push(libc::SOL_UDP, UDP_SEGMENT, &size.to_ne_bytes());
    }
    packets.iter().for_each(|p| pieces.push(&p.buf.bytes()[HEADERS..]));
    SocketAddr::new(address(16).into(), u16::from_be_bytes([head[22], head[23]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::packet::Buf;

    fn packet(len: usize, tos: u8, dst: u8) -> Outgoing {
        let mut p = vec![0; len];
        (p[0], p[1], p[6], p[9], p[19]) = (0x45, tos, 0x40, 17, dst);
        Outgoing { buf: Buf::from_packet(&p), mark: 0, oif: 0 }
    }

    fn groups(packets: &[Outgoing]) -> Vec<usize> {
        let mut segmented = Segmented::new(SendPorts::default());
        segmented.group(packets);
        segmented.groups.iter().map(|g| g.to - g.from).collect()
    }

    #[test]
    fn a_message_has_packets_of_one_way_and_one_length() {
        let p = packet;
        assert_eq!(groups(&[p(100, 0, 1), p(100, 0, 1), p(99, 0, 1), p(99, 0, 1)]), [3, 1]);
        assert_eq!(groups(&[p(100, 0, 1), p(101, 0, 1), p(101, 0, 1)]), [1, 2]);
        assert_eq!(groups(&[p(100, 0, 1), p(100, 4, 1), p(100, 4, 2)]), [1, 1, 1]);
        assert_eq!(groups(&[p(100, 0, 1), Outgoing { mark: 1, ..p(100, 0, 1) }]), [1, 1]);
        assert_eq!(groups(&[p(100, 0, 1), Outgoing { oif: 1, ..p(100, 0, 1) }]), [1, 1]);
        let many: Vec<_> = (0..65).map(|_| p(100, 0, 1)).collect();
        assert_eq!(groups(&many), [64, 1]);
        let long: Vec<_> = (0..50).map(|_| p(1500, 0, 1)).collect();
        assert_eq!(groups(&long), [44, 6]);
    }
}
