//! Packets that wait for an SA (`xfrm_larval_drop=0`), by the policy that wants it.
//!
//! kernel: net/xfrm/xfrm_policy.c xdst_queue_output(), xfrm_policy_queue_process()

use super::tamper::Tamper;
use super::{BURST, Event, Worker};
use crate::account::{Account, Count, Dropped};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, EtherType, Inner};
use uvti_core::reason::{Reason, Way};
use uvti_core::tables::Policy;
use uvti_core::vti::held::when_held;
use uvti_core::vti::{Drop, Stage, TxSlot, transmit};
use uvti_core::xfrm::{PolicyId, PolicySpec};

/// After how long it is first looked whether the SA has come; then after twice as long, and so on.
///
/// kernel: include/net/xfrm.h XFRM_QUEUE_TMO_MIN
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// Once that was as long as this, the packets are dropped. kernel: include/net/xfrm.h XFRM_QUEUE_TMO_MAX
const LAST_LOOK: Duration = Duration::from_secs(60);
/// When it is tried again if the worker has no buffers just now.
const SOON: Duration = Duration::from_millis(10);
/// Bytes that may wait in one worker, whatever the number of policies. The kernel has no such limit.
const BYTES: usize = 16 << 20;

/// What waits in one worker.
#[derive(Default)]
pub(super) struct Hold {
    queues: Vec<Queue>,
    bytes: usize,
}

/// The packets that wait for one policy's SA.
struct Queue {
    policy: Arc<Policy>,
    packets: VecDeque<Held>,
    timeout: Duration,
    due: Instant,
}

struct Held {
    device: DeviceId,
    /// A copy of its exact length: the worker's buffers are for packets on their way.
    packet: Box<[u8]>,
    protocol: EtherType,
}

impl Hold {
    /// Keeps a packet, if there is room.
    fn keep(&mut self, device: DeviceId, buf: &Buf, policy: &Arc<Policy>, now: Instant) -> bool {
        let packet = buf.bytes();
        if self.bytes + packet.len() > BYTES || !policy.hold() {
            return false;
        }
        self.bytes += packet.len();
        let held = Held { device, packet: packet.into(), protocol: buf.protocol };
        match self.queues.iter_mut().find(|q| q.policy.number == policy.number) {
            Some(queue) => queue.packets.push_back(held),
            None => self.queues.push(Queue {
                policy: policy.clone(),
                packets: [held].into(),
                timeout: FIRST_LOOK,
                due: now + FIRST_LOOK,
            }),
        }
        true
    }

    /// When the next queue is to be looked at.
    fn due(&self) -> Option<Instant> {
        self.queues.iter().map(|q| q.due).min()
    }

    /// How many packets wait, by device.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (DeviceId, u64)> + '_ {
        self.queues.iter().flat_map(|q| q.packets.iter().map(|p| (p.device, 1)))
    }

    fn take_due(&mut self, now: Instant) -> Option<Queue> {
        // What is due later than after its timeout was put there before the clock was set back.
        let is_due = |q: &Queue| q.due <= now || q.due - now > q.timeout;
        let at = self.queues.iter().position(is_due)?;
        let queue = self.queues.swap_remove(at);
        self.bytes -= queue.bytes();
        Some(queue)
    }

    /// Puts a queue back whose SA has not come; gives it out again if it has waited long enough.
    fn wait_on(&mut self, mut queue: Queue, now: Instant) -> Result<(), Queue> {
        if queue.timeout >= LAST_LOOK {
            return Err(queue);
        }
        queue.timeout *= 2;
        let after = queue.timeout;
        self.put_back(queue, after, now);
        Ok(())
    }

    /// Puts a queue back, to be looked at after its timeout.
    fn put_back(&mut self, mut queue: Queue, after: Duration, now: Instant) {
        queue.due = now + after;
        self.bytes += queue.bytes();
        self.queues.push(queue);
    }
}

impl Queue {
    fn bytes(&self) -> usize {
        self.packets.iter().map(|p| p.packet.len()).sum()
    }

    fn next(&mut self) -> Option<Held> {
        let held = self.packets.pop_front()?;
        self.policy.release();
        Some(held)
    }
}

/// What a look found.
enum Found {
    /// The SA.
    Sa,
    /// Nothing yet.
    Nothing,
    /// That the first packet can never be sent.
    Never(Reason),
}

impl<T: Tamper, A: Account> Worker<T, A> {
    /// Keeps a packet for its SA to come. A kernel VTI has sent it with that.
    pub(super) fn hold_packet(&mut self, id: DeviceId, buf: Buf, policy: &Arc<Policy>, stage: Stage) {
        if self.releasing {
            return self.refuse(id, buf, &with_policy(Reason::TxHeldNoSa, policy), None);
        }
        let moment = self.moment();
        if !self.hold.keep(id, &buf, policy, moment) {
            return self.refuse(id, buf, &with_policy(stage.reason(Reason::TxHoldQueueFull), policy), None);
        }
        if stage == Stage::Host {
            // The device's view has not met it.
            return self.scratch.spent.push(buf);
        }
        self.books.count(self.counters(id), Way::Tx, Count::Queued, 1);
        self.books.count(self.counters(id), Way::Tx, Count::Bytes, buf.len() as u64);
        self.scratch.spent.push(buf);
    }

