//! The clock that packets are offered by: a real one, or in tests one that is set.

use std::time::{Duration, Instant};

/// Waiting for less would be a system call for a packet or two.
const STEP: Duration = Duration::from_micros(50);

/// Time since some moment.
pub(super) trait Clock {
    /// Now.
    fn now(&self) -> Duration;

    /// Returns not before `time`, and soon after.
    fn wait_until(&self, time: Duration);
}

/// The host's monotonic clock; copies of it agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall(Instant);

impl Wall {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Wall {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, time: Duration) {
        // Asleep, not spinning: the dataplane may need the core.
        std::thread::sleep(time.saturating_sub(self.now()).max(STEP));
    }
}

/// Packets due after so much time; the first one is at once.
pub(super) fn due(rate: f64, elapsed: Duration) -> u64 {
    (rate * elapsed.as_secs_f64()) as u64 + 1
}

/// When the packet after `n` others is due.
pub(super) fn time_of(rate: f64, n: u64) -> Duration {
    Duration::try_from_secs_f64(n as f64 / rate).unwrap_or(Duration::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Stands still but when it is waited for, or moved.
    #[derive(Default)]
    pub(in crate::measure) struct Fake(pub(in crate::measure) Cell<Duration>);

    impl Clock for Fake {
        fn now(&self) -> Duration {
            self.0.get()
        }

        fn wait_until(&self, time: Duration) {
            self.0.set(time.max(self.0.get() + Duration::from_nanos(1)));
        }
    }

    proptest! {
        #[test]
        fn a_packet_is_due_when_its_time_has_come(rate in 1.0..1e8, n in 0u64..1 << 30) {
            let time = time_of(rate, n);
            prop_assert!(due(rate, time + Duration::from_nanos(2)) > n);
            prop_assert!(n == 0 || due(rate, time.saturating_sub(Duration::from_nanos(2))) <= n);
        }
    }
}
