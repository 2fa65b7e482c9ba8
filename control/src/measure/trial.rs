//! One trial: so many packets offered at a steady rate, and what became of each.

use super::arrivals::Latency;
use super::clock::{Clock, due, time_of};
use super::search::Point;
use crate::demo::stop::Stop;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets offered in a row, when many are due.
const BURST: u64 = 64;
/// How long nothing has to arrive or to be counted before the rest counts as unaccounted for.
const QUIET: Duration = Duration::from_millis(300);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Packets that were lost since the path began, by place and reason.
pub(super) type Losses = BTreeMap<String, u64>;

/// What carries packets from a sender to a receiver.
pub(super) trait Path {
    /// A trial of this number, with packets of `size` bytes, begins.
    fn begin(&mut self, trial: u32, size: usize) -> Result<()>;

    /// The sender sends `n` packets. What does not take them is among the losses.
    fn offer(&mut self, n: u64, clock: &dyn Clock) -> Result<()>;

    /// Packets of this trial that the receiver has.
    fn received(&mut self) -> Result<u64>;

    /// What was lost, and what waits, anywhere between the two.
    fn losses(&mut self) -> Result<Losses>;

    /// How long packets of this trial took, where the receiver can tell.
    fn latency(&mut self) -> Option<Latency>;
}

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Number of the trial.
    pub(super) number: u32,
    /// Bytes of an inner packet, IP header included.
    pub(super) size: usize,
    /// Packets a second.
    pub(super) rate: f64,
    /// For how long.
    pub(super) time: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trial {
    /// Bytes of an inner packet, IP header included.
    pub(super) size: usize,
    /// Packets a second that were to be offered.
    pub(super) asked_pps: f64,
    /// Packets a second that were.
    pub(super) offered_pps: f64,
    /// Packets offered.
    pub(super) offered: u64,
    /// Packets that arrived.
    pub(super) received: u64,
    /// Packets lost, by place and reason.
    pub(super) lost: Losses,
    /// Offered, less received, less lost. Below zero, others' packets were lost meanwhile.
    pub(super) unaccounted: i64,
    /// From sending to receiving, if the receiver can tell.
    pub(super) latency_us: Option<Latency>,
}

impl Trial {
    /// For the search: what has not arrived is lost, by whatever reason.
    pub(super) fn point(&self) -> Point {
        Point {
            asked: self.asked_pps,
            offered: self.offered_pps,
            packets: self.offered,
            lost: self.offered.saturating_sub(self.received),
        }
    }

    /// Bits of inner packets that arrived in a second.
    pub(super) fn gbit(&self) -> f64 {
        self.offered_pps * (1.0 - self.point().loss()) * self.size as f64 * 8.0 / 1e9
    }
}

/// Offers a load, and waits until every packet of it is accounted for, or nothing moves any more.
pub(super) fn run(path: &mut dyn Path, clock: &dyn Clock, load: Load, stop: &Stop) -> Result<Trial> {
    let before = path.losses()?;
    path.begin(load.number, load.size)?;
    let (offered, elapsed) = offer(path, clock, load, stop)?;
    let (received, lost) = settle(path, clock, offered, &before, stop)?;
    let accounted = received + lost.values().sum::<u64>();
    Ok(Trial {
        size: load.size,
        asked_pps: load.rate,
        offered_pps: offered as f64 / elapsed.as_secs_f64(),
        offered,
        received,
        lost,
        unaccounted: offered as i64 - accounted as i64,
        latency_us: path.latency(),
    })
}

/// Offers packets as they are due, for the load's time; a sender that is too slow offers fewer.
fn offer(path: &mut dyn Path, clock: &dyn Clock, load: Load, stop: &Stop) -> Result<(u64, Duration)> {
    let begun = clock.now();
    let all = ((load.rate * load.time.as_secs_f64()).round() as u64).max(1);
    let mut offered = 0;
    loop {
        stop.check()?;
        let elapsed = clock.now().saturating_sub(begun);
        if offered == all || (elapsed >= load.time && offered > 0) {
            // Ahead of its end the last packet's time is not over.
            return Ok((offered, elapsed.max(load.time)));
        }
        match due(load.rate, elapsed).min(all) - offered {
            0 => clock.wait_until(begun + time_of(load.rate, offered)),
            n => {
                let n = n.min(BURST);
                path.offer(n, clock)?;
                offered += n;
            }
        }
    }
}

fn settle(
    path: &mut dyn Path,
    clock: &dyn Clock,
    offered: u64,
    before: &Losses,
    stop: &Stop,
) -> Result<(u64, Losses)> {
    let (mut last, mut since) = (None, clock.now());
    loop {
        stop.check()?;
        let now = (path.received()?, difference(path.losses()?, before));
        let accounted = now.0 + now.1.values().sum::<u64>();
        if last.as_ref() != Some(&now) {
            (last, since) = (Some(now.clone()), clock.now());
        }
        if accounted >= offered || clock.now().saturating_sub(since) >= QUIET {
            return Ok(now);
        }
        clock.wait_until(clock.now() + LOOK);
    }
}

