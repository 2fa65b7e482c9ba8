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
        let host =
            reason == Reason::TxUnmarkedUnsent || BEFORE_DEVICE.iter().any(|(_, before)| *before == reason);
        if host { Stage::Host } else { Stage::Device }
    }

    /// The reason at this stage, where on the device it is `reason`.
    pub fn reason(self, reason: Reason) -> Reason {
        match self {
            Stage::Device => reason,
            Stage::Host => {
                let known = BEFORE_DEVICE.iter().find(|(on_device, _)| *on_device == reason);
                known.map_or(Reason::TxUnmarkedUnsent, |(_, before)| *before)
            }
        }
    }
}

/// Whether a packet that no unmarked policy encrypts goes on to the device.
pub(super) fn goes_on(reason: Reason) -> bool {
    use Reason::*;
    matches!(reason, TxXfrmDisabled | TxNoPolicy | TxBypassPolicy | TxNoTransform)
}

/// Reasons on the device, and before it, where only the XFRM MIB moves. What is not here was not sent.
const BEFORE_DEVICE: &[(Reason, Reason)] = {
    use Reason::*;
    &[
        (TxPolicyBlock, TxUnmarkedPolicyBlock),
        (TxDefaultBlock, TxUnmarkedDefaultBlock),
        (TxNoSa, TxUnmarkedNoSa),
        (TxTemplateSpiClash, TxUnmarkedPolicyError),
        (TxWrongDirection, TxUnmarkedWrongDirection),
        (TxNoOuterRoute, TxUnmarkedNoOuterRoute),
        (TxNotTunnelMode, TxUnmarkedNotTunnelMode),
        (TxLoop, TxUnmarkedLoop),
        (TxMutualLoop, TxUnmarkedLoop),
        (TxOwnEsp, TxUnmarkedLoop),
        // kernel: net/ipv4/ip_forward.c ip_exceeds_mtu()
        (TxTooBig, TxUnmarkedTooBig),
        (TxHoldQueueFull, TxUnmarkedHoldQueueFull),
        (TxSaExpired, TxUnmarkedSaExpired),
        (TxSeqOverflow, TxUnmarkedSeqOverflow),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_of_a_reason_is_in_its_name() {
        for reason in Reason::ALL {
            let host = reason.row().name.starts_with("tx_unmarked_");
            assert_eq!(Stage::of(*reason) == Stage::Host, host, "{reason:?}");
        }
    }
}
