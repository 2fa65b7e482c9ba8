//! What would nearly have let a dropped packet pass. A walk of its own over the tables, after the verdict.

mod path;
mod policy;
mod state;

pub(super) use policy::outer_policy;

use super::Near;
use super::rx::asked;
use crate::device::Device;
use crate::esp;
use crate::packet::{Flow, Inner, Outer};
use crate::reason::Reason;
use crate::tables::Snapshot;
use crate::vti::Drop;
use crate::xfrm::Direction;

/// Most near misses that are told: those that differ least.
const MOST: usize = 5;

/// Something there, how many of its fields differ, and what to say about it.
struct Candidate {
    differences: usize,
    near: Near,
}

impl Candidate {
    /// `None` if nothing differs: then it is no near miss.
    fn new(subject: &str, differences: &[String], repair: Vec<String>) -> Option<Self> {
        let text = format!("{subject} {}", differences.join(", and "));
        match differences.len() {
            0 => None,
            differences => Some(Self { differences, near: Near { text, repair } }),
        }
    }
}

/// What differs in more fields than these was not meant.
const FAR: usize = 3;

/// Those that differ least, in the order in which they come.
fn nearest(candidates: impl Iterator<Item = Candidate>) -> Vec<Near> {
    let mut all: Vec<Candidate> = candidates.filter(|c| c.differences <= FAR).collect();
    let least = all.iter().map(|c| c.differences).min().unwrap_or(0);
    all.retain(|c| c.differences == least);
    all.truncate(MOST);
    all.into_iter().map(|c| c.near).collect()
}

fn near(text: impl Into<String>, repair: Vec<String>) -> Near {
    Near { text: text.into(), repair }
}

/// Near misses of a packet that did not leave.
pub(super) fn transmit(tables: &Snapshot, device: &Device, flow: &Flow, drop: &Drop) -> Vec<Near> {
    use Reason::*;
    let (policy, sa) = (drop.policy.as_deref(), drop.sa.as_deref());
    match (drop.reason, policy, sa) {
        (TxXfrmDisabled, ..) => path::disabled(device),
        (TxUnmarkedDefaultBlock, ..) => policy::default_block(Direction::Out),
        (TxNoPolicy | TxDefaultBlock, ..) => policy::candidates(tables, Direction::Out, device, flow),
        (TxPolicyBlock | TxUnmarkedPolicyBlock | TxBypassPolicy, Some(policy), _) => {
            policy::instead(tables, policy, device, flow)
        }
        (
            TxNoSa | TxNoTransform | TxTemplateSpiClash | TxUnmarkedNoSa | TxUnmarkedPolicyError,
            Some(policy),
            _,
        ) => state::for_template(tables, policy, flow),
        (TxWrongDirection | TxUnmarkedWrongDirection, _, Some(sa)) => state::direction(sa, Direction::Out),
        (TxNoOuterRoute | TxUnmarkedNoOuterRoute, _, Some(sa)) => path::no_route(sa),
        (TxNotTunnelMode, Some(policy), Some(sa)) => state::not_tunnel(policy, sa, device),
        (TxOuterFamily | TxEndpointMismatch, Some(policy), Some(sa)) => {
            policy::endpoints(tables, policy, sa, device)
        }
        (TxLoop | TxMutualLoop | TxOwnEsp | TxUnmarkedLoop, _, sa) => path::looped(device, sa),
        (TxTransportLoop, _, Some(sa)) => state::transport(sa),
        (TxTooBig | TxUnmarkedTooBig, ..) => path::too_big(device, drop.mtu),
        (TxNarrowPath, ..) => path::narrow(drop.mtu),
        (TxSaExpired | TxSeqOverflow | TxUnmarkedSaExpired | TxUnmarkedSeqOverflow, _, Some(sa)) => {
            state::used_up(sa)
        }
        _ => Vec::new(),
    }
}

/// Near misses of a packet that was not delivered.
pub(super) fn receive(
    tables: &Snapshot,
    outer: &Outer,
    bytes: &[u8],
    device: Option<&Device>,
    inner: Option<&Inner>,
    drop: &Drop,
) -> Vec<Near> {
    use Reason::*;
    let (policy, sa) = (drop.policy.as_deref(), drop.sa.as_deref());
    let header = esp::peek(bytes);
    match (drop.reason, device, sa) {
        (RxNoTunnelKnownSa, _, Some(sa)) if sa.spec.if_id != 0 => path::no_interface(tables, sa.spec.if_id),
        (RxNoTunnel | RxNoTunnelKnownSa, ..) => path::no_device(tables, outer),
        (RxOuterPolicyBlock | RxOuterPolicyTemplate, ..) => policy::unmarked(tables, outer),
        (RxOuterDefaultBlock, ..) => policy::default_block(Direction::In),
        (RxNoSa, Some(device), _) => {
            header.map_or(Vec::new(), |(spi, _)| state::for_packet(tables, outer, spi, device.spec.ikey))
        }
        (RxWrongDirection, _, Some(sa)) => state::direction(sa, Direction::In),
        (RxEncapMismatch, _, Some(sa)) => state::encap(sa, outer),
        (RxReplayOld | RxReplayDuplicate | RxReplayZero, _, Some(sa)) => {
            header.map_or(Vec::new(), |(_, seq)| state::replay(sa, seq, drop.reason))
        }
        (RxSaExpired, _, Some(sa)) => state::used_up(sa),
        (RxBadIcv, _, Some(sa)) => state::bad_icv(tables, sa, bytes),
        (RxNotTunnelMode, _, Some(sa)) => state::mode(sa),
        (RxSelectorMismatch, _, Some(sa)) => {
            inner.map_or(Vec::new(), |inner| state::selector(sa, &inner.flow))
        }
        (RxNoPolicy, Some(device), _) => inner.map_or(Vec::new(), |inner| {
            policy::candidates(tables, asked(tables, device, inner), device, &inner.flow)
        }),
        (RxPolicyBlock | RxTemplateMissing, Some(device), _) => match (policy, inner) {
            (Some(policy), Some(inner)) => policy::instead(tables, policy, device, &inner.flow),
            _ => Vec::new(),
        },
        (RxTemplateMismatch, _, Some(sa)) => policy.map_or(Vec::new(), |policy| policy::template(policy, sa)),
        _ => Vec::new(),
    }
}
