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

impl Engine {
    /// Runs until the engine stops; on a thread of its own. `changed` says whether the host's routes or links changed
    /// since it was last asked.
    pub fn upkeep(&self, mut changed: impl FnMut() -> bool) {
        let begun = Instant::now();
        let mut limit = RateLimit::default();
        let mut looked = begun;
        let mut ticked = begun;
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
            if changed() {
                self.refresh();
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
