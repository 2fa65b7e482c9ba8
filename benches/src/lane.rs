//! The real worker's loop between a device that always has packets and a network that takes them all.
//!
//! The time is the CPU time of the worker's thread, from its first read to the one that finds nothing, without the reading
//! itself: what else runs on the machine does not count, and what a system call would cost neither.

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uvti_core::device::LinkSpec;
use uvti_core::packet::Buf;
use uvti_core::packet::tos::EcnRule;
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::{Op, Refusal};
use uvti_core::vti::icmp;
use uvti_core::vti::testing::{BELOW, Lab, VTI};
use uvti_dataplane::account::{Account, FlightRecorder, Shelf};
use uvti_dataplane::engine::{Config, Created, Engine, Host, HostDevice, LinkState};
use uvti_dataplane::io::tun::{FromHost, Kind};
use uvti_dataplane::io::underlay::{Losses, Outgoing, Received, UdpPort};
use uvti_dataplane::io::{Burst, Outcome, Pool, TunQueue, Underlay};
use uvti_dataplane::worker::tamper::Honest;

/// One worker, and what it is fed.
pub struct Lane {
    engine: Arc<Engine>,
    load: Arc<Load>,
    times: Receiver<Duration>,
}

impl Lane {
    /// A worker of the lab's tables with this account.
    ///
    /// # Panics
    /// If the engine refuses.
    pub fn new<A: Account>(lab: &Lab, account: A, shelves: Vec<Arc<Shelf>>, flight: FlightRecorder) -> Self {
        let (done, times) = channel();
        let signal = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd");
        let load = Arc::new(Load { queue: Mutex::default(), signal, done, clock: clock_cost() });
        let host = Box::new(Bench { load: load.clone() });
        let config = Config {
            workers: 1,
            keep_devices: false,
            attribution_rows: 16384,
            record: 16,
            unmarked: uvti_core::tables::Unmarked::Host,
            ecn: EcnRule::Kernel,
        };
        let network = vec![Box::new(Sink) as Box<dyn Underlay>];
        let engine = Engine::start_with(config, host, network, || Honest, vec![account], shelves, flight)
            .expect("a worker");
        let mut ops = vec![Op::LinkAdd(lab.devices[0].spec.clone())];
        ops.extend(lab.states.iter().map(|s| Op::StateAdd(Box::new(s.clone()))));
        ops.extend(lab.policies.iter().map(|p| Op::PolicyAdd(Box::new(p.clone()))));
        engine.apply(&ops).expect("the lab's tables");
        Self { engine, load, times }
    }

    /// CPU time of carrying `n` packets, taken from `packets` in turn.
    ///
    /// # Panics
    /// If the worker ends.
    pub fn carry(&self, packets: &Arc<[Vec<u8>]>, n: usize) -> Duration {
        *self.load.lock() = Queue { packets: packets.clone(), next: 0, left: n, ..Queue::default() };
        rustix::io::write(&self.load.signal, &1u64.to_ne_bytes()).expect("a signal");
        self.times.recv().expect("the worker's time")
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// What the worker is to read.
struct Load {
    queue: Mutex<Queue>,
    signal: OwnedFd,
    done: Sender<Duration>,
    /// What looking at the clock costs.
    clock: Duration,
}

#[derive(Default)]
struct Queue {
    packets: Arc<[Vec<u8>]>,
    next: usize,
    left: usize,
    begun: Option<Duration>,
    /// Spent on filling buffers, which a system call does in reality.
    reading: Duration,
}

impl Load {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The least time between two looks at the clock.
fn clock_cost() -> Duration {
    let look = |_| {
        let before = cpu_time();
        cpu_time() - before
    };
    (0..1000).map(look).min().unwrap_or_default()
}

struct Device(Arc<Load>);

impl TunQueue for Device {
    fn recv_burst(&mut self, into: &mut Vec<FromHost>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        let mut queue = self.0.lock();
        let begun = *queue.begun.get_or_insert_with(cpu_time);
        if queue.left == 0 {
            let mut count = [0; 8];
            rustix::io::read(&self.0.signal, &mut count)?;
            self.0.done.send(cpu_time() - begun - queue.reading).map_err(io::Error::other)?;
            return Ok(Burst::default());
        }
        let started = cpu_time();
        let mut received = 0;
        while received < max.min(queue.left) {
            let mut buf = pool.take().ok_or(io::ErrorKind::OutOfMemory)?;
            buf.fill(&queue.packets[queue.next]);
            queue.next = (queue.next + 1) % queue.packets.len();
            into.push(FromHost { buf, kind: Kind::Packet });
            received += 1;
        }
        queue.left -= received;
        queue.reading += cpu_time() - started + self.0.clock;
        Ok(Burst { received, starved: false })
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        outcomes.extend(packets.iter().map(|_| Outcome::Sent));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }
}

/// Takes everything, has nothing.
struct Sink;

impl Underlay for Sink {
    fn recv_burst(&mut self, _: &mut Vec<Received>, _: &mut Pool, _: usize) -> io::Result<Burst> {
        Ok(Burst::default())
    }

    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        outcomes.extend(packets.iter().map(|_| Outcome::Sent));
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn set_udp_ports(&mut self, _: &[UdpPort]) -> Vec<(UdpPort, io::Error)> {
        Vec::new()
    }

    fn losses(&self) -> Losses {
        Losses::default()
    }
}

struct Bench {
    load: Arc<Load>,
}

struct Nothing;

impl HostDevice for Nothing {
    fn remove(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Host for Bench {
    fn create(&mut self, _: &LinkSpec, _: u32, _: usize) -> Result<Created, Refusal> {
        let queues = vec![Box::new(Device(self.load.clone())) as Box<dyn TunQueue>];
        Ok(Created { ifindex: VTI, queues, reader: Some(0), device: Box::new(Nothing) })
    }

    fn link(&mut self, _: u32) -> Option<LinkState> {
        Some(LinkState { name: "vti0".into(), up: true, mtu: 1480, txqlen: 1000 })
    }

    fn set_mtu(&mut self, _: u32, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    fn route(&mut self, _: RouteKey) -> (Answer, bool) {
        (Some(Route { ifindex: BELOW, mtu: 1500 }), false)
    }

    fn send_icmp(&mut self, _: &icmp::Message) -> io::Result<()> {
        Ok(())
    }

    fn random(&mut self) -> u64 {
        0x5eed_5eed_5eed_5eed
    }
}
