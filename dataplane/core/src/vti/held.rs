//! What becomes of a packet that waited for an SA and then could not be sent.

use crate::reason::Reason;

/// The reason for a packet that waited, where one that did not wait is dropped for `reason`: a kernel VTI counted it
/// as sent when it began to wait, so that only the XFRM MIB moves now.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_policy_queue_process()
pub fn when_held(reason: Reason) -> Reason {
    use Reason::*;
    match reason {
        TxNoSa | TxUnmarkedNoSa => TxHeldNoSa,
        // kernel: net/xfrm/xfrm_output.c xfrm4_tunnel_check_size(): the VTI, which refuses it otherwise, is behind it
        TxTooBig | TxUnmarkedTooBig => TxHeldTooBig,
        TxPolicyBlock | TxUnmarkedPolicyBlock => TxHeldPolicyBlock,
        TxTemplateSpiClash | TxUnmarkedPolicyError => TxHeldPolicyError,
        TxNoOuterRoute | TxUnmarkedNoOuterRoute => TxHeldNoOuterRoute,
        TxSaExpired | TxUnmarkedSaExpired => TxHeldSaExpired,
        TxSeqOverflow | TxUnmarkedSeqOverflow => TxHeldSeqOverflow,
        _ => TxHeldUnsent,
    }
}
