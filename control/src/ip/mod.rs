//! `uvti ip`: iproute2's grammar in, iproute2's output out.
//!
//! [`parse`] turns words into a [`parse::Command`] without I/O.

pub mod parse;
pub mod show;
mod words;

pub use words::Fail;
