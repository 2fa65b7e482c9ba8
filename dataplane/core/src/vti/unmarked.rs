//! Policies that match packets without a mark apply, in a kernel, where the host routes the inner packet: it is
//! encrypted or dropped there, and its VTI never sees it.
//!
//! kernel: net/ipv4/ip_forward.c ip_forward(), net/ipv4/route.c ip_route_output_flow()

use crate::reason::Reason;

/// Where a policy applies to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Where the host routes it: nothing is counted on the device.
    Host,
    /// On the device, with its okey as mark.
    #[default]
    Device,
}

impl Stage {
    /// Where a packet was dropped for a reason.
    pub(super) fn of(reason: Reason) -> Self {
        if reason.row().name.starts_with("tx_unmarked_") { Stage::Host } else { Stage::Device }
    }

    /// The reason at this stage, where on the device it is `reason`.
    pub fn reason(self, reason: Reason) -> Reason {
        match self {
            Stage::Device => reason,
            Stage::Host => before_device(reason),
        }
    }
}

/// Whether a packet that no unmarked policy encrypts goes on to the device.
pub(super) fn goes_on(reason: Reason) -> bool {
    use Reason::*;
    matches!(reason, TxXfrmDisabled | TxNoPolicy | TxBypassPolicy | TxNoTransform)
}

/// Only the XFRM MIB moves.
fn before_device(reason: Reason) -> Reason {
    use Reason::*;
    match reason {
        TxPolicyBlock => TxUnmarkedPolicyBlock,
        TxDefaultBlock => TxUnmarkedDefaultBlock,
        TxNoSa => TxUnmarkedNoSa,
        TxTemplateSpiClash => TxUnmarkedPolicyError,
        TxWrongDirection => TxUnmarkedWrongDirection,
        TxNoOuterRoute => TxUnmarkedNoOuterRoute,
        TxNotTunnelMode => TxUnmarkedNotTunnelMode,
        TxLoop | TxMutualLoop | TxOwnEsp => TxUnmarkedLoop,
        // kernel: net/ipv4/ip_forward.c ip_exceeds_mtu()
        TxTooBig => TxUnmarkedTooBig,
        TxHoldQueueFull => TxUnmarkedHoldQueueFull,
        TxSaExpired => TxUnmarkedSaExpired,
        TxSeqOverflow => TxUnmarkedSeqOverflow,
        _ => TxUnmarkedUnsent,
    }
}
