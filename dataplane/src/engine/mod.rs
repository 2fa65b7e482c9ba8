//! The engine: starts and stops workers, applies changes, answers questions. All that control talks to.

mod apply;
mod check;
mod host;
mod system;
mod upkeep;

#[cfg(test)]
mod tests;

pub use check::{Identity, Place};
pub use host::{Created, Host, HostDevice, LinkState};
pub use system::{Backend, SystemHost};

use crate::account::{Cells, Collector, Flip, Stuck};
use crate::io::Underlay;
use crate::worker::tamper::Tamper;
use crate::worker::{Bell, Event, Message, Parts, Worker, doors};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use uvti_core::device::{DeviceId, LinkInfo};
use uvti_core::tables::Snapshot;

/// ICMP errors and expiries that may wait for the upkeep thread.
const EVENTS: usize = 1024;

/// How the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Worker threads, at least 1.
    pub workers: u16,
    /// Whether a clean stop leaves the devices in place.
    pub keep_devices: bool,
}

/// A running dataplane.
pub struct Engine {
    config: Config,
    tables: Arc<ArcSwap<Snapshot>>,
    workers: Vec<Handle>,
    state: Mutex<State>,
    stopping: AtomicBool,
    events: Receiver<Event>,
}

/// How to reach a worker.
struct Handle {
    messages: Sender<Message>,
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn tell(&self, message: Message) {
        // A worker that is gone has nothing to be told.
        let _ = self.messages.send(message);
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
    udp_ports: BTreeSet<u16>,
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
        let workers = underlays.len();
        let tables = Arc::new(ArcSwap::from_pointee(Snapshot::new(workers as u16)));
        let flips: Vec<_> = (0..workers).map(|_| Arc::new(Flip::default())).collect();
        let bells = (0..workers).map(|_| Bell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
        let (doors, inboxes) = doors(&bells);
        let mut collector = Collector::new(flips.clone());
        let nowhere = collector.add_device(DeviceId::NONE);
        let (event_sender, events) = bounded(EVENTS);
        let mut handles = Vec::new();
        for (i, (underlay, inbox)) in underlays.into_iter().zip(inboxes).enumerate() {
            let (messages, messages_in) = unbounded();
            let worker = Worker::new(Parts {
                id: i as u16,
                tables: tables.clone(),
                flip: flips[i].clone(),
                bell: bells[i].clone(),
                inbox,
                doors: doors.clone(),
                messages: messages_in,
                events: event_sender.clone(),
                underlay,
                nowhere: nowhere.clone(),
                tamper: tamper(),
            })?;
            let thread = std::thread::Builder::new().name(format!("uvti-{i}")).spawn(move || worker.run())?;
            handles.push(Handle { messages, bell: bells[i].clone(), thread: Mutex::new(Some(thread)) });
        }
        let state = State {
            host,
            devices: BTreeMap::new(),
            names: BTreeMap::new(),
            collector,
            next_device: 1,
            udp_ports: BTreeSet::new(),
        };
        Ok(Arc::new(Self {
            config,
            tables,
            workers: handles,
            state: Mutex::new(state),
            stopping: AtomicBool::new(false),
            events,
        }))
    }

    /// The tables as they are now.
    pub fn tables(&self) -> Arc<Snapshot> {
        self.tables.load_full()
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
                    stats: cells.link_stats(d.spec.kind == uvti_core::device::LinkKind::Vti6),
                })
            })
            .collect())
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
