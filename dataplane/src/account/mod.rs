//! Counting: exact totals while traffic runs, at the cost of a plain store.
//!
//! Each worker has two banks of counters a device. It adds to the one that is open, alone. The [`Collector`] asks for
//! a flip, which the worker makes between two bursts, and then adds up and zeroes the bank that was left: no lock, no
//! shared read-modify-write, no allocation on the packet path.

mod attributed;
mod attribution;
mod bank;
mod collect;
mod flip;
mod gauges;
mod ledger;
mod seam;
#[cfg(test)]
mod tests;

pub use attributed::{AttributedRow, PolicyName};
pub use attribution::{Attribution, DEFAULT_ROWS, Key, Party, SaName, Shelf};
pub use bank::{Books, Count, DeviceCounters};
pub use collect::{Cells, Collector, Row, Stuck};
pub use flip::Flip;
pub use gauges::{Gauge, Gauges, Marks};
pub use ledger::Ledger;
pub use seam::{Account, Dropped, NoAccount};
