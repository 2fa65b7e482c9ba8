//! Bounded queues of packets in memory, as a device and as a cable.

use super::arrivals::Arrivals;
use super::clock::{Clock, Wall};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uvti_core::packet::{Buf, Incoming, Outer};
use uvti_dataplane::io::tun::{FromHost, Kind};
use uvti_dataplane::io::underlay::{Fault, Losses, Outgoing, Received, UdpPort};
use uvti_dataplane::io::{Burst, Outcome, Pool, TunQueue, Underlay};

/// IPv4 header without options, as the outer one is.
const HEADER: usize = 20;
/// IP and UDP headers of inner packets.
const INNER: usize = 28;

/// A queue; what finds it full is counted.
pub(super) struct Pipe {
    queue: Mutex<Queue>,
    capacity: usize,
    /// Readable while packets wait.
    signal: OwnedFd,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Vec<u8>>,
    /// Memory of packets that are gone.
    spare: Vec<Vec<u8>>,
    overflow: u64,
}

impl Pipe {
    /// For so many packets.
    pub(super) fn new(capacity: usize) -> io::Result<Arc<Self>> {
        let signal = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { queue: Mutex::default(), capacity, signal }))
    }

    /// Packets that found no room.
    pub(super) fn overflow(&self) -> u64 {
        self.lock().overflow
    }

    /// Appends packets as far as there is room.
    pub(super) fn push<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) {
        let mut queue = self.lock();
        for packet in packets {
            if queue.packets.len() == self.capacity {
                queue.overflow += 1;
                continue;
            }
            let mut memory = queue.spare.pop().unwrap_or_default();
            memory.clear();
            memory.extend_from_slice(packet);
            queue.packets.push_back(memory);
        }
        // Cannot fail: EAGAIN needs 2^64 bursts.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }

    /// Moves up to `max` packets to `accept`, with a buffer of the pool each.
    fn take(&self, pool: &mut Pool, max: usize, mut accept: impl FnMut(Buf, &[u8])) -> Burst {
        let mut queue = self.lock();
        let mut burst = Burst::default();
        while burst.received < max && !queue.packets.is_empty() {
            let Some(buf) = pool.take() else {
                burst.starved = true;
                break;
            };
            if let Some(packet) = queue.packets.pop_front() {
                accept(buf, &packet);
                queue.spare.push(packet);
                burst.received += 1;
            }
        }
        if queue.packets.is_empty() {
            // EAGAIN if nothing was signalled since the last time.
            let _ = rustix::io::read(&self.signal, &mut [0u8; 8]);
        }
        burst
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device: what the host sends waits in a queue, what it receives is noted.
#[derive(Clone)]
pub(super) struct PipeTun {
    pub(super) queue: Arc<Pipe>,
    pub(super) arrivals: Arrivals,
    pub(super) clock: Wall,
}

impl TunQueue for PipeTun {
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        Ok(self.queue.take(pool, max, |mut buf, packet| {
            let cut = buf.fill(packet) < packet.len();
            into.push(FromHost { buf, kind: if cut { Kind::Truncated } else { Kind::Packet } });
        }))
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        let payload = |packet: &Buf| packet.bytes().len().min(INNER);
        self.arrivals.note(packets.iter().map(|p| &p.bytes()[payload(p)..]), self.clock.now());
        outcomes.extend(packets.iter().map(|_| Outcome::Sent));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.signal.as_fd()
    }
}

/// One end of a cable, for ESP over IPv4.
pub(super) struct PipeUnderlay {
    pub(super) from: Arc<Pipe>,
    pub(super) to: Arc<Pipe>,
}

impl Underlay for PipeUnderlay {
    fn recv_burst(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        Ok(self.from.take(pool, max, |mut buf, packet| into.push(received(&mut buf, packet))))
    }

    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        self.to.push(packets.iter().map(|p| p.buf.bytes()));
        outcomes.extend(packets.iter().map(|_| Outcome::Sent));
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.from.signal.as_fd()]
    }

    fn set_udp_ports(&mut self, _: &[UdpPort]) -> Vec<(UdpPort, io::Error)> {
        Vec::new()
    }

    fn losses(&self) -> Losses {
        Losses { receive_overflow: self.from.overflow(), ..Losses::default() }
    }
}

fn received(buf: &mut Buf, packet: &[u8]) -> Received {
    let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let (Some(src), Some(dst), Some(esp)) = (address(12), address(16), packet.get(HEADER..)) else {
        return Received::Damaged { buf: std::mem::take(buf), from: None, fault: Fault::Header };
    };
    let whole = buf.fill(esp) == esp.len();
    let buf = std::mem::take(buf);
    match whole {
        true => Received::Packet(Incoming { buf, outer: Outer { src, dst, tos: packet[1], udp: None } }),
        false => Received::Damaged { buf, from: Some(src), fault: Fault::Truncated },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_comes_in_order() {
        let pipe = Pipe::new(2).unwrap();
        pipe.push([&b"one"[..], b"two", b"three"]);
        let mut pool = Pool::with_capacity(4, 10);
        let mut got = Vec::new();
        let burst = pipe.take(&mut pool, 8, |_, packet| got.push(packet.to_vec()));
        assert_eq!((burst.received, pipe.overflow()), (2, 1));
        assert_eq!(got, [b"one", b"two"]);
    }

    #[test]
    fn what_is_no_outer_packet_is_damaged() {
        let short = received(&mut Buf::with_capacity(64), &[0x45; 19]);
        assert!(matches!(short, Received::Damaged { fault: Fault::Header, .. }));
        let long = received(&mut Buf::with_capacity(8), &[0x45; 40]);
        assert!(matches!(long, Received::Damaged { fault: Fault::Truncated, .. }));
    }
}
