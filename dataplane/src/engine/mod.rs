//! The engine: starts and stops workers, applies changes, answers questions. All that control talks to.

mod apply;
mod changes;
mod check;
mod host;
mod monitor;
mod pmtu;
mod queues;
mod sysctl;
mod system;
mod upkeep;

#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod rekey_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use changes::note;
pub use check::{Identity, Place};
pub use host::{Created, DeviceLosses, Host, HostDevice, LinkState};
pub use monitor::{Change, Monitor, Monitors, Notice, Topics};
pub use queues::Queue;
pub use sysctl::SysctlError;
pub use system::{Backend, SystemHost};

use crate::account::{
    Account, AttributedRow, Attribution, Cells, Collector, FlightRecorder, Flip, Gauge, Gauges, Row, Shelf,
    Stuck,
};
use crate::io::Underlay;
use crate::io::underlay::UdpPort;
use crate::journal::Journal;
use crate::worker::tamper::Tamper;
use crate::worker::{Bell, Door, Event, Message, Parts, Worker, doors};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use uvti_core::device::{DeviceId, LinkInfo};
use uvti_core::packet::tos::EcnRule;
use uvti_core::tables::{Snapshot, Unmarked};

/// ICMP errors and expiries that may wait for the upkeep thread.
const EVENTS: usize = 1024;

/// How the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Worker threads, at least 1.
    pub workers: u16,
    /// Whether a clean stop leaves the devices in place.
    pub keep_devices: bool,
    /// Rows of SAs and policies that drops are attributed to, a worker and in all.
    pub attribution_rows: usize,
    /// Dropped packets to record of each reason and worker; 0 for none.
    pub record: usize,
    /// Where output policies that match without a mark apply.
    pub unmarked: Unmarked,
    /// How congestion passes between inner and outer headers.
    pub ecn: EcnRule,
}

/// A running dataplane.
pub struct Engine {
    config: Config,
    tables: Arc<ArcSwap<Snapshot>>,
    workers: Vec<Handle>,
    state: Mutex<State>,
    stopping: AtomicBool,
    /// Seconds by which our clock is ahead of the host's; 0 unless a fault was injected.
    ahead: AtomicU64,
    events: Receiver<Event>,
    flight: FlightRecorder,
    /// Locked behind `state`, never before it.
    journal: OnceLock<Mutex<Journal>>,
}

/// How to reach a worker.
struct Handle {
    messages: Sender<Message>,
    /// The most messages that waited at once.
    waiting: Gauge,
    bell: Arc<Bell>,
    /// For looking at its queues.
    door: Door,
    gauges: Arc<Gauges>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn tell(&self, message: Message) {
        // A worker that is gone has nothing to be told.
        let _ = self.messages.send(message);
        self.waiting.raise(self.messages.len() as u64);
        self.bell.ring();
    }
}

/// What changes under the lock.
struct State {
    host: Box<dyn Host>,
    devices: BTreeMap<DeviceId, Box<dyn HostDevice>>,
    /// Names of devices, also of deleted ones: their counters stay.
    names: BTreeMap<DeviceId, String>,
    collector: Collector,
    next_device: u32,
    udp_ports: BTreeSet<UdpPort>,
    monitors: monitor::Monitors,
    /// Sysctls that the host lacks.
    held: sysctl::Held,
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread, eventfd or epoll instance could not be had.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

impl Engine {
    /// Starts the workers. Worker *i* sends and receives by `underlays[i]`; `tamper` makes each worker's planted fault,
    /// which is [`Honest`](crate::worker::tamper::Honest) but in tests.
    pub fn start<T: Tamper>(
        config: Config,
        host: Box<dyn Host>,
        underlays: Vec<Box<dyn Underlay>>,
        tamper: impl Fn() -> T,
    ) -> Result<Arc<Self>, StartError> {
        let flight = FlightRecorder::new(underlays.len(), config.record);
        let ledgers = flight.ledgers(|| Attribution::new(config.attribution_rows));
        let shelves = ledgers.iter().map(|l| l.attribution.shelf()).collect();
        Self::start_with(config, host, underlays, tamper, ledgers, shelves, flight)
    }

