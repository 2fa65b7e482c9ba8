//! The worker: one thread that carries bursts between devices and the network.
//!
//! Worker *i* reads the devices and sockets given to it and runs a burst to completion where it is the home of the
//! SA; other packets hop once, before they get a sequence number. It never blocks but when there is nothing to do.

mod bell;
mod hold;
mod hop;
mod inbound;
mod outbound;
mod poll;
pub mod tamper;
mod told;

pub(crate) use bell::Bell;
pub(crate) use hop::{CAPACITY as HOP_CAPACITY, Door, Inbox, doors};

use crate::account::{Account, Books, Count, DeviceCounters, Dropped, Flip, Gauges};
use crate::host::pathfinder::Pathfinder;
use crate::io::tun::FromHost;
use crate::io::underlay::{Outgoing, Received, UdpPort};
use crate::io::{Outcome, Pool, TunQueue, Underlay};
use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use foldhash::fast::RandomState;
use hop::Hop;
use poll::{Poll, Token};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tamper::Tamper;
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, Outer};
use uvti_core::reason::{Reason, Way};
use uvti_core::tables::{Acquire, Snapshot};
use uvti_core::vti::{Drop, Receiver as Opener, RxSlot, Transmitter, TxSlot, icmp};
use uvti_core::xfrm::Sa;

/// Packets a burst.
pub(crate) const BURST: usize = 64;
/// Buffers a worker has: bursts in both directions, and what may be out with other workers.
const BUFFERS: usize = BURST * (4 + 2 * HOP_CAPACITY);

/// What the engine tells a worker.
pub(crate) enum Message {
    /// A device to serve.
    AddPort {
        /// Its number.
        id: DeviceId,
        /// This worker's queue of it.
        queue: Box<dyn TunQueue>,
        /// Its counters.
        counters: Arc<DeviceCounters>,
        /// Whether this worker reads from it; all may write.
        reads: bool,
    },
    /// A device that is gone.
    RemovePort(DeviceId),
    /// UDP ports to receive on; answered by those that could not be bound.
    UdpPorts(Vec<UdpPort>, Sender<Vec<(UdpPort, io::Error)>>),
    /// Seconds by which the clock is ahead of the host's.
    ClockAhead(u64),
    /// End the thread.
    Stop,
}

/// What a worker tells the engine.
#[derive(Debug)]
pub(crate) enum Event {
    /// An ICMP error to be sent.
    Icmp(icmp::Message),
    /// An SA has reached a hard limit.
    Expired(Arc<Sa>),
    /// A packet wanted an SA that is not there.
    Acquire(Acquire),
}

/// A device, as a worker has it.
struct Port {
    queue: Box<dyn TunQueue>,
    counters: Arc<DeviceCounters>,
    reads: bool,
}

/// Everything a worker is made of.
pub(crate) struct Parts<T, A> {
    pub(crate) id: u16,
    pub(crate) tables: Arc<ArcSwap<Snapshot>>,
    pub(crate) flip: Arc<Flip>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) inbox: Inbox,
    pub(crate) doors: Vec<Door>,
    pub(crate) messages: Receiver<Message>,
    pub(crate) events: Sender<Event>,
    pub(crate) underlay: Box<dyn Underlay>,
    pub(crate) pathfinder: Box<dyn Pathfinder>,
    pub(crate) nowhere: Arc<DeviceCounters>,
    pub(crate) tamper: T,
    pub(crate) account: A,
    pub(crate) gauges: Arc<Gauges>,
}

pub(crate) struct Worker<T, A> {
    id: u16,
    tables: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    flip: Arc<Flip>,
    books: Books,
    bell: Arc<Bell>,
    inbox: Inbox,
    doors: Vec<Door>,
    messages: Receiver<Message>,
    events: Sender<Event>,
    underlay: Box<dyn Underlay>,
    pathfinder: Box<dyn Pathfinder>,
    ports: HashMap<DeviceId, Port, RandomState>,
    /// Counters of packets that met no device.
    nowhere: Arc<DeviceCounters>,
    pool: Pool,
    poll: Poll,
    tamper: T,
    account: A,
    gauges: Arc<Gauges>,
    transmitter: Transmitter,
    opener: Opener,
    told: told::Told,
    scratch: Scratch,
    /// Packets that other workers had no room for: nothing more is read until they have gone.
    pending: Vec<Pending>,
    /// Seconds by which the clock is ahead of the host's.
    ahead: u64,
    /// Packets that wait for an SA, and whether such ones are under way.
    hold: hold::Hold,
    releasing: bool,
    stop: bool,
}

