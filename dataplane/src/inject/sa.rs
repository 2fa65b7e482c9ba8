//! Faults of one SA: it is removed, or stands in the tables otherwise than configured, until it is put back.

use std::fmt;
use std::sync::Arc;
use uvti_core::tables::{Op, Snapshot};
use uvti_core::xfrm::{Sa, StateSpec};

/// An SA, and what was put in its place.
pub(super) struct SaFault {
    /// As it was. What changes per packet goes on in it as long as something shares that.
    before: Arc<Sa>,
    change: Change,
    /// What stands in the tables since.
    after: Option<Arc<Sa>>,
}

enum Change {
    Remove,
    /// By one with keys of its own and the same sequence numbers.
    Replace(Box<StateSpec>),
    /// Keys and numbers stay.
    Update(Box<StateSpec>),
}

impl SaFault {
    /// It is not there.
    pub(super) fn remove(before: Arc<Sa>) -> Self {
        Self { before, change: Change::Remove, after: None }
    }

    /// Another stands in its place.
    pub(super) fn replace(before: Arc<Sa>, edit: impl FnOnce(&mut StateSpec)) -> Self {
        let mut spec = with_numbers(&before);
        edit(&mut spec);
        Self { before, change: Change::Replace(Box::new(spec)), after: None }
    }

    /// It was changed as by `ip xfrm state update`.
    pub(super) fn update(before: Arc<Sa>, edit: impl FnOnce(&mut StateSpec)) -> Self {
        let mut spec = before.spec.clone();
        edit(&mut spec);
        Self { before, change: Change::Update(Box::new(spec)), after: None }
    }

    /// What brings the fault about.
    pub(super) fn begin(&self) -> Vec<Op> {
        let delete = Op::StateDel(self.before.spec.id());
        match &self.change {
            Change::Remove => vec![delete],
            Change::Replace(spec) => vec![delete, Op::StateAdd(spec.clone())],
            Change::Update(spec) => vec![Op::StateUpdate(spec.clone())],
        }
    }

    /// Remembers what stands in its place.
    pub(super) fn note(&mut self, tables: &Snapshot) {
        self.after = tables.states.named(&self.before.spec.id()).cloned();
    }

    /// What puts the SA back; nothing, if somebody else has changed it since.
    ///
    /// Its sequence numbers and window are read now, when nobody uses it any more: no number is used twice.
    pub(super) fn end(&self, tables: &Snapshot) -> Vec<Op> {
        let id = self.before.spec.id();
        let now = tables.states.named(&id);
        let add = || Op::StateAdd(Box::new(with_numbers(&self.before)));
        let same = |a: &Arc<Sa>, b: &Arc<Sa>| Arc::ptr_eq(&a.run, &b.run);
        match (&self.after, now) {
            (None, None) => vec![add()],
            (Some(after), Some(now)) if same(after, now) && same(now, &self.before) => {
                vec![Op::StateUpdate(Box::new(self.before.spec.clone()))]
            }
            (Some(after), Some(now)) if same(after, now) => vec![Op::StateDel(id), add()],
            // It expired, which may have been the fault's purpose; whoever deletes one does not kill it.
            (Some(after), None) if !after.run.alive() => vec![add()],
            _ => Vec::new(),
        }
    }
}

/// The SA as configured, to go on where it is.
fn with_numbers(sa: &Sa) -> StateSpec {
    let info = sa.info();
    StateSpec { replay: info.replay, ..info.spec }
}

impl fmt::Display for SaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.before.spec;
        write!(f, "the SA {} > {} SPI {:#x}", spec.src, spec.dst, spec.spi.0)
    }
}
