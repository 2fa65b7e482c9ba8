//! What of the SAs outlives the process: how far their sequence numbers are, by the fingerprint of their keys.
//!
//! A number is reserved on the disk before it may be used, a million at a time and long before the last million is used
//! up; a worker looks at an atomic only, and stops at the end of what is reserved. What was received is noted each
//! second. A clean stop notes exactly how far each SA is.

mod file;
mod record;

#[cfg(test)]
mod tests;

pub use file::JournalError;

use file::JournalFile;
use record::Record;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use uvti_core::xfrm::{Fingerprint, Runtime, Sa, SaDirection};

/// Numbers that are reserved at a time: what a killed process burns at most, of each SA.
pub const CHUNK: u64 = 1 << 20;
/// Deleted SAs that are remembered, in case they come back.
const REMEMBERED: usize = 1 << 16;
/// Records in the file that may be out of date, besides as many as there are SAs.
const STALE: usize = 4096;

/// The numbers of all SAs, on a disk.
pub struct Journal {
    file: JournalFile,
    entries: HashMap<Fingerprint, Entry>,
    /// Of the transaction under way.
    staged: Vec<(Record, Arc<Runtime>)>,
    /// Grows with each change of an entry.
    clock: u64,
    failing: bool,
}

struct Entry {
    /// What is on the disk.
    record: Record,
    /// The SA that goes on from there, if there is one.
    live: Option<Arc<Runtime>>,
    changed: u64,
}

impl Entry {
    /// The SA, if it is still in some snapshot.
    fn running(&self) -> Option<&Arc<Runtime>> {
        self.live.as_ref().filter(|run| Arc::strong_count(run) > 1)
    }

    /// How far it is exactly, if nobody uses it any more.
    fn exact(&self, run: &Runtime) -> Record {
        let received = run.window.top().max(self.record.received);
        Record { sent: run.out.last().min(self.record.sent), received, ..self.record }
    }

    /// What should be on the disk, if that is something else.
    fn due(&self, received: bool) -> Option<Record> {
        let run = self.live.as_ref()?;
        if self.running().is_none() {
            return Some(self.exact(run)).filter(|exact| *exact != self.record);
        }
        let mut due = self.record;
        if run.out.waits() && self.record.sent.saturating_sub(run.out.last()) < CHUNK / 2 {
            due.sent = run.out.last().saturating_add(CHUNK).min(run.out.limit());
        }
        if received {
            due.received = due.received.max(run.window.top());
        }
        (due != self.record).then_some(due)
    }
}

