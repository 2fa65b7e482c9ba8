//! uvti: the control side.

pub mod client;
pub mod ip;
pub mod protocol;
pub mod server;
