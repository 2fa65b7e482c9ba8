//! The receive decisions: which device and SA an ESP packet is for, and whether what was in it may pass.
//!
//! kernel: net/ipv4/ip_vti.c vti_input(), net/xfrm/xfrm_input.c xfrm_input(), vti_rcv_cb()

use super::xfrmi;

use crate::device::Device;
use crate::esp;
use crate::packet::{Flow, Inner, Outer, proto};
use crate::reason::Reason;
use crate::tables::{Policy, Snapshot};
use crate::xfrm::{
    Action, Direction, EncapKind, Level, Mode, PolicySpec, Proto, Sa, SaDirection, Spi, Template,
};
use std::net::IpAddr;
use std::sync::Arc;

/// An ESP packet that has a device and an SA.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The device it is for.
    pub device: Arc<Device>,
    /// The SA it names.
    pub sa: Arc<Sa>,
    /// Low half of its sequence number.
    pub seq: u32,
}

/// Why it has not, and how far it came.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// The device, if it met one.
    pub device: Option<Arc<Device>>,
    /// The SA, if it named one.
    pub sa: Option<Arc<Sa>>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Refused { reason, device: None, sa: None }
    }
}

/// A NAT-T keepalive is one byte of this value (RFC 3948 §2.3).
const KEEPALIVE: [u8; 1] = [0xff];

/// Finds device and SA of a received packet: everything that is decided before the packet is decrypted and that
/// does not depend on the packets before it. `esp` starts at the SPI.
pub fn admit(tables: &Snapshot, outer: &Outer, esp: &[u8]) -> Result<Admitted, Refused> {
    if outer.udp.is_some() {
        check_not_ike(esp)?;
    }
    let header = esp::peek(esp);
    let Some(device) = tables.devices.tunnel(outer.dst, outer.src) else {
        return xfrmi::admit(tables, outer, header);
    };
    let refused = |reason| Refused { reason, device: Some(device.clone()), sa: None };
    if !device.no_policy {
        outer_policy(tables, outer, proto::ESP)?;
    }
    let (spi, seq) = header.ok_or_else(|| refused(Reason::RxShort))?;
    let sa = tables
        .states
        .lookup(outer.dst, spi, Proto::Esp, device.spec.ikey)
        .ok_or_else(|| refused(without_sa(tables, device, outer, spi)))?;
    check_sa(sa, outer).map_err(|reason| Refused { sa: Some(sa.clone()), ..refused(reason) })?;
    Ok(Admitted { device: device.clone(), sa: sa.clone(), seq })
}

/// What a plain IP-in-IP packet is for a VTI, which takes it from its far end: the device it met, if it counts there,
/// and the reason for which it is dropped. Where there is an xfrm interface it is dropped from wherever it comes. `None`
/// if it is none of ours.
///
/// kernel: net/ipv4/ip_vti.c vti_rcv_ipip(), net/xfrm/xfrm_interface_core.c xfrmi4_rcv_tunnel(): looked up as an SA of
/// protocol 4, which there is not
pub fn plain_ipip(tables: &Snapshot, outer: &Outer) -> Option<Refused> {
    let Some(device) = tables.devices.tunnel(outer.dst, outer.src) else {
        return tables.devices.iter().any(|d| d.is_xfrm()).then(|| Reason::RxPlainIpip.into());
    };
    if !device.no_policy
        && let Err(reason) = outer_policy(tables, outer, proto::IPIP)
    {
        return Some(reason.into());
    }
    Some(Refused { device: Some(device.clone()), ..Reason::RxPlainIpip.into() })
}

/// RFC 3948 §2: what shares the port with ESP.
fn check_not_ike(payload: &[u8]) -> Result<(), Reason> {
    match payload {
        p if p == KEEPALIVE => Err(Reason::RxKeepalive),
        [0, 0, 0, 0, ..] => Err(Reason::RxNonEsp),
        _ => Ok(()),
    }
}

/// kernel: net/xfrm/xfrm_input.c xfrm_input()
fn without_sa(tables: &Snapshot, device: &Device, outer: &Outer, spi: Spi) -> Reason {
    match tables.states.larvals.received(outer.dst, spi, Proto::Esp, device.spec.ikey) {
        Some(_) => Reason::RxAcquire,
        None => Reason::RxNoSa,
    }
}

/// The SA and the number of a packet that met no device, if the SA opens it before no policy accepts it.
///
/// kernel: net/ipv4/esp4.c, as for any ESP packet of the host
pub fn opened_all_the_same<'a>(
    refused: &'a Refused,
    outer: &Outer,
    esp: &[u8],
) -> Option<(&'a Arc<Sa>, u32)> {
    let sa = refused.sa.as_ref().filter(|_| refused.reason == Reason::RxNoTunnelKnownSa)?;
    let (_, seq) = esp::peek(esp)?;
    (sa.spec.mode == Mode::Tunnel && check_sa(sa, outer).is_ok()).then_some((sa, seq))
}

