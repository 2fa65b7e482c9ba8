//! Faults on purpose: what a lab changes to see a counter move.
//!
//! A fault changes a table, a packet, the host's answers, the clock or a socket. It has no access to the counters
//! (that is what [`Tables`] is for: all that a fault may ask of the engine), so that what it makes them show is what
//! they would show of a real one. [`Hooks`] are put around the host and the underlays before the engine starts, and
//! only where faults are allowed: without them nothing of this is on a packet's way.

mod fault;
mod host;
mod sa;
#[cfg(test)]
mod tests;

pub use fault::{Fault, InjectError, Injected};

use crate::engine::{Engine, Host};
use crate::io::Underlay;
use crate::io::underlay::fault::{Damage, FaultyUnderlay, PacketFault};
use crossbeam_channel::{Sender, unbounded};
use host::{FaultyHost, RouteFault, Routes, Tunnel};
use sa::SaFault;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uvti_core::tables::{Op, Refusal, Snapshot};
use uvti_core::xfrm::{Limits, Mode, Sa, Spi};

/// What a fault may ask of the engine.
pub trait Tables: Send + Sync {
    /// The tables as they are.
    fn tables(&self) -> Arc<Snapshot>;
    /// Applies a transaction.
    fn apply(&self, ops: &[Op]) -> Result<(), Refusal>;
    /// Asks the host for all outer routes again.
    fn refresh(&self);
    /// Sets the clock so many seconds ahead of the host's.
    fn set_clock_ahead(&self, seconds: u64);
}

impl Tables for Engine {
    fn tables(&self) -> Arc<Snapshot> {
        Engine::tables(self)
    }

    fn apply(&self, ops: &[Op]) -> Result<(), Refusal> {
        Engine::apply(self, ops).map_err(|(_, refusal)| refusal)
    }

    fn refresh(&self) {
        Engine::refresh(self);
    }

    fn set_clock_ahead(&self, seconds: u64) {
        Engine::set_clock_ahead(self, seconds);
    }
}

/// Where faults take hold, put in place before the engine starts.
#[derive(Default)]
pub struct Hooks {
    commands: Vec<Sender<Arc<PacketFault>>>,
    routes: Routes,
}

impl Hooks {
    /// An underlay whose packets faults can meet.
    pub fn underlay(&mut self, inner: Box<dyn Underlay>) -> Box<dyn Underlay> {
        let (sender, commands) = unbounded();
        self.commands.push(sender);
        Box::new(FaultyUnderlay::new(inner, commands))
    }

    /// A host whose routes faults can change.
    pub fn host(&self, inner: Box<dyn Host>) -> Box<dyn Host> {
        Box::new(FaultyHost::new(inner, self.routes.clone()))
    }

    /// The injector of the engine that was started with these.
    pub fn injector(self, tables: Arc<dyn Tables>) -> Injector {
        Injector { tables, commands: self.commands, routes: self.routes, active: Mutex::default() }
    }
}

/// Injects faults, and takes them back.
pub struct Injector {
    tables: Arc<dyn Tables>,
    commands: Vec<Sender<Arc<PacketFault>>>,
    routes: Routes,
    active: Mutex<Active>,
}

/// The faults in force.
#[derive(Default)]
struct Active {
    last: u32,
    faults: Vec<Entry>,
    ahead: u64,
}

struct Entry {
    number: u32,
    fault: Fault,
    hold: Hold,
}

/// By what a fault is taken back.
enum Hold {
    Packets(Arc<PacketFault>),
    States(Vec<SaFault>),
    Route,
    Clock(u64),
}

impl Injector {
    /// Injects `fault`; returns it with its number.
    pub fn inject(&self, fault: Fault) -> Result<Injected, InjectError> {
        let mut active = self.lock();
        let number = active.last + 1;
        let hold = self.begin(number, &fault, &mut active)?;
        active.last = number;
        let entry = Entry { number, fault, hold };
        let shown = entry.shown();
        tracing::warn!(number, "fault injected: {}: {}", shown.fault, shown.effect);
        active.faults.push(entry);
        Ok(shown)
    }

    /// The faults that are not over.
    pub fn list(&self) -> Vec<Injected> {
        let mut active = self.lock();
        active.faults.retain(|entry| !entry.over());
        active.faults.iter().map(Entry::shown).collect()
    }

    /// Takes one fault back, or all; the newest first. Returns what was done.
    pub fn clear(&self, number: Option<u32>) -> Result<Vec<String>, InjectError> {
        let mut active = self.lock();
        let (chosen, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut active.faults)
            .into_iter()
            .partition(|entry| number.is_none_or(|n| n == entry.number));
        active.faults = kept;
        if let (Some(number), true) = (number, chosen.is_empty()) {
            return Err(InjectError::NoSuchFault(number));
        }
        let done = chosen.into_iter().rev().map(|entry| self.end(entry, &mut active)).collect();
        Ok(done)
    }

