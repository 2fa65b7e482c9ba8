//! Counting: exact totals while traffic runs, at the cost of a plain store.
//!
//! Each worker has two banks of counters a device. It adds to the one that is open, alone. The [`Collector`] asks for
//! a flip, which the worker makes between two bursts, and then adds up and zeroes the bank that was left: no lock, no
//! shared read-modify-write, no allocation on the packet path.

mod attributed;
mod attribution;
mod bank;
mod collect;
mod flight;
mod flip;
mod gauges;
mod history;
mod ledger;
mod recorder;
mod seam;
#[cfg(test)]
mod tests;

pub use attributed::{AttributedRow, PolicyName};
pub use attribution::{Attribution, DEFAULT_ROWS, Key, Party, SaName, Shelf};
pub use bank::{Books, Count, DeviceCounters};
pub use collect::{Cells, Collector, Row, Stuck};
pub use flight::{FlightRecorder, Page};
pub use flip::Flip;
pub use gauges::{Gauge, Gauges, Marks};
pub use history::{BUCKET, BUCKETS, History, Tally};
pub use ledger::Ledger;
pub use recorder::{Contents, DEFAULT_RECORDS, Record, Recorder, SNAP, Tape};
pub use seam::{Account, Dropped, NoAccount};
