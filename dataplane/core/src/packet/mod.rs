//! Packets: buffers, views of IP headers, flows, checksums, outer headers.

mod buf;
mod outer;

pub use buf::{Buf, HEADROOM, TAILROOM};
pub use outer::{Incoming, Outer, UdpPorts};
