//! A path in memory: two engines of one worker, with queues for their devices and the cable between them.

use super::arrivals::{Arrivals, Latency, mark};
use super::clock::{Clock, Wall};
use super::pipe::{Pipe, PipeTun, PipeUnderlay};
use super::trial::{Losses, Path};
use crate::demo::packets::inner;
use crate::demo::stage::{A, B};
use crate::ip::batch;
use crate::service::Running;
use anyhow::{Result, anyhow, bail};
use std::io;
use std::sync::Arc;
use uvti_core::device::LinkSpec;
use uvti_core::packet::tos::EcnRule;
use uvti_core::reason::Reason;
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::{Op, Refusal, Unmarked};
use uvti_core::vti::icmp;
use uvti_dataplane::account::{DEFAULT_RECORDS, DEFAULT_ROWS};
use uvti_dataplane::engine::{Config, Created, DeviceLosses, Engine, Host, HostDevice, LinkState};
use uvti_dataplane::io::Underlay;
use uvti_dataplane::worker::tamper::Honest;

/// Packets that a device's queue holds, as a TUN's.
const DEVICE_QUEUE: usize = 1000;
/// Packets that the receiving end of the cable holds.
const CABLE: usize = 4096;
/// IP and UDP headers.
const HEADERS: usize = 28;

/// From one engine's device to the other's.
pub(super) struct Memory {
    near: Arc<Engine>,
    far: Arc<Engine>,
    /// Into the near device.
    entry: Arc<Pipe>,
    arrivals: Arrivals,
    packet: Vec<u8>,
    trial: u32,
}

impl Memory {
    /// The two batches are the configurations of the near and the far engine.
    pub(super) fn new(batches: [&str; 2], clock: Wall) -> Result<Self> {
        let arrivals = Arrivals::new()?;
        let (there, back) = (Pipe::new(CABLE)?, Pipe::new(CABLE)?);
        let entries = [Pipe::new(DEVICE_QUEUE)?, Pipe::new(DEVICE_QUEUE)?];
        let near = PipeUnderlay { from: back.clone(), to: there.clone() };
        let far = PipeUnderlay { from: there, to: back };
        let start = |batch, entry: &Arc<Pipe>, underlay| {
            let tun = PipeTun { queue: entry.clone(), arrivals: arrivals.clone(), clock };
            engine(batch, Lab { tun }, Box::new(underlay))
        };
        Ok(Self {
            near: start(batches[0], &entries[0], near)?,
            far: start(batches[1], &entries[1], far)?,
            entry: entries[0].clone(),
            arrivals,
            packet: Vec::new(),
            trial: 0,
        })
    }
}

fn engine(batch: &str, host: Lab, underlay: Box<dyn Underlay>) -> Result<Arc<Engine>> {
    let (attribution_rows, record) = (DEFAULT_ROWS, DEFAULT_RECORDS);
    let config = Config {
        workers: 1,
        keep_devices: false,
        attribution_rows,
        record,
        unmarked: Unmarked::default(),
        ecn: EcnRule::default(),
    };
    let engine = Engine::start(config, Box::new(host), vec![underlay], || Honest)?;
    let plan = batch::plan("tunnel", batch, &Running(&[]))
        .map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let ops: Vec<Op> = plan
        .into_iter()
        .flat_map(|line| match line.kind {
            batch::Kind::Owned(ops) => ops,
            batch::Kind::System(_) => Vec::new(),
        })
        .collect();
    engine.apply(&ops).map_err(|(_, refusal)| anyhow!("{refusal}"))?;
    Ok(engine)
}

impl Path for Memory {
    fn begin(&mut self, trial: u32, size: usize) -> Result<()> {
        if size < HEADERS {
            bail!("{size} bytes: less than its headers");
        }
        self.packet = inner(A, B, size, true);
        self.trial = trial;
        self.arrivals.begin(trial);
        Ok(())
    }

    fn offer(&mut self, n: u64, clock: &dyn Clock) -> Result<()> {
        mark(&mut self.packet[HEADERS..], self.trial, clock.now());
        self.entry.push((0..n).map(|_| &self.packet[..]));
        Ok(())
    }

    fn received(&mut self) -> Result<u64> {
        Ok(self.arrivals.received())
    }

    fn losses(&mut self) -> Result<Losses> {
        let mut losses = Losses::new();
        for (name, engine) in [("near", &self.near), ("far", &self.far)] {
            let totals = engine.totals()?.all;
            for reason in Reason::ALL {
                losses.insert(format!("{name}: {}", reason.row().name), totals.dropped(*reason));
            }
            for queue in engine.queues()?.iter().filter(|q| q.unit == "packets") {
                losses.insert(format!("{name}: queue full: {}", queue.name), queue.drops);
            }
        }
        Ok(losses)
    }

    fn latency(&mut self) -> Option<Latency> {
        self.arrivals.latency()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.near.stop();
        self.far.stop();
    }
}

/// A host with one device, to which every destination is away.
struct Lab {
    tun: PipeTun,
}

struct Nothing;

impl HostDevice for Nothing {
    fn remove(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Host for Lab {
    fn create(&mut self, _: &LinkSpec, _: u32, _: usize) -> Result<Created, Refusal> {
        let queues = vec![Box::new(self.tun.clone()) as _];
        Ok(Created { ifindex: 3, queues, reader: Some(0), device: Box::new(Nothing) })
    }

    fn link(&mut self, _: u32) -> Option<LinkState> {
        let txqlen = DEVICE_QUEUE as u32;
        Some(LinkState { name: crate::demo::stage::DEVICE.into(), up: true, mtu: 1480, txqlen })
    }

    fn losses(&mut self, _: u32) -> Option<DeviceLosses> {
        Some(DeviceLosses { from_host: self.tun.queue.overflow(), to_host: 0 })
    }

    fn set_mtu(&mut self, _: u32, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    fn route(&mut self, _: RouteKey) -> (Answer, bool) {
        (Some(Route { ifindex: 2, mtu: 1500 }), false)
    }

    fn send_icmp(&mut self, _: &icmp::Message) -> io::Result<()> {
        Ok(())
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // Never short for 8 bytes.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{Load, run};
    use super::super::{config, trial::Trial};
    use super::*;
    use crate::demo::stop::Stop;
    use std::time::Duration;

    fn tried(batches: [&str; 2], size: usize) -> Trial {
        let clock = Wall::new();
        let mut path = Memory::new(batches, clock).unwrap();
        let load = Load { number: 1, size, rate: 2000.0, time: Duration::from_millis(100) };
        run(&mut path, &clock, load, &Stop::default()).unwrap()
    }

    #[test]
    fn packets_cross_two_engines_and_their_times_are_known() {
        let [a, b] = config::tunnel(false);
        let trial = tried([&a, &b], 64);
        assert!(trial.offered > 0);
        assert_eq!((trial.unaccounted, trial.latency_us.is_some()), (0, true), "{trial:?}");
    }

    #[test]
    fn packets_are_lost_by_reason_at_either_end() {
        let [a, b] = config::tunnel(false);
        let drops = |trial: Trial| {
            assert_eq!((trial.received, trial.unaccounted), (0, 0), "{trial:?}");
            trial.lost.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(drops(tried([&a, &b], 1470)), ["near: tx_too_big"]);
        let other_key = b.replace("181914 128", "181915 128");
        assert_eq!(drops(tried([&a, &other_key], 64)), ["far: rx_bad_icv"]);
    }
}
