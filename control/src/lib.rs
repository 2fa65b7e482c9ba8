//! uvti: the control side. The command line, iproute2's grammar, the control socket, views, the demo.

mod cli;
pub mod client;
mod compare;
mod counters;
mod demo;
mod expect;
#[doc(hidden)]
pub mod guest;
pub mod ip;
mod notify;
pub mod protocol;
mod run;
pub mod server;
mod service;
#[doc(hidden)]
pub mod uml;
mod views;

pub use cli::{main, main_with};
