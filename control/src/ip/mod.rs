//! iproute2's `ip`: its grammar in, its output out, and everything that is not uvti's handed to the system's own.

pub mod batch;
pub mod difference;
mod execute;
pub mod parse;
mod session;
pub mod show;
mod system;
pub mod words;

pub use execute::run;
