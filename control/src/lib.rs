//! uvti: the control side. The command line, iproute2's grammar, the control socket, views, the demo.

mod breakdown;
mod cli;
pub mod client;
mod demo;
mod drops;
pub mod explain;
mod inject;
pub mod ip;
mod notify;
pub mod protocol;
mod queues;
mod run;
pub mod server;
mod service;
mod sysctl;
mod views;

pub use cli::{main, main_with};
