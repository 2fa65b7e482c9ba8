//! Devices in memory, for tests and benches: queues shared with whoever drives them, and failures on demand.

use super::{Burst, Outcome, Pool, TunQueue, Underlay};
use crate::io::tun::{FromHost, Kind};
use crate::io::underlay::{Losses, Outgoing, Received, UdpPort};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uvti_core::packet::{Buf, Incoming, Outer};

/// What a device and its driver share. `Arrival` goes to the dataplane, `Departure` comes from it.
struct Shared<A, D> {
    queues: Mutex<Queues<A, D>>,
    /// Readable while arrivals wait.
    signal: OwnedFd,
}

struct Queues<A, D> {
    arrivals: VecDeque<A>,
    departures: Vec<D>,
    /// Outcomes of the next sends; [`Outcome::Sent`] when there is none.
    script: VecDeque<Outcome>,
}

impl<A, D> Shared<A, D> {
    fn new() -> io::Result<Arc<Self>> {
        let queues = Queues { arrivals: VecDeque::new(), departures: Vec::new(), script: VecDeque::new() };
        let signal = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { queues: Mutex::new(queues), signal }))
    }

    /// The queues are whole between any two statements, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Queues<A, D>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, arrival: A) {
        self.lock().arrivals.push_back(arrival);
        // Cannot fail: EAGAIN needs 2^64 arrivals.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }

    /// Moves up to `max` arrivals to `accept`, which has them in buffers of the pool.
    fn recv(&self, pool: &mut Pool, max: usize, mut accept: impl FnMut(Buf, A)) -> Burst {
        let mut queues = self.lock();
        let mut burst = Burst::default();
        while burst.received < max && !queues.arrivals.is_empty() {
            let Some(buf) = pool.take() else {
                burst.starved = true;
                break;
            };
            if let Some(arrival) = queues.arrivals.pop_front() {
                accept(buf, arrival);
                burst.received += 1;
            }
        }
        if queues.arrivals.is_empty() {
            // EAGAIN if nothing was signalled since the last time.
            let _ = rustix::io::read(&self.signal, &mut [0u8; 8]);
        }
        burst
    }

    fn send(&self, departures: impl Iterator<Item = D>, outcomes: &mut Vec<Outcome>) {
        let mut queues = self.lock();
        for departure in departures {
            let outcome = queues.script.pop_front().unwrap_or(Outcome::Sent);
            if outcome == Outcome::Sent {
                queues.departures.push(departure);
            }
            outcomes.push(outcome);
        }
    }
}

/// A TUN device in memory. A clone is another handle of the same device: one for the dataplane, one to drive it.
#[derive(Clone)]
pub struct MemoryTun(Arc<Shared<HostPacket, Vec<u8>>>);

/// A packet that the host sends into the device.
type HostPacket = (Vec<u8>, Kind);

impl MemoryTun {
    /// An empty device.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Shared::new()?))
    }

    /// The host sends a packet into the device.
    pub fn host_sends(&self, packet: &[u8]) {
        self.host_sends_as(packet, Kind::Packet);
    }

    /// The host sends a super-packet or one that is too long for us.
    pub fn host_sends_as(&self, packet: &[u8], kind: Kind) {
        self.0.arrive((packet.to_vec(), kind));
    }

    /// What the dataplane gave to the host since the last call.
    pub fn host_receives(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().departures)
    }

    /// The outcomes of the next sends, a packet each; later ones succeed.
    pub fn script(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.0.lock().script.extend(outcomes);
    }
}

impl TunQueue for MemoryTun {
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        Ok(self.0.recv(pool, max, |mut buf, (packet, kind)| {
            let cut = buf.fill(&packet) < packet.len();
            into.push(FromHost { buf, kind: if cut { Kind::Truncated } else { kind } });
        }))
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        self.0.send(packets.iter().map(|packet| packet.bytes().to_vec()), outcomes);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }
}

/// A packet that the dataplane sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// From the outer IP header on.
    pub packet: Vec<u8>,
    /// As in [`Outgoing`].
    pub mark: u32,
    /// As in [`Outgoing`].
    pub oif: u32,
}

/// A packet that arrives from the network.
enum Arrival {
    Packet(Outer, Vec<u8>),
    PlainIpip(Outer, Vec<u8>),
    Damaged(Option<IpAddr>, super::underlay::Fault, Vec<u8>),
}

