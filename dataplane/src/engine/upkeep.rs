//! What happens besides packets: ICMP errors, expiries, the host's changes.

use super::Engine;
use crate::worker::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uvti_core::vti::icmp::RateLimit;
use uvti_core::xfrm::{Limits, Sa};

/// How often times are looked at. kernel: lifetimes in seconds are timers, sysctls are read once a second here
const TICK: Duration = Duration::from_millis(250);
/// How often the host is asked for what it sends no event about (sysctls).
const LOOK: Duration = Duration::from_secs(1);

/// Shortest time from one look at the host's routes to the next.
const REST: Duration = Duration::from_millis(20);

/// When the host's routes are asked for again: at once after a change, but in a storm of changes no more than a fifth of the
/// time, so that whoever waits for the tables has the rest.
#[derive(Default)]
struct Pace {
    /// Something has changed since the last look.
    pending: bool,
    not_before: Duration,
}

impl Pace {
    fn is_due(&self, now: Duration) -> bool {
        self.pending && now >= self.not_before
    }

    /// A look began and ended. What changed during it is seen by the next.
    fn done(&mut self, began: Duration, ended: Duration) {
        self.pending = false;
        self.not_before = ended + REST.max(ended.saturating_sub(began) * 4);
    }
}

impl Engine {
    /// Runs until the engine stops; on a thread of its own. `changed` says whether the host's routes or links changed
    /// since it was last asked.
    pub fn upkeep(&self, mut changed: impl FnMut() -> bool) {
        let begun = Instant::now();
        let mut limit = RateLimit::default();
        let mut looked = begun;
        let mut ticked = begun;
        let mut pace = Pace::default();
        while !self.stopped() {
            let mut dead: Vec<Arc<Sa>> = Vec::new();
            if let Ok(event) = self.events.recv_timeout(Duration::from_millis(20)) {
                self.handle(event, &mut limit, begun.elapsed(), &mut dead);
                while let Ok(event) = self.events.try_recv() {
                    self.handle(event, &mut limit, begun.elapsed(), &mut dead);
                }
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                dead.extend(self.outlived());
                self.note_numbers(false);
                self.follow_key_managers();
            }
            if !dead.is_empty() {
                self.remove_states(&dead);
                self.tell_expired(&dead, true);
            }
            pace.pending |= changed();
            let now = begun.elapsed();
            if pace.is_due(now) {
                self.refresh();
                pace.done(now, begun.elapsed());
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look();
                self.gather();
                self.note_numbers(true);
            }
        }
    }

    /// In the state directory, if there is one.
    fn note_numbers(&self, received: bool) {
        if let Some(mut journal) = self.journal() {
            journal.keep(received);
        }
    }

    /// So that the workers' tables of SAs and policies hold a second's drops, not a day's.
    fn gather(&self) {
        // A worker that hangs is told to whoever asks for totals.
        let _ = self.lock().collector.collect(|w| self.workers[w].bell.ring());
    }

    fn handle(&self, event: Event, limit: &mut RateLimit, now: Duration, dead: &mut Vec<Arc<Sa>>) {
        match event {
            Event::Icmp(message) => {
                if limit.allow(&message, now)
                    && let Err(error) = self.lock().host.send_icmp(&message)
                {
                    tracing::debug!(to = %message.dst, %error, "cannot send an ICMP error");
                }
            }
            Event::Expired(sa) => dead.push(sa),
            Event::Acquire(acquire) => self.acquire(&acquire),
        }
    }

    /// SAs whose time is over. They are dead for the next packet already.
    fn outlived(&self) -> Vec<Arc<Sa>> {
        let now = self.now();
        let tables = self.tables.load();
        let limited = |sa: &&Arc<Sa>| sa.spec.limits != Limits::NONE;
        let mut over = Vec::new();
        for sa in tables.states.iter().filter(limited) {
            sa.age(now);
            if sa.outlived(now) {
                over.push(sa.clone());
            } else if sa.run.is_news() {
                self.tell_expired(std::slice::from_ref(sa), false);
            }
        }
        over.iter().for_each(|sa| sa.run.kill());
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks that are taken in a second in which something changes every millisecond, each of them so long; and when the
    /// last one is.
    fn storm(look: Duration) -> (u32, Duration) {
        let (mut pace, mut looks, mut last) = (Pace::default(), 0, Duration::ZERO);
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(2) {
            pace.pending |= now < Duration::from_secs(1);
            if pace.is_due(now) {
                (looks, last) = (looks + 1, now);
                pace.done(now, now + look);
                now += look;
            }
            now += Duration::from_millis(1);
        }
        (looks, last)
    }

    #[test]
    fn a_storm_of_changes_is_looked_at_now_and_then_and_its_end_is_seen() {
        for (took, most) in [(0, 52), (1, 50), (40, 7), (200, 3)] {
            let (looks, last) = storm(Duration::from_millis(took));
            assert!((1..=most).contains(&looks), "{looks} looks of {took} ms");
            assert!(last >= Duration::from_millis(980), "the last change is not seen: {last:?}");
        }
    }

    #[test]
    fn a_change_after_a_rest_is_looked_at_at_once() {
        let mut pace = Pace { pending: true, ..Pace::default() };
        assert!(pace.is_due(Duration::ZERO));
        pace.done(Duration::ZERO, Duration::from_millis(1));
        assert!(!pace.is_due(Duration::from_secs(1)), "nothing has changed");
        pace.pending = true;
        assert!(!pace.is_due(Duration::from_millis(20)) && pace.is_due(Duration::from_millis(21)));
    }
}
