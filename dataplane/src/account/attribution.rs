//! Which SA and which policy the drops were about: the worker's side.
//!
//! A worker adds to a page of its own, a bounded table. When the banks flip it puts the page on its [`Shelf`] and takes
//! the empty one from there; the [`Collector`](super::Collector) empties what lies on the shelf in the same agreement
//! in which it empties the bank. So what is attributed adds up to the dense totals exactly, at every look.

use super::seam::{Account, Dropped};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uvti_core::device::DeviceId;
use uvti_core::reason::Reason;
use uvti_core::tables::Policy;
use uvti_core::xfrm::{Sa, SaId};

/// Rows a worker has, unless it is told otherwise.
pub const DEFAULT_ROWS: usize = 16384;

/// What drops are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The device, or [`DeviceId::NONE`].
    pub device: DeviceId,
    /// Why.
    pub reason: Reason,
    /// SA and policy.
    pub party: Party,
}

/// Which SA and policy had a part in a drop, by their numbers in the order of creation. No number is used twice: what
/// comes after a deleted SA in its place is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// These; none where the packet did not come as far.
    Known {
        /// The SA.
        sa: Option<NonZeroU64>,
        /// The policy.
        policy: Option<NonZeroU64>,
    },
    /// Some of those for which the table had no row left.
    Other,
}

impl Key {
    #[inline]
    fn of(dropped: &Dropped<'_>) -> Self {
        let Dropped { device, drop, .. } = *dropped;
        let sa = drop.sa.as_ref().and_then(|sa| NonZeroU64::new(sa.number));
        let policy = drop.policy.as_ref().and_then(|p| NonZeroU64::new(p.number));
        Self { device, reason: drop.reason, party: Party::Known { sa, policy } }
    }

    /// The row that takes the drops of those that have none.
    pub(super) fn other(self) -> Self {
        Self { party: Party::Other, ..self }
    }
}

/// What names an SA, also after it was deleted. A copy: whoever kept the SA itself would keep its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaName {
    /// Destination, SPI, protocol, mark.
    pub id: SaId,
    /// Request id.
    pub reqid: u32,
}

impl From<&Sa> for SaName {
    fn from(sa: &Sa) -> Self {
        Self { id: sa.spec.id(), reqid: sa.spec.reqid }
    }
}

/// The drops of one key since the page was begun.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) packets: u64,
    pub(super) sa: Option<SaName>,
    pub(super) policy: Option<Arc<Policy>>,
}

/// A bounded table of drops.
#[derive(Debug)]
pub(super) struct Page {
    entries: Vec<Entry>,
    index: HashMap<Key, usize, RandomState>,
    /// Rows of SAs and policies there may be; rows [`Party::Other`] come on top, at most one a device and reason.
    limit: usize,
    known: usize,
}

impl Page {
    fn new(limit: usize) -> Self {
        // Room for the others of one device from the start.
        let room = limit + Reason::COUNT;
        let index = HashMap::with_capacity_and_hasher(room, RandomState::default());
        Self { entries: Vec::with_capacity(room), index, limit, known: 0 }
    }

    /// Where the drops of a key are added up.
    fn find(&mut self, key: Key, dropped: &Dropped<'_>) -> usize {
        if let Some(at) = self.index.get(&key) {
            return *at;
        }
        if self.known < self.limit {
            self.known += 1;
            let sa = dropped.drop.sa.as_deref().map(SaName::from);
            return self.append(Entry { key, packets: 0, sa, policy: dropped.drop.policy.clone() });
        }
        let key = key.other();
        match self.index.get(&key) {
            Some(at) => *at,
            None => self.append(Entry { key, packets: 0, sa: None, policy: None }),
        }
    }

    fn append(&mut self, entry: Entry) -> usize {
        let at = self.entries.len();
        self.index.insert(entry.key, at);
        self.entries.push(entry);
        at
    }

    /// Empties it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> + '_ {
        self.index.clear();
        self.known = 0;
        self.entries.drain(..)
    }
}

/// Where a worker leaves a page for the collector. Locked once a flip by the worker, and by the collector only between
/// two flips: neither waits for the other.
#[derive(Debug)]
pub struct Shelf(Mutex<Box<Page>>);

impl Shelf {
    /// The page that the worker has left.
    pub(super) fn page(&self) -> MutexGuard<'_, Box<Page>> {
        // Swapping and draining leave a page whole at each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's attribution.
#[derive(Debug)]
pub struct Attribution {
    page: Box<Page>,
    shelf: Arc<Shelf>,
    /// The key of the last drop, and its row: drops come in runs.
    run: Option<(Key, usize)>,
}

impl Attribution {
    /// With so many rows for SAs and policies.
    pub fn new(rows: usize) -> Self {
        let page = || Box::new(Page::new(rows));
        Self { page: page(), shelf: Arc::new(Shelf(Mutex::new(page()))), run: None }
    }

    /// Where the collector finds what was attributed.
    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.clone()
    }
}

impl Account for Attribution {
    #[inline]
    fn dropped(&mut self, dropped: &Dropped<'_>) {
        let key = Key::of(dropped);
        let at = match &self.run {
            Some((last, at)) if *last == key => *at,
            _ => {
                let at = self.page.find(key, dropped);
                self.run = Some((key, at));
                at
            }
        };
        self.page.entries[at].packets += dropped.packets;
    }

    #[inline]
    fn burst_done(&mut self) {}

    fn turn_page(&mut self) {
        self.run = None;
        std::mem::swap(&mut *self.shelf.page(), &mut self.page);
    }
}