/// A network in memory. A clone is another handle of the same one.
#[derive(Clone)]
pub struct MemoryUnderlay(Arc<Shared<Arrival, SentPacket>>);

impl MemoryUnderlay {
    /// An empty network.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Shared::new()?))
    }

    /// A packet arrives: `payload` is what follows the outer header.
    pub fn arrive(&self, outer: Outer, payload: &[u8]) {
        self.0.arrive(Arrival::Packet(outer, payload.to_vec()));
    }

    /// A plain IP-in-IP packet arrives.
    pub fn arrive_ipip(&self, outer: Outer, payload: &[u8]) {
        self.0.arrive(Arrival::PlainIpip(outer, payload.to_vec()));
    }

    /// A packet arrives that cannot be used.
    pub fn arrive_damaged(&self, from: Option<IpAddr>, fault: super::underlay::Fault, bytes: &[u8]) {
        self.0.arrive(Arrival::Damaged(from, fault, bytes.to_vec()));
    }

    /// What the dataplane sent since the last call.
    pub fn sent(&self) -> Vec<SentPacket> {
        std::mem::take(&mut self.0.lock().departures)
    }

    /// The outcomes of the next sends, a packet each; later ones succeed.
    pub fn script(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.0.lock().script.extend(outcomes);
    }
}

impl Underlay for MemoryUnderlay {
    fn recv_burst(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        use super::underlay::Fault;
        Ok(self.0.recv(pool, max, |mut buf, arrival| {
            into.push(match arrival {
                Arrival::Packet(outer, payload) if buf.fill(&payload) == payload.len() => {
                    Received::Packet(Incoming { buf, outer })
                }
                Arrival::PlainIpip(outer, payload) => {
                    buf.fill(&payload);
                    Received::PlainIpip(Incoming { buf, outer })
                }
                Arrival::Packet(outer, _) => {
                    Received::Damaged { buf, from: Some(outer.src), fault: Fault::Truncated }
                }
                Arrival::Damaged(from, fault, bytes) => {
                    buf.fill(&bytes);
                    Received::Damaged { buf, from, fault }
                }
            });
        }))
    }

    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        let sent = |p: &Outgoing| SentPacket { packet: p.buf.bytes().to_vec(), mark: p.mark, oif: p.oif };
        self.0.send(packets.iter().map(sent), outcomes);
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.0.signal.as_fd()]
    }

    fn set_udp_ports(&mut self, _ports: &[UdpPort]) -> Vec<(UdpPort, io::Error)> {
        Vec::new()
    }

    fn losses(&self) -> Losses {
        Losses::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(fd: BorrowedFd<'_>) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn tun_moves_bursts_and_fails_on_demand() {
        let driver = MemoryTun::new().unwrap();
        let mut device = driver.clone();
        let mut pool = Pool::with_capacity(2, 10);
        assert!(!readable(device.fd()));
        driver.host_sends(b"one");
        driver.host_sends(b"longer than ten");
        driver.host_sends(b"three");
        assert!(readable(device.fd()));
        let mut got = Vec::new();
        let burst = device.recv_burst(&mut got, &mut pool, 64).unwrap();
        assert_eq!(burst, Burst { received: 2, starved: true });
        assert_eq!((got[0].buf.bytes(), got[0].kind), (&b"one"[..], Kind::Packet));
        assert_eq!(got[1].kind, Kind::Truncated);
        assert!(readable(device.fd()), "one is left");
        got.drain(..).for_each(|item| pool.put(item.buf));
        assert_eq!(device.recv_burst(&mut got, &mut pool, 64).unwrap().received, 1);
        assert!(!readable(device.fd()));

        driver.script([Outcome::Sent, Outcome::QueueFull]);
        let mut packets = [Buf::from_packet(b"a"), Buf::from_packet(b"b"), Buf::from_packet(b"c")];
        let mut outcomes = Vec::new();
        device.send_burst(&mut packets, &mut outcomes);
        assert_eq!(outcomes, [Outcome::Sent, Outcome::QueueFull, Outcome::Sent]);
        assert_eq!(driver.host_receives(), [b"a", b"c"]);
    }
}