/// A message that waits for room in another worker's queue.
struct Pending {
    target: usize,
    way: Way,
    id: DeviceId,
    hop: Hop,
}

/// Vectors that are filled and emptied every burst.
#[derive(Default)]
struct Scratch {
    from_host: Vec<FromHost>,
    received: Vec<Received>,
    tx: Vec<TxSlot>,
    rx: Vec<RxSlot>,
    outgoing: Vec<Outgoing>,
    sent: Vec<outbound::Sent>,
    outcomes: Vec<Outcome>,
    delivered: Vec<Buf>,
    deliveries: Vec<inbound::Delivery>,
    /// Buffers that are done with.
    spent: Vec<Buf>,
    /// Packets for each other worker.
    hops: Vec<Vec<Buf>>,
    hop_outers: Vec<Vec<Outer>>,
}

impl<T: Tamper, A: Account> Worker<T, A> {
    pub(crate) fn new(parts: Parts<T, A>) -> io::Result<Self> {
        let workers = parts.doors.len();
        let scratch = Scratch {
            hops: (0..workers).map(|_| Vec::with_capacity(BURST)).collect(),
            hop_outers: (0..workers).map(|_| Vec::with_capacity(BURST)).collect(),
            ..Scratch::default()
        };
        let mut worker = Self {
            id: parts.id,
            tables: Cache::new(parts.tables),
            flip: parts.flip,
            books: Books { worker: parts.id.into(), bank: 0 },
            bell: parts.bell,
            inbox: parts.inbox,
            doors: parts.doors,
            messages: parts.messages,
            events: parts.events,
            underlay: parts.underlay,
            pathfinder: parts.pathfinder,
            ports: HashMap::default(),
            nowhere: parts.nowhere,
            pool: Pool::new(BUFFERS),
            poll: Poll::new()?,
            tamper: parts.tamper,
            account: parts.account,
            gauges: parts.gauges,
            transmitter: Transmitter::default(),
            opener: Opener::default(),
            told: told::Told::default(),
            scratch,
            pending: Vec::new(),
            ahead: 0,
            hold: hold::Hold::default(),
            releasing: false,
            stop: false,
        };
        worker.watch()?;
        Ok(worker)
    }