impl Journal {
    /// Opens the state directory, or makes it.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let (file, records) = JournalFile::open(folder)?;
        let mut entries: HashMap<Fingerprint, Entry> = HashMap::new();
        for (changed, record) in records.into_iter().enumerate() {
            // The last line of an SA counts: it may say that not all of what was reserved was used.
            entries.insert(record.fingerprint, Entry { record, live: None, changed: changed as u64 });
        }
        let clock = entries.len() as u64;
        Ok(Self { file, entries, staged: Vec::new(), clock, failing: false })
    }

    /// Lets a new SA, which nobody sees yet, go on where one with the same key stopped. It may send nothing until
    /// [`commit`](Self::commit).
    pub fn take_up(&mut self, sa: &Sa) {
        let fingerprint = sa.spec.fingerprint();
        let known = self.entries.get(&fingerprint);
        if known.and_then(|e| e.live.as_ref()).is_some_and(|run| Arc::ptr_eq(run, &sa.run)) {
            return;
        }
        let staged = self.staged.iter().rev().find(|(record, _)| record.fingerprint == fingerprint);
        let before = staged.map(|(record, _)| *record).or_else(|| {
            let entry = known?;
            // Whoever still has the old one may use all that it has reserved.
            let gone = entry.live.as_ref().filter(|_| entry.running().is_none());
            Some(gone.map_or(entry.record, |run| entry.exact(run)))
        });
        if let Some(before) = before {
            sa.run.resume(before.sent, before.received, before.salt);
        }
        let last = sa.run.out.last();
        sa.run.out.grant(last);
        let ahead = if sa.spec.dir == Some(SaDirection::In) { 0 } else { CHUNK };
        let record = Record {
            fingerprint,
            dst: sa.spec.dst,
            spi: sa.spec.spi,
            sent: last.saturating_add(ahead).min(sa.run.out.limit()),
            received: sa.run.window.top(),
            salt: sa.run.salt(),
        };
        self.staged.push((record, sa.run.clone()));
    }

    /// Forgets the SAs of a transaction that was refused.
    pub fn abandon(&mut self) {
        self.staged.clear();
    }

    /// Notes the new SAs, and lets them send.
    pub fn commit(&mut self) -> io::Result<()> {
        let staged = std::mem::take(&mut self.staged);
        let records: Vec<_> = staged.iter().map(|(record, _)| *record).collect();
        self.file.append(&records)?;
        for (record, run) in staged {
            self.clock += 1;
            run.out.grant(granted(&record, &run));
            let entry = Entry { record, live: Some(run), changed: self.clock };
            self.entries.insert(record.fingerprint, entry);
        }
        self.compact();
        Ok(())
    }

    /// Reserves numbers where they run short, notes how far deleted SAs came, and what was `received`. That the disk
    /// fails is logged once; what could not be noted is tried again.
    pub fn keep(&mut self, received: bool) {
        let due: Vec<Record> = self.entries.values().filter_map(|e| e.due(received)).collect();
        let done = self.write(&due);
        if let Err(error) = &done
            && !self.failing
        {
            let path = self.path();
            tracing::error!(%path, %error, "cannot note sequence numbers: SAs stop when the reserved ones are used up");
        }
        self.failing = done.is_err();
        self.entries.values_mut().filter(|e| e.running().is_none()).for_each(|e| e.live = None);
        self.compact();
    }

    /// Notes exactly how far each SA is. No worker may run any more.
    pub fn close(&mut self) {
        let exact = |entry: &Entry| entry.live.as_ref().map(|run| entry.exact(run));
        let due: Vec<Record> = self.entries.values().filter_map(exact).collect();
        if let Err(error) = self.file.append(&due) {
            tracing::error!(path = %self.path(), %error, "cannot note sequence numbers");
        }
    }

    /// The file's name.
    pub fn path(&self) -> String {
        self.file.path().display().to_string()
    }

    fn write(&mut self, due: &[Record]) -> io::Result<()> {
        self.file.append(due)?;
        for record in due {
            self.clock += 1;
            let Some(entry) = self.entries.get_mut(&record.fingerprint) else { continue };
            (entry.record, entry.changed) = (*record, self.clock);
            if let Some(run) = entry.running() {
                run.out.grant(granted(record, run));
            }
        }
        Ok(())
    }

    /// Writes the file anew when most of it is out of date, without the SAs that were deleted longest ago.
    fn compact(&mut self) {
        if self.file.lines <= 2 * self.entries.len() + STALE {
            return;
        }
        let mut gone: Vec<_> = self
            .entries
            .values()
            .filter(|e| e.live.is_none())
            .map(|e| (e.changed, e.record.fingerprint))
            .collect();
        gone.sort_unstable();
        gone.truncate(gone.len().saturating_sub(REMEMBERED));
        gone.iter().for_each(|(_, fingerprint)| _ = self.entries.remove(fingerprint));
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_unstable_by_key(|e| e.changed);
        let records: Vec<_> = entries.iter().map(|e| e.record).collect();
        if let Err(error) = self.file.rewrite(records.iter()) {
            tracing::warn!(path = %self.path(), %error, "cannot shorten the journal of sequence numbers");
        }
    }
}

/// The end of what may be sent, once `record` is on the disk. At the last number of all there is nothing to wait for.
fn granted(record: &Record, run: &Runtime) -> u64 {
    if record.sent >= run.out.limit() { u64::MAX } else { record.sent }
}
