//! What a worker tells besides the dense totals.

use uvti_core::device::DeviceId;
use uvti_core::packet::Outer;
use uvti_core::vti::Drop;

/// A dropped packet, or several at once, as an account sees it.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    /// The device it was for, or [`DeviceId::NONE`].
    pub device: DeviceId,
    /// Why, and which objects had a part in it.
    pub drop: &'a Drop,
    /// The packet as it was when it was dropped: inner on transmit, or the outer one where it was sealed already; ESP
    /// or inner on receive. Empty where not one fragment of it found a buffer.
    pub packet: &'a [u8],
    /// Packets on the wire that it stands for.
    pub packets: u64,
    /// The outer header of a received packet that was not opened: the socket took it off.
    pub outer: Option<&'a Outer>,
}

/// Attribution and whatever else wants to know of each drop. A parameter of the worker, as
/// [`Tamper`](crate::worker::tamper::Tamper) is: benches compare with [`NoAccount`].
///
/// All of it runs on the worker's thread, on the packet path: no waiting for a lock, no system calls, and once each
/// reason has dropped a packet no allocations.
pub trait Account: Send + 'static {
    /// Packets were dropped. The dense totals have them already.
    fn dropped(&mut self, dropped: &Dropped<'_>);

    /// A burst was carried as far as it goes: what comes next is another one.
    fn burst_done(&mut self);

    /// The worker is about to flip its banks: what was told so far belongs to those it leaves.
    fn turn_page(&mut self) {}
}

/// Wants to know nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAccount;

impl Account for NoAccount {
    #[inline]
    fn dropped(&mut self, _dropped: &Dropped<'_>) {}

    #[inline]
    fn burst_done(&mut self) {}
}