    /// Starts the workers with an account each; benches do without any.
    #[doc(hidden)]
    pub fn start_with<T: Tamper, A: Account>(
        config: Config,
        host: Box<dyn Host>,
        underlays: Vec<Box<dyn Underlay>>,
        tamper: impl Fn() -> T,
        accounts: Vec<A>,
        shelves: Vec<Arc<Shelf>>,
        flight: FlightRecorder,
    ) -> Result<Arc<Self>, StartError> {
        let workers = underlays.len();
        let mut tables = Snapshot::new(workers as u16);
        tables.settings.unmarked = config.unmarked;
        tables.settings.ecn = config.ecn;
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        let flips: Vec<_> = (0..workers).map(|_| Arc::new(Flip::default())).collect();
        let bells = (0..workers).map(|_| Bell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
        let (doors, inboxes) = doors(&bells);
        let mut collector = Collector::new(flips.clone(), shelves, config.attribution_rows);
        let nowhere = collector.add_device(DeviceId::NONE);
        let (event_sender, events) = bounded(EVENTS);
        let (mut host, mut handles) = (host, Vec::new());
        for (i, ((underlay, inbox), account)) in underlays.into_iter().zip(inboxes).zip(accounts).enumerate()
        {
            let (messages, messages_in) = unbounded();
            let gauges = Arc::new(Gauges::new(workers));
            let worker = Box::new(Worker::new(Parts {
                id: i as u16,
                tables: tables.clone(),
                flip: flips[i].clone(),
                bell: bells[i].clone(),
                inbox,
                doors: doors.clone(),
                messages: messages_in,
                events: event_sender.clone(),
                underlay,
                pathfinder: host.pathfinder()?,
                nowhere: nowhere.clone(),
                tamper: tamper(),
                account,
                gauges: gauges.clone(),
            })?);
            let thread = std::thread::Builder::new().name(format!("uvti-{i}")).spawn(move || worker.run())?;
            handles.push(Handle {
                messages,
                waiting: Gauge::default(),
                bell: bells[i].clone(),
                door: doors[i].clone(),
                gauges,
                thread: Mutex::new(Some(thread)),
            });
        }
        let state = State {
            host,
            devices: BTreeMap::new(),
            names: BTreeMap::new(),
            collector,
            next_device: 1,
            udp_ports: BTreeSet::new(),
            monitors: monitor::Monitors::default(),
            held: sysctl::Held::default(),
        };
        let engine = Self {
            config,
            tables,
            workers: handles,
            state: Mutex::new(state),
            stopping: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
            events,
            flight,
            journal: OnceLock::new(),
        };
        engine.refresh();
        Ok(Arc::new(engine))
    }

    /// Keeps account of sequence numbers in `journal` from now on, for the SAs to come. A second one is not taken.
    pub fn keep_journal(&self, journal: Journal) {
        let _ = self.journal.set(Mutex::new(journal));
    }

    /// The tables as they are now.
    pub fn tables(&self) -> Arc<Snapshot> {
        self.tables.load_full()
    }

    /// What was recorded of dropped packets.
    pub fn flight(&self) -> &FlightRecorder {
        &self.flight
    }

    /// The names of all devices, of deleted ones too.
    pub fn device_names(&self) -> BTreeMap<DeviceId, String> {
        self.lock().names.clone()
    }

    /// Exact totals of everything, and of each device with its name; those of deleted devices too.
    pub fn totals(&self) -> Result<Totals, Stuck> {
        let mut state = self.lock();
        state.collector.collect(|w| self.workers[w].bell.ring())?;
        let devices = self
            .tables
            .load()
            .devices
            .iter()
            .map(|d| (d.id, d.spec.name.clone(), state.collector.device(d.id)))
            .collect();
        Ok(Totals { all: state.collector.all(), nowhere: state.collector.device(DeviceId::NONE), devices })
    }

    /// Drops of each device on each worker, and the same by SA and policy. Names of deleted devices stay.
    pub fn drops(&self) -> Result<Drops, Stuck> {
        let mut state = self.lock();
        state.collector.collect(|w| self.workers[w].bell.ring())?;
        Ok(Drops {
            rows: state.collector.rows(),
            attributed: state.collector.attributed(),
            names: state.names.clone(),
        })
    }

    /// Devices with their counters.
    pub fn links(&self) -> Result<Vec<LinkInfo>, Stuck> {
        let totals = self.totals()?;
        let tables = self.tables.load();
        Ok(totals
            .devices
            .iter()
            .filter_map(|(id, _, cells)| {
                let d = tables.devices.get(*id)?;
                Some(LinkInfo {
                    spec: d.spec.clone(),
                    ifindex: d.ifindex,
                    up: d.up,
                    mtu: d.mtu,
                    txqlen: d.txqlen,
                    stats: cells.link_stats(Some(d.spec.kind)),
                })
            })
            .collect())
    }

    /// Sets our clock, by which SAs age, so many seconds ahead of the host's.
    pub fn set_clock_ahead(&self, seconds: u64) {
        self.ahead.store(seconds, Ordering::Relaxed);
        self.workers.iter().for_each(|w| w.tell(Message::ClockAhead(seconds)));
    }

    /// Seconds since the Unix epoch, by our clock.
    fn now(&self) -> u64 {
        crate::worker::seconds().saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Ends the workers, and removes the devices unless they are to be kept. Calling it again does nothing.
    pub fn stop(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        self.workers.iter().for_each(|w| w.tell(Message::Stop));
        for worker in &self.workers {
            let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|t| t.join().is_err()) {
                tracing::error!("a worker ended by a panic");
            }
        }
        if let Some(mut journal) = self.journal() {
            journal.close();
        }
        let devices = std::mem::take(&mut self.lock().devices);
        for (id, device) in devices {
            if !self.config.keep_devices
                && let Err(error) = device.remove()
            {
                tracing::error!(device = id.0, %error, "cannot remove the device");
            }
        }
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn journal(&self) -> Option<MutexGuard<'_, Journal>> {
        Some(self.journal.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is under the lock is changed by whole steps; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Totals at one moment.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Everything, deleted devices included.
    pub all: Cells,
    /// Packets that met no device.
    pub nowhere: Cells,
    /// By device.
    pub devices: Vec<(DeviceId, String, Cells)>,
}

/// All drops at one moment. For each device and reason both tables add up to the same.
#[derive(Clone, Debug)]
pub struct Drops {
    /// By device and worker.
    pub rows: Vec<Row>,
    /// By SA and policy.
    pub attributed: Vec<AttributedRow>,
    /// Names of devices, also of deleted ones.
    pub names: BTreeMap<DeviceId, String>,
}
