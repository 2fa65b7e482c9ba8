//! Key managers: who listens for SAs that are missing or over, and what they are told.

use super::{Engine, State};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Weak};
use uvti_core::tables::Acquire;
use uvti_core::xfrm::{PolicyInfo, Sa, StateInfo};

/// Notices that may wait for one listener; what finds no room is lost to it, as with a netlink socket.
const BACKLOG: usize = 1024;

/// What a key manager is told.
///
/// kernel: net/xfrm/xfrm_user.c xfrm_send_acquire(), xfrm_exp_state_notify()
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
}

/// A listener. While there is one, SAs that are missing are asked for.
pub struct Monitor {
    /// What it is told.
    pub notices: Receiver<Notice>,
    _present: Arc<()>,
}

/// The listeners.
#[derive(Default)]
pub(super) struct Monitors(Vec<(Sender<Notice>, Weak<()>)>);

impl Monitors {
    pub(super) fn tell(&self, notice: &Notice) {
        for (sender, _) in &self.0 {
            let _ = sender.try_send(notice.clone());
        }
    }
}

impl Engine {
    /// Listens.
    pub fn monitor(&self) -> Monitor {
        let (sender, notices) = bounded(BACKLOG);
        let present = Arc::new(());
        let mut state = self.lock();
        state.monitors.0.push((sender, Arc::downgrade(&present)));
        self.note_listeners(&mut state);
        Monitor { notices, _present: present }
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
        self.tables.store(Arc::new(next));
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
        state.monitors.0.retain(|(_, present)| present.strong_count() > 0);
        let tables = self.tables.load_full();
        let key_manager = !state.monitors.0.is_empty();
        if tables.settings.key_manager != key_manager {
            let mut next = (*tables).clone();
            next.settings.key_manager = key_manager;
            self.tables.store(Arc::new(next));
        }
    }

    /// Makes the larval state of an SA that is missing, and asks for it: once.
    pub(super) fn acquire(&self, acquire: &Acquire) {
        let state = self.lock();
        let mut next = (*self.tables.load_full()).clone();
        let Some(larval) = next.acquire(acquire, self.now()) else { return };
        self.tables.store(Arc::new(next));
        let (larval, policy) = (Box::new(larval.info()), Box::new(acquire.policy.info()));
        state.monitors.tell(&Notice::Acquire { larval, policy });
    }
}
