//! The tables that the datapath reads, as one immutable snapshot, and the operations that make the next one.

mod classifier;
mod devices;
mod filter;
mod op;
mod policies;
mod prefixes;
mod shards;
mod snapshot;
mod states;

pub use devices::Devices;
pub use op::{Errno, Op, Refusal, StateMatch};
pub use policies::{Policies, Policy};
pub use shards::Shards;
pub use snapshot::{Context, Snapshot};
pub use states::{Resolved, States};
