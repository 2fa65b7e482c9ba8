//! What the host's IP stack asks policies about a packet that a VTI has received: FWD if it forwards it, IN if it is its
//! own. The packet has no mark then, and has not come through IPsec: the VTI took it off.
//!
//! kernel: net/ipv4/ip_vti.c vti_rcv_cb() skb_scrub_packet(); net/ipv4/ip_forward.c ip_forward(),
//! net/ipv6/ip6_output.c ip6_forward(), net/ipv4/ip_input.c ip_protocol_deliver_rcu(): xfrm_policy_check()

use super::memory::Memory;
use crate::device::{Device, DeviceId};
use crate::packet::{Flow, Inner};
use crate::reason::Reason;
use crate::route::Onward;
use crate::tables::{Policy, Snapshot};
use crate::xfrm::{Action, Direction, Family, Level};
use std::net::IpAddr;
use std::sync::Arc;

/// Asks the host where it takes a packet from a device, by source and destination.
pub type Ask<'a> = dyn FnMut(&Device, IpAddr, IpAddr) -> Onward + 'a;

/// Whether the host lets a flow pass that it takes `onward` from `device`, and by which policy; else why not.
pub fn check<'a>(
    tables: &'a Snapshot,
    device: &Device,
    flow: &Flow,
    onward: &Onward,
) -> Result<Option<&'a Arc<Policy>>, Refusal<&'a Arc<Policy>>> {
    let (dir, dev, [block, template, default]) = match onward {
        Onward::Forward(dev) => (Direction::Fwd, dev, FORWARD),
        Onward::Local(dev) => (Direction::In, dev, LOCAL),
        Onward::Dropped => return Ok(None),
    };
    // kernel: include/net/xfrm.h __xfrm_policy_check2() DST_NOPOLICY
    if device.disable_policy[usize::from(flow.family() == Family::V6)] {
        return Ok(None);
    }
    match tables.policies.lookup(dir, flow, dev, 0, 0) {
        Some(p) if p.spec.action == Action::Block => Err((block, Some(p))),
        Some(p) if p.spec.templates.iter().any(|t| t.level == Level::Required) => Err((template, Some(p))),
        Some(p) => Ok(Some(p)),
        None if tables.policies.defaults[dir as usize] == Action::Block => Err((default, None)),
        None => Ok(None),
    }
}

const FORWARD: [Reason; 3] =
    [Reason::RxForwardBlock, Reason::RxForwardTemplate, Reason::RxForwardDefaultBlock];
const LOCAL: [Reason; 3] = [Reason::RxLocalBlock, Reason::RxLocalTemplate, Reason::RxLocalDefaultBlock];

/// Why a packet may not pass, and the policy that says so.
pub type Refusal<P> = (Reason, Option<P>);

/// What [`check`] answered.
type Answer = Result<Option<Arc<Policy>>, Refusal<Arc<Policy>>>;

/// Remembers what the host and the tables said, as long as the tables are the same.
#[derive(Default)]
pub(super) struct Onwards {
    ways: Memory<(DeviceId, IpAddr, IpAddr), Onward>,
    flows: Memory<(DeviceId, Flow), Answer>,
}

impl Onwards {
    pub(super) fn clear(&mut self) {
        self.ways.clear();
        self.flows.clear();
    }

    pub(super) fn begin(&mut self) {
        self.ways.begin();
        self.flows.begin();
    }

    /// Whether the host lets `packet` pass, which `device` has received. `now` is in seconds since the Unix epoch.
    pub(super) fn check(
        &mut self,
        tables: &Snapshot,
        device: &Device,
        packet: &[u8],
        now: u64,
        ask: &mut Ask<'_>,
    ) -> Result<(), Refusal<Arc<Policy>>> {
        // What is no IP packet the host drops before it asks.
        let Ok(Inner { flow, .. }) = Inner::dissect(packet) else { return Ok(()) };
        let key = (device.id, flow);
        let place = match self.flows.find(&key) {
            Some(place) => place,
            None => {
                let answer = match check(tables, device, &flow, self.way(device, &flow, ask)) {
                    Ok(policy) => Ok(policy.cloned()),
                    Err((reason, policy)) => Err((reason, policy.cloned())),
                };
                self.flows.put(key, answer, None)
            }
        };
        match self.flows.get(place) {
            Some(Ok(policy)) => {
                policy.iter().for_each(|policy| policy.touch(now));
                Ok(())
            }
            Some(Err((reason, policy))) => {
                policy.iter().for_each(|policy| policy.touch(now));
                Err((*reason, policy.clone()))
            }
            None => Ok(()),
        }
    }

    fn way(&mut self, device: &Device, flow: &Flow, ask: &mut Ask<'_>) -> &Onward {
        let key = (device.id, flow.src, flow.dst);
        let place = match self.ways.find(&key) {
            Some(place) => place,
            None => {
                let onward = ask(device, flow.src, flow.dst);
                self.ways.put(key, onward, None)
            }
        };
        self.ways.get(place).unwrap_or(&Onward::Dropped)
    }
}
