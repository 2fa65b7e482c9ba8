//! `uvti ip`: iproute2's grammar in, iproute2's output out.
//!
//! [`parse`] turns words into a [`parse::Command`] without I/O; [`run`] runs it.

pub mod batch;
pub mod difference;
mod dsfield;
mod execute;
pub(crate) mod lines;
mod listing;
mod merge;
mod names;
pub mod parse;
pub mod save;
pub mod show;
pub mod system;
pub(crate) mod words;

pub use execute::{run, run_with};
pub use words::Fail;
pub(crate) use words::number;
