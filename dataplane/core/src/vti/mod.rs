//! The VTI itself: devices, the transmit and receive decisions in the kernel's order, MTU and ICMP.

mod device;

pub use device::{LinkInfo, LinkKind, LinkSpec, LinkStats};