fn difference(after: Losses, before: &Losses) -> Losses {
    let more = |(place, n): (String, u64)| {
        let more = n.saturating_sub(before.get(&place).copied().unwrap_or(0));
        (more > 0).then_some((place, more))
    };
    after.into_iter().filter_map(more).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::clock::tests::Fake;
    use super::*;
    use proptest::prelude::*;

    /// A queue that is emptied at a steady rate, and forgets one in so many packets without telling.
    pub(in crate::measure) struct Model {
        pub(in crate::measure) capacity: f64,
        pub(in crate::measure) queue: u64,
        pub(in crate::measure) forgets: u64,
        /// What sending a packet takes.
        pub(in crate::measure) cost: Duration,
        pub(in crate::measure) clock: std::rc::Rc<Fake>,
        offered: u64,
        arrived: u64,
        full: u64,
        waiting: f64,
        at: Duration,
    }

    impl Model {
        pub(in crate::measure) fn new(capacity: f64) -> Self {
            let (queue, forgets, cost) = (100, 0, Duration::from_nanos(200));
            let clock = std::rc::Rc::new(Fake::default());
            let (offered, arrived, full, waiting, at) = (0, 0, 0, 0.0, Duration::ZERO);
            Self { capacity, queue, forgets, cost, clock, offered, arrived, full, waiting, at }
        }

        fn drain(&mut self) {
            let now = self.clock.now();
            self.waiting = (self.waiting - (now - self.at).as_secs_f64() * self.capacity).max(0.0);
            self.at = now;
        }
    }

    impl Path for Model {
        fn begin(&mut self, _: u32, _: usize) -> Result<()> {
            self.drain();
            (self.offered, self.arrived) = (0, 0);
            Ok(())
        }

        fn offer(&mut self, n: u64, clock: &dyn Clock) -> Result<()> {
            for _ in 0..n {
                self.clock.0.set(clock.now() + self.cost);
                self.drain();
                self.offered += 1;
                if self.forgets > 0 && self.offered.is_multiple_of(self.forgets) {
                    continue;
                }
                if self.waiting + 1.0 > self.queue as f64 {
                    self.full += 1;
                } else {
                    self.waiting += 1.0;
                    self.arrived += 1;
                }
            }
            Ok(())
        }

        fn received(&mut self) -> Result<u64> {
            self.drain();
            Ok(self.arrived - self.waiting.ceil() as u64)
        }

        fn losses(&mut self) -> Result<Losses> {
            Ok([("queue".to_owned(), self.full)].into())
        }

        fn latency(&mut self) -> Option<Latency> {
            None
        }
    }

    fn load(rate: f64) -> Load {
        Load { number: 1, size: 64, rate, time: Duration::from_secs(1) }
    }

    fn tried(path: &mut Model, rate: f64) -> Trial {
        let clock = path.clock.clone();
        run(path, &*clock, load(rate), &Stop::default()).unwrap()
    }

    #[test]
    fn too_much_is_lost_by_reason_and_less_is_not() {
        let mut path = Model::new(10_000.0);
        let trial = tried(&mut path, 20_000.0);
        assert_eq!((trial.offered, trial.unaccounted), (20_000, 0));
        let queued = trial.lost["queue"];
        assert!((9_850..=9_950).contains(&queued), "{queued}");
        assert_eq!(tried(&mut path, 9_000.0).lost, Losses::new());
    }

    #[test]
    fn what_nobody_counted_is_said() {
        let mut path = Model { forgets: 1000, ..Model::new(1e9) };
        let trial = tried(&mut path, 50_000.0);
        assert_eq!((trial.received, trial.unaccounted), (49_950, 50));
        assert_eq!(trial.point().lost, 50);
    }

    #[test]
    fn a_sender_that_is_too_slow_says_what_it_managed() {
        let mut path = Model { cost: Duration::from_micros(10), ..Model::new(1e9) };
        let trial = tried(&mut path, 1e6);
        assert!((99_000.0..=100_010.0).contains(&trial.offered_pps), "{trial:?}");
        assert!(trial.point().is_short());
    }

    proptest! {
        #[test]
        fn every_packet_offered_is_received_lost_or_unaccounted(
            capacity in 1e3..1e5, rate in 10.0..2e5, forgets in 0u64..50,
        ) {
            let mut path = Model { forgets, queue: 1 << 40, ..Model::new(capacity) };
            if forgets == 0 {
                path.queue = 64;
            }
            let trial = tried(&mut path, rate);
            let lost: u64 = trial.lost.values().sum();
            prop_assert_eq!(trial.offered as i64, (trial.received + lost) as i64 + trial.unaccounted);
            prop_assert_eq!(trial.unaccounted > 0, forgets > 0 && trial.offered >= forgets);
            // The first is sent at once: a second has up to one more than its share.
            prop_assert!(trial.offered_pps <= rate.max(1.0) * 1.001 + 1.0, "{} of {rate}", trial.offered_pps);
        }
    }
}