    fn begin(&self, number: u32, fault: &Fault, active: &mut Active) -> Result<Hold, InjectError> {
        let packets = |damage, n: &u64, spi: &Option<Spi>| self.arm(PacketFault::new(damage, *spi, *n));
        Ok(match fault {
            Fault::Icv { n, spi } => packets(Damage::Icv, n, spi),
            Fault::OldSequence { n, spi } => packets(Damage::OldSequence, n, spi),
            Fault::Duplicate { n, spi } => packets(Damage::Duplicate, n, spi),
            Fault::Truncate { n, spi, bytes } => packets(Damage::Truncate(*bytes), n, spi),
            Fault::FullQueue { n } => packets(Damage::QueueFull, n, &None),
            Fault::DropSa { dst, spi } => self.with_states(*dst, *spi, SaFault::remove)?,
            Fault::WrongMode { dst, spi } => {
                let transport = |sa| SaFault::replace(sa, |spec| spec.mode = Mode::Transport);
                self.with_states(*dst, *spi, transport)?
            }
            Fault::Expire { dst, spi } => {
                let limits = |l: &Limits| Limits { hard_packets: 0, ..*l };
                let expire = |sa| SaFault::update(sa, |spec| spec.limits = limits(&spec.limits));
                self.with_states(*dst, *spi, expire)?
            }
            Fault::LoopRoute { .. } | Fault::NoRoute { .. } | Fault::SmallMtu { .. } => {
                let tunnels = self.tunnels(fault.device())?;
                self.change_routes(|routes| routes.extend(RouteFault::of(number, fault, tunnels)));
                Hold::Route
            }
            Fault::Clock { seconds } => {
                active.ahead = active.ahead.saturating_add(*seconds);
                self.tables.set_clock_ahead(active.ahead);
                Hold::Clock(*seconds)
            }
        })
    }

    fn arm(&self, fault: PacketFault) -> Hold {
        let fault = Arc::new(fault);
        for worker in &self.commands {
            // A worker that is gone carries no packets.
            let _ = worker.send(fault.clone());
        }
        Hold::Packets(fault)
    }

    /// Does the same to each SA with this destination and SPI, whatever its mark.
    fn with_states(
        &self,
        dst: IpAddr,
        spi: Spi,
        change: impl Fn(Arc<Sa>) -> SaFault,
    ) -> Result<Hold, InjectError> {
        let tables = self.tables.tables();
        let named = |sa: &&Arc<Sa>| (sa.spec.dst, sa.spec.spi) == (dst, spi) && sa.run.alive();
        let mut faults: Vec<SaFault> = tables.states.iter().filter(named).cloned().map(&change).collect();
        if faults.is_empty() {
            return Err(InjectError::NoSa { dst, spi });
        }
        let ops: Vec<Op> = faults.iter().flat_map(SaFault::begin).collect();
        self.tables.apply(&ops)?;
        let tables = self.tables.tables();
        faults.iter_mut().for_each(|fault| fault.note(&tables));
        Ok(Hold::States(faults))
    }

    /// The tunnels there are now: all, or that of one device.
    fn tunnels(&self, device: Option<&str>) -> Result<Vec<Tunnel>, InjectError> {
        let tables = self.tables.tables();
        let wanted = tables.devices.iter().filter(|d| device.is_none_or(|name| d.spec.name == name));
        let tunnels: Vec<Tunnel> = wanted.map(|d| Tunnel::of(d)).collect();
        match tunnels.is_empty() {
            true => Err(InjectError::NoDevice(device.map(str::to_owned))),
            false => Ok(tunnels),
        }
    }

    fn change_routes(&self, change: impl FnOnce(&mut Vec<RouteFault>)) {
        change(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner));
        self.tables.refresh();
    }

    fn end(&self, entry: Entry, active: &mut Active) -> String {
        let Entry { number, fault, hold } = entry;
        let done = match hold {
            Hold::Packets(packets) => match packets.cancel() {
                0 => "it had met all its packets".to_owned(),
                spared => format!("{spared} packets are spared"),
            },
            Hold::States(states) => {
                let done: Vec<String> = states.iter().map(|state| self.restore(state)).collect();
                done.join(", ")
            }
            Hold::Route => {
                self.change_routes(|routes| routes.retain(|r| r.number != number));
                "the host's routes hold again".to_owned()
            }
            Hold::Clock(seconds) => {
                active.ahead = active.ahead.saturating_sub(seconds);
                self.tables.set_clock_ahead(active.ahead);
                format!("the clock is {seconds} s back; what has expired stays expired")
            }
        };
        tracing::warn!(number, "fault cleared: {fault}: {done}");
        format!("{number} {fault}: {done}")
    }

    fn restore(&self, state: &SaFault) -> String {
        let ops = state.end(&self.tables.tables());
        if ops.is_empty() {
            return format!("{state} was changed since, and is left alone");
        }
        match self.tables.apply(&ops) {
            Ok(()) => format!("{state} is back"),
            Err(refusal) => format!("{state} cannot be put back: {refusal}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether there is nothing left of it to be taken back.
    fn over(&self) -> bool {
        matches!(&self.hold, Hold::Packets(packets) if packets.left() == 0)
    }

    fn shown(&self) -> Injected {
        let effect = match &self.hold {
            Hold::Packets(packets) => format!("the next {} packets", packets.left()),
            Hold::States(states) => {
                let states: Vec<String> = states.iter().map(ToString::to_string).collect();
                states.join(", ")
            }
            Hold::Route => "until cleared".to_owned(),
            Hold::Clock(seconds) => format!("the clock is {seconds} s ahead"),
        };
        Injected { number: self.number, fault: self.fault.clone(), effect }
    }
}
