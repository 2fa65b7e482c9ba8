//! The transmit decision: what a device does with a flow, and why it does nothing.
//!
//! The order of the checks is the kernel's, for it decides what is counted:
//! kernel: net/ipv4/ip_vti.c vti_xmit(), net/xfrm/xfrm_policy.c xfrm_lookup_route(),
//! net/xfrm/xfrm_interface_core.c xfrmi_xmit2()

use super::xfrmi;

use super::unmarked::{Stage, goes_on};
use crate::device::Device;
use crate::packet::tos::EcnRule;
use crate::packet::{Flow, OuterHeader};
use crate::reason::Reason;
use crate::route::{Route, RouteKey};
use crate::tables::{Acquire, Policy, Resolved, Snapshot, Unmarked};
use crate::xfrm::{Action, Direction, Family, Level, Mode, Sa, SaDirection, Template};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What happens to every packet of a flow.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Where the policy applies.
    pub stage: Stage,
    /// The policy that matched.
    pub policy: Arc<Policy>,
    /// The SA that encrypts.
    pub sa: Arc<Sa>,
    /// The way to the far end.
    pub route: Route,
    /// The largest inner packet that fits, bytes.
    pub mtu: u32,
    /// What the inner packet is padded to (RFC 4303 §2.7), bytes: as configured, but not beyond the path.
    ///
    /// kernel: net/ipv4/esp4.c esp_output()
    pub tfc_len: u32,
    /// How the outer header gets the inner one's ECN.
    pub ecn: EcnRule,
}

impl Decision {
    /// The mark of the outer packets.
    pub fn mark(&self) -> u32 {
        let mark = self.sa.spec.output_mark;
        mark.value & mark.mask
    }
}

/// Why nothing happens to them, and which objects had a part in it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// The policy that matched, if one did.
    pub policy: Option<Arc<Policy>>,
    /// The SA that was found, if one was.
    pub sa: Option<Arc<Sa>>,
}

impl From<Refused> for crate::vti::Drop {
    fn from(refused: Refused) -> Self {
        let Refused { reason, policy, sa } = refused;
        Self { reason, sa, policy, mtu: 0 }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Refused { reason, policy: None, sa: None }
    }
}

/// Decides for a flow that is about to leave by `device`. Pure: nothing is changed, numbers are not taken.
pub fn decide(tables: &Snapshot, device: &Device, flow: &Flow) -> Result<Decision, Refused> {
    // A packet that was not routed gets a route, and 0.0.0.0 is this host: on `lo` disable_xfrm is set.
    // kernel: net/ipv4/route.c ip_route_output_key_hash_rcu(), net/ipv4/devinet.c inetdev_event()
    if flow.dst == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && !device.is_xfrm() {
        return Err(Reason::TxNoDestination.into());
    }
    if let Some(decided) = decide_unmarked(tables, device, flow) {
        return decided;
    }
    if device.family() == Some(Family::V6) && flow.src == device.spec.remote {
        return Err(Reason::TxSourceIsRemote.into());
    }
    let bundle = bundle(tables, device, flow, Stage::Device)?;
    let refused = |reason| bundle.refused(reason);
    if device.is_xfrm() {
        xfrmi::check_state(&bundle.sa).map_err(refused)?;
    } else {
        check_state(device, &bundle).map_err(refused)?;
        check_ends(device).map_err(refused)?;
    }
    finish(tables, device, bundle, Stage::Device)
}

/// What is decided before the packet reaches the device, by a policy that matches it without a mark; `None` if it goes on.
fn decide_unmarked(tables: &Snapshot, device: &Device, flow: &Flow) -> Option<Result<Decision, Refused>> {
    if tables.settings.unmarked == Unmarked::Device || !tables.policies.concern_unmarked() {
        return None;
    }
    let decided = bundle(tables, device, flow, Stage::Host).and_then(|bundle| match bundle.sa.spec.mode {
        Mode::Tunnel => finish(tables, device, bundle, Stage::Host),
        _ => Err(bundle.refused(Reason::TxNotTunnelMode)),
    });
    match decided {
        Err(refused) if goes_on(refused.reason) => None,
        Err(refused) => Some(Err(Refused { reason: Stage::Host.reason(refused.reason), ..refused })),
        decided => Some(decided),
    }
}

