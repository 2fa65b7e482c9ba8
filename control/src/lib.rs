//! uvti: the control side. The command line, iproute2's grammar, the control socket, views, the demo.

mod breakdown;
mod cli;
pub mod client;
mod compare;
mod counters;
mod demo;
mod drops;
mod expect;
pub mod explain;
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod guest;
mod inject;
pub mod ip;
mod keys;
mod manual;
mod measure;
mod metrics;
mod mtu;
mod notify;
mod privilege;
pub mod protocol;
mod queues;
mod run;
pub mod server;
mod service;
mod stack;
mod sysctl;
#[doc(hidden)]
pub mod uml;
mod views;

pub use cli::{main, main_with};

/// What is freed is erased: keys are parsed, copied, moved and dropped in many places, not all of them ours.
#[global_allocator]
static ERASED: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);
