//! Every place where packets and messages wait, or are lost before uvti has them or after.

use super::{EVENTS, Engine, Handle, State};
use crate::account::{Gauges, Marks, Stuck};
use crate::worker::HOP_CAPACITY;
use serde::{Deserialize, Serialize};

/// A queue. What its owner does not tell is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Where it is.
    pub name: String,
    /// What waits in it.
    pub unit: String,
    /// How many wait now.
    pub depth: Option<u64>,
    /// The most that waited at once.
    pub high_water: Option<u64>,
    /// How many may.
    pub capacity: Option<u64>,
    /// What found no room, in its unit.
    pub drops: u64,
    /// What else its owner tells.
    pub note: Option<String>,
}

impl Queue {
    fn new(name: String, unit: &str) -> Self {
        Self { name, unit: unit.to_owned(), ..Self::default() }
    }

    /// With what those who fill it tell.
    fn filled_by<'a>(mut self, marks: impl Iterator<Item = &'a Marks>) -> Self {
        let mut high = 0;
        for m in marks {
            high = high.max(m.high.get());
            self.drops += m.drops.get();
        }
        self.high_water = Some(high);
        self
    }

    fn holding(mut self, depth: u64, capacity: Option<usize>) -> Self {
        (self.depth, self.capacity) = (Some(depth), capacity.map(|n| n as u64));
        self
    }
}

impl Engine {
    /// All queues: of devices, of sockets, between workers, and of what is not packets.
    pub fn queues(&self) -> Result<Vec<Queue>, Stuck> {
        let mut state = self.lock();
        // The workers ask their sockets when they flip.
        state.collector.collect(|w| self.workers[w].bell.ring())?;
        let mut queues = self.device_queues(&mut state);
        queues.extend(self.workers.iter().enumerate().map(|(i, w)| socket_queue(i, &w.gauges)));
        for (i, worker) in self.workers.iter().enumerate() {
            queues.extend(self.worker_queues(i, worker));
        }
        let events = self.workers.iter().map(|w| &w.gauges.events);
        queues.push(
            Queue::new("ICMP errors and expiries".into(), "messages")
                .filled_by(events)
                .holding(self.events.len() as u64, Some(EVENTS)),
        );
        Ok(queues)
    }

    /// What the host counts at the TUN devices: packets that it had for a full queue, and those that it did not take.
    fn device_queues(&self, state: &mut State) -> Vec<Queue> {
        let tables = self.tables.load();
        let mut queues = Vec::new();
        for device in tables.devices.iter() {
            let losses = state.host.losses(device.ifindex).unwrap_or_default();
            let queue = |side: &str| Queue::new(format!("{} {side} the host", device.spec.name), "packets");
            let capacity = Some(device.txqlen.into());
            queues.push(Queue { capacity, drops: losses.from_host, ..queue("from") });
            queues.push(Queue { drops: losses.to_host, ..queue("to") });
        }
        queues
    }

    fn worker_queues(&self, i: usize, worker: &Handle) -> [Queue; 4] {
        let gauges = &worker.gauges;
        let door = &worker.door;
        let mut control = Queue::new(format!("control of worker {i}"), "messages")
            .holding(worker.messages.len() as u64, worker.messages.capacity());
        control.high_water = Some(worker.waiting.get());
        [
            Queue::new(format!("to worker {i}"), "bursts")
                .filled_by(self.workers.iter().map(|w| &*w.gauges.hops[i]))
                .holding(door.hops.len() as u64, Some(HOP_CAPACITY)),
            Queue::new(format!("held by worker {i} for others"), "bursts")
                .filled_by(std::iter::once(&gauges.held))
                .holding(gauges.held_now.get(), None),
            Queue::new(format!("buffers back to worker {i}"), "bursts")
                .filled_by(self.workers.iter().map(|w| &*w.gauges.returns[i]))
                .holding(door.returns.len() as u64, door.returns.capacity()),
            control,
        ]
    }
}

fn socket_queue(worker: usize, gauges: &Gauges) -> Queue {
    let again = gauges.async_errors.get();
    Queue {
        drops: gauges.receive_overflow.get(),
        note: (again > 0).then(|| format!("{again} sends tried again after an ICMP error")),
        ..Queue::new(format!("sockets of worker {worker}"), "packets")
    }
}