/// Route and sizes, once policy and SA may be used.
fn finish(tables: &Snapshot, device: &Device, bundle: Bundle, stage: Stage) -> Result<Decision, Refused> {
    let refused = |reason| bundle.refused(reason);
    let route = bundle.route.ok_or_else(|| refused(Reason::TxNotTunnelMode))?;
    check_loop(tables, device, &bundle.sa, route).map_err(refused)?;
    let fits = largest_inner(&bundle.sa, route);
    let (mtu, tfc_len) = (fits.min(device.mtu), fits.min(bundle.sa.spec.tfcpad));
    let ecn = tables.settings.ecn;
    Ok(Decision { stage, policy: bundle.policy, sa: bundle.sa, route, mtu, tfc_len, ecn })
}

/// What a key manager is to be asked for, after a flow was refused: the SA that was not there, unless it was asked for
/// already or nobody listens.
///
/// kernel: net/xfrm/xfrm_state.c xfrm_state_find()
pub fn acquire(tables: &Snapshot, device: &Device, flow: &Flow, refused: &Refused) -> Option<Acquire> {
    if !tables.settings.key_manager || !wants_sa(refused.reason) {
        return None;
    }
    let policy = refused.policy.as_ref()?;
    let template = policy.spec.templates.first()?;
    let (src, dst) = template.ends(flow);
    if tables.states.larvals.in_progress(&policy.spec, template, src, dst) {
        return None;
    }
    Some(Acquire { policy: policy.clone(), flow: *flow, dev: device.spec.name.clone() })
}

fn wants_sa(reason: Reason) -> bool {
    matches!(reason, Reason::TxNoSa | Reason::TxNoTransform | Reason::TxUnmarkedNoSa)
}

/// The policy on which a refused flow's packets wait for the SA, if they do.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_create_dummy_bundle()
pub fn holder<'a>(tables: &Snapshot, device: &Device, refused: &'a Refused) -> Option<&'a Arc<Policy>> {
    // kernel: net/xfrm/xfrm_interface_core.c xfrmi_xmit2() looks up without XFRM_LOOKUP_QUEUE
    let may_wait = match refused.reason {
        Reason::TxNoSa => !device.is_xfrm(),
        Reason::TxUnmarkedNoSa => true,
        _ => false,
    };
    let waits = may_wait && !tables.settings.larval_drop;
    refused.policy.as_ref().filter(|_| waits)
}

/// Policy, SA and outer route for a flow: what the kernel calls a bundle.
struct Bundle {
    policy: Arc<Policy>,
    sa: Arc<Sa>,
    /// Looked up for modes that have an outer header.
    route: Option<Route>,
}

impl Bundle {
    fn refused(&self, reason: Reason) -> Refused {
        Refused { reason, policy: Some(self.policy.clone()), sa: Some(self.sa.clone()) }
    }
}

/// kernel: net/xfrm/xfrm_policy.c xfrm_lookup_with_ifid()
fn bundle(tables: &Snapshot, device: &Device, flow: &Flow, stage: Stage) -> Result<Bundle, Refused> {
    // IPv6 has no such sysctl, and where there is an if_id it is not asked.
    // kernel: net/ipv4/route.c __mkroute_output() DST_NOXFRM
    let asked = stage == Stage::Host || !device.is_xfrm();
    if device.disable_xfrm && asked && flow.family() == Family::V4 {
        return Err(Reason::TxXfrmDisabled.into());
    }
    let policy = policy_out(tables, device, flow, stage)?;
    let with_policy = |reason| Refused { reason, policy: Some(policy.clone()), sa: None };
    if policy.spec.action == Action::Block {
        return Err(with_policy(Reason::TxPolicyBlock));
    }
    let template = policy.spec.templates.first().ok_or_else(|| with_policy(Reason::TxBypassPolicy))?;
    let sa = resolve(tables, policy, template, flow).map_err(with_policy)?;
    let mut bundle = Bundle { policy: policy.clone(), sa: sa.clone(), route: None };
    if sa.spec.dir == Some(SaDirection::In) {
        return Err(bundle.refused(Reason::TxWrongDirection));
    }
    if sa.spec.mode != Mode::Transport {
        bundle.route = outer_route(tables, sa);
        if bundle.route.is_none() {
            return Err(bundle.refused(Reason::TxNoOuterRoute));
        }
    }
    Ok(bundle)
}

fn policy_out<'a>(
    tables: &'a Snapshot,
    device: &Device,
    flow: &Flow,
    stage: Stage,
) -> Result<&'a Arc<Policy>, Reason> {
    let policy = match stage {
        Stage::Host => tables.policies.lookup(Direction::Out, flow, &device.spec.name, 0, 0),
        Stage::Device => tables.policies.of_device(Direction::Out, flow, device),
    };
    match policy {
        Some(policy) => Ok(policy),
        None if tables.policies.defaults[Direction::Out as usize] == Action::Block => {
            Err(Reason::TxDefaultBlock)
        }
        None => Err(Reason::TxNoPolicy),
    }
}

