//! Which SA and which policy the drops were about: the collector's side, over all workers and for good.

use super::attribution::{Key, Page, Party, SaName};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uvti_core::tables::Policy;
use uvti_core::xfrm::{Direction, Mark, Selector};

/// What names a policy, also after it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyName {
    /// Index.
    pub index: u32,
    /// Direction.
    pub dir: Direction,
    /// Priority.
    pub priority: u32,
    /// Mark.
    pub mark: Mark,
    /// `if_id` of an xfrm interface; 0 for none.
    pub if_id: u32,
    /// Packets it is for.
    pub sel: Selector,
}

impl From<&Policy> for PolicyName {
    fn from(policy: &Policy) -> Self {
        let spec = &policy.spec;
        let (index, dir, priority, mark) = (spec.index, spec.dir, spec.priority, spec.mark);
        Self { index, dir, priority, mark, if_id: spec.if_id, sel: spec.sel.clone() }
    }
}

/// The drops of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributedRow {
    /// Device, reason, and which SA and policy by number.
    pub key: Key,
    /// Packets.
    pub packets: u64,
    /// The SA by name.
    pub sa: Option<SaName>,
    /// The policy by name.
    pub policy: Option<PolicyName>,
}

/// All that was attributed, in a bounded number of rows.
#[derive(Debug)]
pub(super) struct Attributed {
    rows: HashMap<Key, Kept>,
    /// Rows of SAs and policies that are kept; rows [`Party::Other`] come on top.
    limit: usize,
    /// How many pages were taken.
    age: u64,
}

#[derive(Debug)]
struct Kept {
    row: AttributedRow,
    /// When something was last added.
    age: u64,
}

impl Attributed {
    pub(super) fn new(limit: usize) -> Self {
        Self { rows: HashMap::new(), limit, age: 0 }
    }

    /// Adds what is on a page, and empties it.
    pub(super) fn take(&mut self, page: &mut Page) {
        self.age += 1;
        for entry in page.drain() {
            let policy = entry.policy.as_deref();
            self.add(AttributedRow {
                key: entry.key,
                packets: entry.packets,
                sa: entry.sa,
                policy: policy.map(PolicyName::from),
            });
        }
        self.forget();
    }

    fn add(&mut self, row: AttributedRow) {
        let age = self.age;
        self.rows
            .entry(row.key)
            .and_modify(|kept| {
                kept.row.packets += row.packets;
                kept.age = age;
            })
            .or_insert(Kept { row, age });
    }

    /// When there are too many rows, those of which nothing was heard for longest go into the other ones: with as many
    /// SAs and policies coming and going, those that are of today keep their rows.
    fn forget(&mut self) {
        if self.rows.len() <= self.limit {
            return;
        }
        let known = |kept: &&Kept| kept.row.key.party != Party::Other;
        let mut oldest: Vec<_> =
            self.rows.values().filter(known).map(|kept| (kept.age, kept.row.packets, kept.row.key)).collect();
        let Some(excess) = oldest.len().checked_sub(self.limit + 1) else { return };
        oldest.sort_unstable();
        // An eighth more than needed, so that this is not done for each new row.
        for (_, packets, key) in oldest.into_iter().take(excess + 1 + self.limit / 8) {
            self.rows.remove(&key);
            self.add(AttributedRow { key: key.other(), packets, sa: None, policy: None });
        }
    }

    pub(super) fn rows(&self) -> Vec<AttributedRow> {
        self.rows.values().map(|kept| kept.row.clone()).collect()
    }
}
