//! The devices themselves, VTIs and xfrm interfaces: the transmit and receive decisions in the kernel's order, and the passes over a burst.
//!
//! [`transmit`] and [`receive`] decide and change nothing; [`Transmitter`] and [`Receiver`] act on what was decided,
//! a burst at a time: any burst, whole, split or one by one, gives the same bytes, verdicts, SA state and counters.

pub mod explain;
pub mod held;
pub mod icmp;
mod inbound;
pub mod ledger;
mod memory;
pub mod onward;
mod outbound;
pub mod pmtu;
pub mod receive;
#[doc(hidden)]
pub mod testing;
pub mod transmit;
mod unmarked;
mod xfrmi;

#[cfg(test)]
mod tests;

pub use crate::device::{LinkInfo, LinkKind, LinkSpec};
pub use crate::reason::LinkStats;
pub use inbound::{Receiver, RxSlot, RxVerdict, WayPlace};
pub use outbound::{FlowPlace, Transmitter, TxSlot, TxVerdict};
pub use unmarked::Stage;

use crate::reason::Reason;
use crate::tables::Policy;
use crate::xfrm::Sa;
use std::sync::Arc;

/// A dropped packet: why, and which objects had a part in it.
#[derive(Clone, Debug)]
pub struct Drop {
    /// Why.
    pub reason: Reason,
    /// The SA, if one was found.
    pub sa: Option<Arc<Sa>>,
    /// The policy, if one was found.
    pub policy: Option<Arc<Policy>>,
    /// For packets that are too big: the largest that would have passed, bytes.
    pub mtu: u32,
}

impl From<Reason> for Drop {
    fn from(reason: Reason) -> Self {
        Drop { reason, sa: None, policy: None, mtu: 0 }
    }
}