/// What a selector's `dev` is compared with for the outer packet: the device of the host's route to itself.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_decode_session(), by the packet's route, not by where it came from
pub(crate) const OUTER_DEV: &str = "lo";

/// The input policies without mark apply to the outer packet first, which has not come through IPsec yet.
///
/// kernel: net/ipv4/ip_vti.c vti_input() xfrm4_policy_check()
fn outer_policy(tables: &Snapshot, outer: &Outer, carried: u8) -> Result<(), Reason> {
    let (protocol, sport, dport) = match outer.udp {
        Some(ports) => (proto::UDP, ports.src, ports.dst),
        None => (carried, 0, 0),
    };
    let flow = Flow { src: outer.src, dst: outer.dst, proto: protocol, sport, dport };
    match tables.policies.lookup(Direction::In, &flow, OUTER_DEV, 0, 0) {
        Some(p) if p.spec.action == Action::Block => Err(Reason::RxOuterPolicyBlock),
        Some(p) if p.spec.templates.iter().any(|t| t.level == Level::Required) => {
            Err(Reason::RxOuterPolicyTemplate)
        }
        Some(_) => Ok(()),
        None if tables.policies.defaults[Direction::In as usize] == Action::Block => {
            Err(Reason::RxOuterDefaultBlock)
        }
        None => Ok(()),
    }
}

pub(super) fn check_sa(sa: &Sa, outer: &Outer) -> Result<(), Reason> {
    if sa.spec.dir == Some(SaDirection::Out) {
        return Err(Reason::RxWrongDirection);
    }
    let wants_udp = sa.spec.encap.is_some_and(|e| e.kind != EncapKind::EspInTcp);
    if wants_udp == outer.udp.is_some() { Ok(()) } else { Err(Reason::RxEncapMismatch) }
}

/// The flow that selectors are asked about. An SA whose selector has a family is for that family: a kernel reads what
/// was in the packet as such, whatever it is.
///
/// kernel: net/ipv4/ip_vti.c vti_rcv_cb(), by the family of the SA's inner mode
pub fn flow_seen(sa: &Sa, inner: &Inner, packet: &[u8]) -> Flow {
    match sa.selector.family {
        Some(family) if family != inner.flow.family() => {
            Inner::read_as(family, packet).map_or(inner.flow, |read| read.flow)
        }
        _ => inner.flow,
    }
}

/// The policy that a packet met, if it met one.
type Matched<'a> = Option<&'a Arc<Policy>>;

/// Whether the decapsulated packet may pass: it must fit the SA's selector and the input policy, which a packet of a
/// transport does not need.
///
/// kernel: net/xfrm/xfrm_policy.c __xfrm_policy_check(), by vti_rcv_cb() with the device's ikey as mark
pub fn check_inner<'a>(
    tables: &'a Snapshot,
    device: &Device,
    sa: &Sa,
    flow: &Flow,
) -> Result<Matched<'a>, (Reason, Matched<'a>)> {
    if !sa.selector.matches(flow, "") {
        return Err((Reason::RxSelectorMismatch, None));
    }
    let dir = if device.is_xfrm() { xfrmi::direction(tables, flow) } else { Direction::In };
    match tables.policies.of_device(dir, flow, device) {
        Some(policy) => match verify(&policy.spec, sa) {
            Ok(()) => Ok(Some(policy)),
            Err(reason) => Err((reason, Some(policy))),
        },
        None if xfrmi::passes_without_policy(tables, sa, dir) => Ok(None),
        None => Err((Reason::RxNoPolicy, None)),
    }
}

fn verify(policy: &PolicySpec, sa: &Sa) -> Result<(), Reason> {
    if policy.action == Action::Block {
        return Err(Reason::RxPolicyBlock);
    }
    match policy.templates.first() {
        Some(t) if template_accepts(t, sa) => Ok(()),
        Some(_) => Err(Reason::RxTemplateMismatch),
        None if sa.spec.mode == Mode::Transport => Ok(()),
        None => Err(Reason::RxTemplateMissing),
    }
}

/// On input 0 is any, for SPI, reqid and source; the destination is ours and is not compared.
///
/// kernel: net/xfrm/xfrm_policy.c xfrm_state_ok(), include/net/xfrm.h xfrm_state_addr_cmp()
fn template_accepts(t: &Template, sa: &Sa) -> bool {
    let s = &sa.spec;
    let any_source = |a: IpAddr| a.is_unspecified();
    (t.proto == s.proto || t.proto == Proto::Any)
        && (t.spi.0 == 0 || t.spi == s.spi)
        && (t.reqid == 0 || t.reqid == s.reqid)
        && t.mode == s.mode
        && (s.mode == Mode::Transport || any_source(t.src) || t.src == s.src)
}
