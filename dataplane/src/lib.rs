//! Runs the core on threads, TUN devices and sockets.

pub mod host;
pub mod io;
mod sys;
#[doc(hidden)]
pub mod testing;
