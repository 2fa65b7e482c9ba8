//! The tables that the datapath reads, as one immutable snapshot, and the operations that make the next one.

mod classifier;
mod devices;
mod filter;
mod larval;
mod learned;
mod op;
mod policies;
mod prefixes;
mod settings;
mod shards;
mod snapshot;
mod states;

pub use devices::Devices;
pub use larval::{Acquire, Larval, Larvals};
pub use learned::{Hearsay, Learned, PathMtu};
pub use op::{Errno, Op, Refusal, StateMatch};
pub use policies::{HOLD_LIMIT, Policies, Policy};
pub use settings::{Settings, Unmarked};
pub use shards::Shards;
pub use snapshot::{Context, Snapshot};
pub use states::{Resolved, States};