    /// Looks whether an SA has come that packets wait for; whether there was anything to look at.
    pub(super) fn look_at_held(&mut self, now: u64) -> bool {
        // What goes to another worker has no room there yet.
        if !self.pending.is_empty() || self.hold.queues.is_empty() {
            return false;
        }
        let moment = self.moment();
        let Some(queue) = self.hold.take_due(moment) else { return false };
        match self.look_for_sa(&queue) {
            Found::Sa => self.release(queue, now, moment),
            Found::Nothing => {
                if let Err(over) = self.hold.wait_on(queue, moment) {
                    self.purge(over, Reason::TxHeldPurged);
                }
            }
            Found::Never(reason) => self.purge(queue, reason),
        }
        true
    }

    /// Now, by the dataplane's clock.
    fn moment(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(Duration::from_secs(self.ahead)).unwrap_or(now)
    }

    /// When the next queue is to be looked at, by the host's clock.
    pub(super) fn hold_due(&self) -> Option<Instant> {
        let due = self.hold.due()?;
        // What would be before the machine was started is over in any case.
        Some(due.checked_sub(Duration::from_secs(self.ahead)).unwrap_or_else(Instant::now))
    }

    /// The first packet decides for all.
    fn look_for_sa(&mut self, queue: &Queue) -> Found {
        let tables = self.tables.load();
        let first = queue.packets.front().and_then(|held| {
            let inner = Inner::read_as(held.protocol.family()?, &held.packet).ok()?;
            Some((tables.devices.get(held.device)?, inner.flow))
        });
        let spec = &queue.policy.spec;
        let PolicySpec { index, mark, if_id, .. } = *spec;
        let policy = tables.policies.named(&PolicyId::Index { index, dir: spec.dir, mark, if_id });
        let Some((device, flow)) = first.filter(|_| policy.is_some_and(|p| p.number == queue.policy.number))
        else {
            return Found::Never(Reason::TxHeldPurged);
        };
        let Err(refused) = transmit::decide(tables, device, &flow) else { return Found::Sa };
        let acquire = transmit::acquire(tables, device, &flow, &refused);
        let found = match transmit::holder(tables, device, &refused) {
            Some(_) => Found::Nothing,
            None => Found::Never(when_held(refused.reason)),
        };
        if let Some(acquire) = acquire {
            self.report(Event::Acquire(acquire));
        }
        found
    }

    /// Sends what waited, each packet by what is decided for it now.
    fn release(&mut self, mut queue: Queue, now: u64, moment: Instant) {
        while let Some(device) = queue.packets.front().map(|held| held.device) {
            while self.scratch.tx.len() < BURST && queue.packets.front().is_some_and(|h| h.device == device) {
                let Some(mut buf) = self.pool.take() else { break };
                if let Some(held) = queue.next() {
                    buf.fill(&held.packet);
                    buf.protocol = held.protocol;
                    self.scratch.tx.push(TxSlot::new(buf));
                }
            }
            if self.scratch.tx.is_empty() {
                return self.hold.put_back(queue, SOON, moment);
            }
            self.releasing = true;
            self.carry_out(device, now);
            self.releasing = false;
            self.recycle();
        }
    }

    /// Drops what waited: the first packet by its reason, those behind it because it was.
    fn purge(&mut self, mut queue: Queue, mut reason: Reason) {
        while let Some(held) = queue.next() {
            let drop = with_policy(reason, &queue.policy);
            self.dropped(&Dropped {
                device: held.device,
                drop: &drop,
                packet: &held.packet,
                packets: 1,
                outer: None,
            });
            reason = Reason::TxHeldPurged;
        }
    }

    /// Drops what waits of a device that goes.
    pub(super) fn forget_held(&mut self, id: DeviceId) {
        for mut queue in std::mem::take(&mut self.hold.queues) {
            for held in std::mem::take(&mut queue.packets) {
                if held.device != id {
                    queue.packets.push_back(held);
                    continue;
                }
                queue.policy.release();
                self.hold.bytes -= held.packet.len();
                let drop = with_policy(Reason::TxDeviceGone, &queue.policy);
                self.dropped(&Dropped {
                    device: id,
                    drop: &drop,
                    packet: &held.packet,
                    packets: 1,
                    outer: None,
                });
            }
            if !queue.packets.is_empty() {
                self.hold.queues.push(queue);
            }
        }
    }
}

fn with_policy(reason: Reason, policy: &Arc<Policy>) -> Drop {
    Drop { policy: Some(policy.clone()), ..reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::vti::testing::{Lab, OUT};

    /// The timer of a queue is 0.1 s at first, and twice that each time; when one of 60 s or more is over without an SA,
    /// the queue is purged: 0.1 + 0.2 + … + 102.4 s. kernel: net/xfrm/xfrm_policy.c xfrm_policy_queue_process()
    #[test]
    fn packets_wait_for_205_seconds() {
        let tables = Lab::vti().tables();
        let policy = tables.policies.of(uvti_core::xfrm::Direction::Out)[OUT].clone();
        let (mut hold, begun) = (Hold::default(), Instant::now());
        assert!(hold.keep(DeviceId(1), &Buf::from_packet(&[0; 100]), &policy, begun));
        let mut looks = Vec::new();
        let mut over = None;
        while let Some(due) = hold.due() {
            assert!(hold.take_due(due - Duration::from_millis(1)).is_none(), "not before it is due");
            let queue = hold.take_due(due).unwrap();
            looks.push((due - begun).as_millis());
            // One that comes later waits with the first, and no longer.
            over = hold.wait_on(queue, due).err();
            assert!(over.is_some() || hold.keep(DeviceId(1), &Buf::from_packet(&[0; 100]), &policy, due));
        }
        assert_eq!(looks, (1..=11).map(|n| 100 * ((1 << n) - 1)).collect::<Vec<u128>>());
        assert_eq!(looks.last(), Some(&204_700));
        assert_eq!((over.unwrap().packets.len(), hold.bytes), (11, 0));
    }
}
