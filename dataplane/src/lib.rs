//! Runs the core on threads, TUN devices and sockets.
//!
//! Bottom up: `sys` (the only unsafe that talks to the kernel), [`io`] (devices and sockets behind traits), [`host`]
//! (netlink, namespaces, ICMP), [`account`] (counting), [`journal`] (what outlives the process), [`worker`] (the loop), [`engine`] (start, stop, apply: all
//! that control talks to), [`inject`] (faults on purpose).

pub mod account;
pub mod engine;
pub mod host;
pub mod inject;
pub mod io;
pub mod journal;
mod sys;
#[doc(hidden)]
pub mod testing;
pub mod worker;
