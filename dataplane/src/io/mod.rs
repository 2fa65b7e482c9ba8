//! Devices and sockets: where packets come from and go to.
//!
//! Both sides are traits that move bursts ([`TunQueue`], [`Underlay`]), so that the worker's loop is the same over
//! a TUN device and raw sockets as over the in-memory devices of the tests and benches ([`memory`]).

pub mod memory;
mod pool;
pub mod tun;
pub mod underlay;

pub use pool::{PACKET_MAX, Pool};
pub use tun::TunQueue;
pub use underlay::Underlay;

pub use rustix::io::Errno;

/// What became of one packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Taken by the device or socket.
    Sent,
    /// A queue below had no room: `EAGAIN`, `ENOBUFS`.
    QueueFull,
    /// Longer than the device's MTU: `EMSGSIZE`.
    TooBig,
    /// Refused for another reason.
    Failed(Errno),
}

impl Outcome {
    /// The meaning of the errno of a send.
    pub fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOBUFS => Outcome::QueueFull,
            Errno::MSGSIZE => Outcome::TooBig,
            other => Outcome::Failed(other),
        }
    }
}

/// What a burst of receiving came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Items appended.
    pub received: usize,
    /// The pool was empty before the source was: give buffers back, then go on.
    pub starved: bool,
}