fn resolve<'a>(
    tables: &'a Snapshot,
    policy: &Policy,
    t: &Template,
    flow: &Flow,
) -> Result<&'a Arc<Sa>, Reason> {
    let (src, dst) = t.ends(flow);
    match tables.states.resolve(&policy.spec, t, src, dst, flow) {
        Resolved::Sa(sa) => Ok(sa),
        Resolved::None if t.level == Level::Use => Err(Reason::TxNoTransform),
        Resolved::None => Err(Reason::TxNoSa),
        Resolved::SpiClash => Err(Reason::TxTemplateSpiClash),
    }
}

fn outer_route(tables: &Snapshot, sa: &Sa) -> Option<Route> {
    *tables.routes.find(&route_key(sa))?
}

/// What the outer route of an SA is looked up by.
pub fn route_key(sa: &Sa) -> RouteKey {
    let mark = sa.spec.output_mark.value & sa.spec.output_mark.mask;
    RouteKey { src: sa.spec.src, dst: sa.spec.dst, mark }
}

/// Whether the SA is one that this device may use. The kernel lumps these as a carrier error.
///
/// kernel: net/ipv4/ip_vti.c vti_state_check()
fn check_state(device: &Device, bundle: &Bundle) -> Result<(), Reason> {
    let (spec, ends) = (&bundle.sa.spec, &device.spec);
    if spec.mode != Mode::Tunnel {
        return Err(Reason::TxNotTunnelMode);
    }
    if Some(Family::of(spec.dst)) != device.family() {
        return Err(Reason::TxOuterFamily);
    }
    let source_fits = ends.local.is_unspecified() || spec.src == ends.local;
    let destination_fits = ends.remote.is_unspecified() || spec.dst == ends.remote;
    if source_fits && destination_fits { Ok(()) } else { Err(Reason::TxEndpointMismatch) }
}

/// kernel: net/ipv6/ip6_tunnel.c ip6_tnl_xmit_ctl()
fn check_ends(device: &Device) -> Result<(), Reason> {
    match (device.local_not_ours, device.remote_is_ours) {
        (true, _) => Err(Reason::TxLocalNotOurs),
        (_, true) => Err(Reason::TxRemoteIsOurs),
        _ => Ok(()),
    }
}

/// Tunnels in tunnels that are followed before they are called a loop. kernel: net/core/dev.h XMIT_RECURSION_LIMIT
const NESTING: usize = 8;

/// Whether the outer packet would come back: straight, or by way of other devices of ours.
fn check_loop(tables: &Snapshot, device: &Device, sa: &Arc<Sa>, route: Route) -> Result<(), Reason> {
    if route.ifindex == device.ifindex {
        return Err(Reason::TxLoop);
    }
    let (mut sa, mut ifindex) = (sa.clone(), route.ifindex);
    for _ in 0..NESTING {
        let Some(below) = tables.devices.by_ifindex(ifindex) else { return Ok(()) };
        // A device below that drops the packet ends the walk: it counts the drop itself.
        let Ok(next) = bundle(tables, below, &outer_flow(&sa), Stage::Device) else { return Ok(()) };
        let Some(next_route) = next.route else { return Ok(()) };
        if next_route.ifindex == device.ifindex {
            return Err(Reason::TxMutualLoop);
        }
        (sa, ifindex) = (next.sa, next_route.ifindex);
    }
    Err(Reason::TxMutualLoop)
}

/// The flow of an SA's outer packets.
pub fn outer_flow(sa: &Sa) -> Flow {
    let (proto, sport, dport) = match sa.spec.encap {
        Some(e) => (crate::packet::proto::UDP, e.sport, e.dport),
        None => (crate::packet::proto::ESP, 0, 0),
    };
    Flow { src: sa.spec.src, dst: sa.spec.dst, proto, sport, dport }
}

/// The largest inner packet that fits the path after ESP and the outer header, bytes.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_init_pmtu(), net/xfrm/xfrm_state.c __xfrm_state_mtu()
pub(super) fn largest_inner(sa: &Sa, route: Route) -> u32 {
    let header = OuterHeader::len(sa.spec.src, sa.spec.encap.is_some());
    let room = (route.mtu as usize).saturating_sub(header);
    sa.crypter.overhead().largest_inner(room) as u32
}