    /// Runs until it is told to stop.
    #[expect(clippy::boxed_local, reason = "on the thread's stack its loop is up to a tenth slower")]
    pub(crate) fn run(mut self: Box<Self>) {
        let mut busy = true;
        while !self.stop {
            self.turn_the_page();
            busy |= self.obey();
            let tables = self.tables.load();
            self.transmitter.follow(tables);
            self.opener.follow(tables);
            let now = seconds().saturating_add(self.ahead);
            busy |= self.take_hops(now);
            busy |= self.send_pending();
            busy |= self.look_at_held(now);
            if self.wait(busy).is_err() {
                // Only a broken descriptor could: serve what can be served.
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            busy = false;
            if !self.pending.is_empty() {
                // What is not read waits in the device's queue and the socket's buffer.
                continue;
            }
            for i in 0..self.poll.ready() {
                busy = true;
                match self.poll.token(i) {
                    Token::Bell => {}
                    Token::Underlay => self.receive(now),
                    Token::Device(id) => self.transmit(id, now),
                }
            }
        }
        // What other workers still send finds the channel closed and is counted there.
        self.turn_the_page();
    }

    /// Flips the banks if the collector wants it; what is held at this moment is counted by walking it.
    fn turn_the_page(&mut self) {
        let Some(bank) = self.flip.asked() else { return };
        for p in &self.pending {
            self.books.count(self.counters(p.id), p.way, Count::Held, p.hop.bufs.len() as u64);
        }
        for (id, n) in self.hold.waiting() {
            self.books.count(self.counters(id), Way::Tx, Count::Held, n);
        }
        self.account.turn_page();
        self.gauges.note(self.underlay.losses());
        self.gauges.held_now.set(self.pending.len() as u64);
        self.flip.open(bank);
        self.books.bank = bank;
    }

    /// Looks what is ready; sleeps until something is, if there was nothing to do.
    fn wait(&mut self, busy: bool) -> io::Result<()> {
        if busy {
            return self.poll.look();
        }
        self.bell.lie_down();
        let waiting = !self.inbox.is_empty() || !self.messages.is_empty() || self.flip.asked().is_some();
        let result = match waiting {
            true => self.poll.look(),
            // The other worker rings when it gives buffers back: it then has room.
            false if !self.pending.is_empty() => self.poll.nap(&self.bell),
            false => self.poll.sleep(self.hold_due()),
        };
        self.bell.get_up();
        result
    }

    /// What the engine wants.
    fn obey(&mut self) -> bool {
        let mut some = false;
        while let Ok(message) = self.messages.try_recv() {
            some = true;
            match message {
                Message::AddPort { id, queue, counters, reads } => {
                    self.ports.insert(id, Port { queue, counters, reads });
                }
                Message::RemovePort(id) => {
                    self.forget_held(id);
                    self.ports.remove(&id);
                }
                Message::UdpPorts(ports, answer) => {
                    let failed = self.underlay.set_udp_ports(&ports);
                    let _ = answer.send(failed);
                }
                Message::ClockAhead(seconds) => self.ahead = seconds,
                Message::Stop => self.stop = true,
            }
        }
        if some && let Err(error) = self.watch() {
            tracing::error!(worker = self.id, %error, "cannot watch a device or socket");
        }
        some
    }

    fn watch(&mut self) -> io::Result<()> {
        let devices = self.ports.iter().filter(|(_, p)| p.reads).map(|(id, p)| (*id, p.queue.fd()));
        let underlay = self.underlay.fds();
        self.poll.watch(&self.bell, &underlay, devices)
    }

    /// Bursts that other workers sent here, and buffers that come back.
    fn take_hops(&mut self, now: u64) -> bool {
        while let Ok(bufs) = self.inbox.returns.try_recv() {
            bufs.into_iter().for_each(|b| self.pool.put(b));
        }
        let mut some = false;
        // Bounded, so that own devices and the flip have their turn.
        for _ in 0..HOP_CAPACITY {
            let Some(hop) = self.inbox.next_hop() else { break };
            some = true;
            self.take_hop(hop, now);
        }
        some
    }

    fn take_hop(&mut self, hop: Hop, now: u64) {
        let Hop { from, load, mut bufs } = hop;
        let n = bufs.len();
        match load {
            hop::Load::Tx(id) => self.transmit_hopped(id, &mut bufs, now),
            hop::Load::Held(id) => {
                self.releasing = true;
                self.transmit_hopped(id, &mut bufs, now);
                self.releasing = false;
            }
            hop::Load::Rx(outers) => self.receive_hopped(&mut bufs, outers, now),
        }
        // As many buffers go back as came; the rest were fragments', of our own pool.
        let spent = &mut self.scratch.spent;
        bufs.extend(spent.drain(..n.min(spent.len())));
        spent.drain(..).for_each(|b| self.pool.put(b));
        let from = usize::from(from);
        let Some(door) = self.doors.get(from) else { return };
        match door.returns.try_send(bufs) {
            Ok(()) => {
                self.gauges.returns[from].high.raise(door.returns.len() as u64);
                door.bell.ring();
            }
            Err(_) => self.gauges.returns[from].drops.add(1),
        }
    }

    fn counters(&self, id: DeviceId) -> &DeviceCounters {
        self.ports.get(&id).map_or(&*self.nowhere, |p| &p.counters)
    }

    fn recycle(&mut self) {
        let Scratch { spent, .. } = &mut self.scratch;
        spent.drain(..).for_each(|b| self.pool.put(b));
    }

    /// Where every dropped packet ends: counts it, tells the account, and the engine of an SA that is used up.
    fn dropped(&mut self, dropped: &Dropped<'_>) {
        let Dropped { device, drop, packets, .. } = *dropped;
        // A device that is gone is none in the books, hence in the accounts, which must add up to them.
        let (device, counters) = match self.ports.get(&device) {
            Some(port) => (device, &port.counters),
            None => (DeviceId::NONE, &self.nowhere),
        };
        self.books.drop(counters, drop.reason, packets);
        self.account.dropped(&Dropped { device, ..*dropped });
        if let (Reason::TxSaExpired | Reason::TxUnmarkedSaExpired | Reason::RxSaExpired, Some(sa)) =
            (drop.reason, &drop.sa)
        {
            // If the queue is full the SA stays dead all the same.
            self.report(Event::Expired(sa.clone()));
        }
    }

    /// Hands something to the upkeep thread, if there is room.
    fn report(&self, event: Event) {
        report(&self.events, &self.gauges, event);
    }

    /// Drops one packet, and keeps its buffer.
    fn refuse(&mut self, id: DeviceId, buf: Buf, drop: &Drop, outer: Option<&Outer>) {
        self.dropped(&Dropped { device: id, drop, packet: buf.bytes(), packets: 1, outer });
        self.scratch.spent.push(buf);
    }

    /// Sends the packets gathered for other workers on their way.
    fn send_hops(&mut self, way: Way, id: DeviceId) {
        for target in 0..self.doors.len() {
            if self.scratch.hops[target].is_empty() {
                continue;
            }
            let mut bufs = std::mem::replace(&mut self.scratch.hops[target], Vec::with_capacity(BURST));
            let outers = std::mem::take(&mut self.scratch.hop_outers[target]);
            let n = bufs.len() as u64;
            self.tamper.hopping(&mut bufs);
            let load = match way {
                Way::Tx if self.releasing => hop::Load::Held(id),
                Way::Tx => hop::Load::Tx(id),
                Way::Rx => hop::Load::Rx(outers),
            };
            let hop = Hop { from: self.id, load, bufs };
            let message = Pending { target, way, id, hop };
            match self.pending.iter().any(|p| p.target == target) {
                true => self.hold(message),
                false => _ = self.send_hop(message, n),
            }
        }
    }

    /// Keeps a message for later.
    fn hold(&mut self, p: Pending) {
        self.pending.push(p);
        self.gauges.held.high.raise(self.pending.len() as u64);
    }

    /// Sends a message of `n` counted packets, or keeps it until there is room.
    fn send_hop(&mut self, mut p: Pending, n: u64) -> bool {
        let door = &self.doors[p.target];
        match door.hops.try_send(p.hop) {
            Ok(()) => {
                self.gauges.hops[p.target].high.raise(door.hops.len() as u64);
                door.bell.ring();
                self.books.count(self.counters(p.id), p.way, Count::HopOut, n);
                true
            }
            Err(TrySendError::Full(hop)) => {
                p.hop = hop;
                self.hold(p);
                false
            }
            Err(TrySendError::Disconnected(hop)) => {
                let reason = match hop.load {
                    hop::Load::Tx(_) => Reason::TxWorkerGone,
                    hop::Load::Held(_) => Reason::TxHeldUnsent,
                    hop::Load::Rx(_) => Reason::RxWorkerGone,
                };
                self.gauges.hops[p.target].drops.add(1);
                let (device, drop) = (p.id, reason.into());
                for (i, buf) in hop.bufs.iter().enumerate() {
                    let outer = hop.load.outer(i);
                    self.dropped(&Dropped { device, drop: &drop, packet: buf.bytes(), packets: 1, outer });
                }
                self.scratch.spent.extend(hop.bufs);
                true
            }
        }
    }

    /// Tries again what waited, in order; whether some of it went.
    fn send_pending(&mut self) -> bool {
        let mut some = false;
        for p in std::mem::take(&mut self.pending) {
            let n = p.hop.bufs.len() as u64;
            // Behind one that waits for the same worker, or order would be lost.
            if self.pending.iter().any(|q| q.target == p.target) {
                self.pending.push(p);
            } else {
                some |= self.send_hop(p, n);
            }
        }
        self.recycle();
        if some {
            self.account.burst_done();
        }
        some
    }
}

fn report(events: &Sender<Event>, gauges: &Gauges, event: Event) {
    match events.try_send(event) {
        Ok(()) => gauges.events.high.raise(events.len() as u64),
        Err(_) => gauges.events.drops.add(1),
    }
}

/// Seconds since the Unix epoch; once a round, not once a packet.
pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
