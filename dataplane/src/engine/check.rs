//! Conservation: every packet that came in is somewhere.

use super::Engine;
use crate::account::{Cells, Count, Row, Stuck};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};
use uvti_core::device::DeviceId;
use uvti_core::reason::Way;

/// Where an identity is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A device (by name) on a worker in one direction: in + hop_in = out + drops + hop_out.
    Device(String, usize, Way),
    /// What a worker read from the network: all of it met a device, or none.
    Network(usize),
    /// The queues between the workers: what was sent there arrived, or waits.
    Hops(Way),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Device(name, worker, way) => write!(f, "{name} {} worker {worker}", way.name()),
            Place::Network(worker) => write!(f, "network rx worker {worker}"),
            Place::Hops(way) => write!(f, "hops {}", way.name()),
        }
    }
}

/// One identity and its sides, packets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the identity")]
pub struct Identity {
    pub place: Place,
    pub input: u64,
    pub hop_in: u64,
    pub output: u64,
    pub drops: u64,
    pub hop_out: u64,
    pub held: u64,
}

impl Identity {
    /// Packets that came in and are nowhere; below zero, packets that came from nowhere.
    pub fn missing(&self) -> i128 {
        let sum = |parts: &[u64]| parts.iter().map(|n| i128::from(*n)).sum::<i128>();
        sum(&[self.input, self.hop_in]) - sum(&[self.output, self.drops, self.hop_out, self.held])
    }
}

/// How long packets may be between two workers before they count as lost.
const PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Checks every identity, also under load. Rows of one worker are exact as of one moment; what is between two
    /// workers is asked for again until it settles.
    pub fn check(&self) -> Result<Vec<Identity>, Stuck> {
        let (mut rows, names) = self.rows()?;
        let mut identities: Vec<Identity> = rows.iter().flat_map(|r| device_rows(r, &names)).collect();
        identities.extend(network_rows(&rows));
        for way in [Way::Tx, Way::Rx] {
            identities.push(self.hops(way, &mut rows)?);
        }
        Ok(identities)
    }

    fn rows(&self) -> Result<(Vec<Row>, BTreeMap<DeviceId, String>), Stuck> {
        let mut state = self.lock();
        state.collector.collect(|w| self.workers[w].bell.ring())?;
        Ok((state.collector.rows(), state.names.clone()))
    }

    /// What arrived by an earlier look can be no more than what had left by a later one; and what had left by an earlier
    /// look has arrived by a later one, or waits in a queue, unless it is lost.
    fn hops(&self, way: Way, rows: &mut Vec<Row>) -> Result<Identity, Stuck> {
        let sum = |rows: &[Row], count| rows.iter().map(|r| r.cells.of(way, count)).sum::<u64>();
        let (left, arrived_before) = (sum(rows, Count::HopOut), sum(rows, Count::HopIn));
        let begun = Instant::now();
        loop {
            *rows = self.rows()?.0;
            let (left_now, arrived) = (sum(rows, Count::HopOut), sum(rows, Count::HopIn));
            let settled = arrived >= left && arrived_before <= left_now;
            if settled || begun.elapsed() > PATIENCE {
                let place = Place::Hops(way);
                // Under load the two sides are of different moments; what is settled has nothing missing.
                let (input, output) = if settled { (left, left) } else { (left, arrived.min(left)) };
                return Ok(Identity { place, input, hop_in: 0, output, drops: 0, hop_out: 0, held: 0 });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn device_rows(row: &Row, names: &BTreeMap<DeviceId, String>) -> Vec<Identity> {
    let name = match row.device {
        DeviceId::NONE => "no device".to_owned(),
        id => names.get(&id).cloned().unwrap_or_else(|| format!("device {}", id.0)),
    };
    let ways = if row.device == DeviceId::NONE { &[Way::Rx][..] } else { &[Way::Tx, Way::Rx][..] };
    ways.iter().map(|way| identity(Place::Device(name.clone(), row.worker, *way), &row.cells, *way)).collect()
}

fn identity(place: Place, cells: &Cells, way: Way) -> Identity {
    Identity {
        place,
        input: cells.of(way, Count::In),
        hop_in: cells.of(way, Count::HopIn),
        output: [Count::Out, Count::OutHeld, Count::OutUnmarked]
            .map(|count| cells.of(way, count))
            .iter()
            .sum(),
        drops: cells.drops(way),
        hop_out: cells.of(way, Count::HopOut),
        held: cells.of(way, Count::Held),
    }
}

fn network_rows(rows: &[Row]) -> Vec<Identity> {
    let mut read: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let (came, met) = read.entry(row.worker).or_default();
        *came += row.cells.of(Way::Rx, Count::Read);
        *met += row.cells.of(Way::Rx, Count::In);
    }
    read.into_iter()
        .map(|(worker, (input, output))| Identity {
            place: Place::Network(worker),
            input,
            hop_in: 0,
            output,
            drops: 0,
            hop_out: 0,
            held: 0,
        })
        .collect()
}
