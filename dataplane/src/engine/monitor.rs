//! Key managers and other listeners: who listens for what, and what they are told.

use super::{Engine, State};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uvti_core::tables::Acquire;
use uvti_core::xfrm::{Action, PolicyInfo, Proto, Sa, StateInfo};

/// Notices that may wait for one listener; what finds no room is lost to it, and counted.
const BACKLOG: usize = 1024;

/// What happened.
///
/// kernel: net/xfrm/xfrm_user.c xfrm_send_acquire(), xfrm_exp_state_notify(), xfrm_send_state_notify(),
/// xfrm_send_policy_notify()
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A packet wants an SA: its larval state, and the policy that asks.
    Acquire {
        /// The larval state.
        larval: Box<StateInfo>,
        /// The policy.
        policy: Box<PolicyInfo>,
    },
    /// A state, larval ones included, has reached a limit.
    Expired {
        /// The state.
        state: Box<StateInfo>,
        /// Whether it is over, or only to be replaced.
        hard: bool,
    },
    /// A state was changed.
    State(Change, Box<StateInfo>),
    /// All states of a protocol (0 is all) were deleted, and there were some.
    StatesFlushed(Proto),
    /// A policy was changed.
    Policy(Change, Box<PolicyInfo>),
    /// All policies were deleted, and there were some.
    PoliciesFlushed,
    /// The default policies were set: in, out, fwd.
    Defaults([Action; 3]),
}

/// How an object was changed. An update that found nothing to replace is an update all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// `add`.
    Added,
    /// `update`.
    Updated,
    /// `delete`.
    Deleted,
}

/// What a listener is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// SAs that are missing. Who listens for these is a key manager: while there is one, they are asked for.
    pub acquire: bool,
    /// Limits that were reached.
    pub expire: bool,
    /// Changes of states.
    pub states: bool,
    /// Changes of policies.
    pub policies: bool,
}

impl Topics {
    /// Everything.
    pub const ALL: Topics = Topics { acquire: true, expire: true, states: true, policies: true };

    fn has(self, notice: &Notice) -> bool {
        match notice {
            Notice::Acquire { .. } => self.acquire,
            Notice::Expired { .. } => self.expire,
            Notice::State(..) | Notice::StatesFlushed(_) => self.states,
            Notice::Policy(..) | Notice::PoliciesFlushed | Notice::Defaults(_) => self.policies,
        }
    }
}

/// A listener, for as long as it lives.
pub struct Monitor {
    /// What it is told.
    pub notices: Receiver<Notice>,
    lost: Arc<AtomicU64>,
}

impl Monitor {
    /// How many notices found no room since this was last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }
}

/// The listeners.
#[derive(Default)]
pub struct Monitors(Vec<Listener>);

struct Listener {
    topics: Topics,
    notices: Sender<Notice>,
    /// Shared with its [`Monitor`], and with nobody when that is gone.
    lost: Arc<AtomicU64>,
}

impl Monitors {
    /// One more listener.
    pub fn listen(&mut self, topics: Topics) -> Monitor {
        let (sender, notices) = bounded(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        self.0.push(Listener { topics, notices: sender, lost: lost.clone() });
        Monitor { notices, lost }
    }

    /// Tells all that listen for it.
    pub fn tell(&self, notice: &Notice) {
        for listener in self.0.iter().filter(|l| l.topics.has(notice)) {
            if let Err(TrySendError::Full(_)) = listener.notices.try_send(notice.clone()) {
                listener.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anybody listens for changes.
    pub(super) fn want_changes(&self) -> bool {
        self.0.iter().any(|l| l.topics.states || l.topics.policies)
    }
}

impl Engine {
    /// Listens.
    pub fn monitor(&self, topics: Topics) -> Monitor {
        let mut state = self.lock();
        let monitor = state.monitors.listen(topics);
        self.note_listeners(&mut state);
        monitor
    }

    /// Forgets listeners that are gone; larval states that nobody delivered in time are over.
    pub(super) fn follow_key_managers(&self) {
        let mut state = self.lock();
        self.note_listeners(&mut state);
        let tables = self.tables.load_full();
        let now = self.now();
        if !tables.states.larvals.iter().any(|l| l.outlived(now)) {
            return;
        }
        let mut next = (*tables).clone();
        let over = next.expire_larvals(now);
        self.store(Arc::new(next));
        for larval in over {
            state.monitors.tell(&Notice::Expired { state: Box::new(larval.info()), hard: true });
        }
    }

    /// SAs that have reached a limit.
    pub(super) fn tell_expired(&self, dead: &[Arc<Sa>], hard: bool) {
        let state = self.lock();
        for sa in dead {
            state.monitors.tell(&Notice::Expired { state: Box::new(sa.info()), hard });
        }
    }

    fn note_listeners(&self, state: &mut State) {
        state.monitors.0.retain(|l| Arc::strong_count(&l.lost) > 1);
        let tables = self.tables.load_full();
        let key_manager = state.monitors.0.iter().any(|l| l.topics.acquire);
        if tables.settings.key_manager != key_manager {
            let mut next = (*tables).clone();
            next.settings.key_manager = key_manager;
            self.store(Arc::new(next));
        }
    }

    /// Makes the larval state of an SA that is missing, and asks for it: once.
    pub(super) fn acquire(&self, acquire: &Acquire) {
        let state = self.lock();
        let mut next = (*self.tables.load_full()).clone();
        let Some(larval) = next.acquire(acquire, self.now()) else { return };
        self.store(Arc::new(next));
        let (larval, policy) = (Box::new(larval.info()), Box::new(acquire.policy.info()));
        state.monitors.tell(&Notice::Acquire { larval, policy });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_listener_loses_by_number_and_hears_of_its_own_topics_only() {
        let mut monitors = Monitors::default();
        let slow = monitors.listen(Topics { policies: true, ..Topics::default() });
        let other = monitors.listen(Topics { states: true, ..Topics::default() });
        (0..BACKLOG + 3).for_each(|_| monitors.tell(&Notice::PoliciesFlushed));
        assert_eq!((slow.notices.len(), slow.take_lost(), slow.take_lost()), (BACKLOG, 3, 0));
        assert_eq!((other.notices.len(), other.take_lost()), (0, 0));
    }
}
