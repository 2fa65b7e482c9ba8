//! The tables that the datapath reads, as one immutable snapshot, and the operations that make the next one.

mod op;

pub use op::{Errno, Op, Refusal, StateMatch};
