//! Where an xfrm interface decides otherwise than a VTI: it has no ends and no keys, takes any SA of its `if_id`, and
//! leaves policies for received packets to the IP layer, which asks for `in` or `fwd`.
//!
//! kernel: net/xfrm/xfrm_interface_core.c

use super::receive::{Admitted, Refused, check_sa};
use crate::device::Device;
use crate::esp::NextHeader;
use crate::packet::{Buf, Flow, Inner, Outer, OuterHeader, PerPacket, proto};
use crate::reason::Reason;
use crate::tables::Snapshot;
use crate::vti::icmp::MIN_MTU_V6;
use crate::xfrm::{Action, Direction, Family, Mode, Proto, Sa, Spi};

/// Whether an SA takes packets away from the device. In transport mode there is no outer route but the inner one, which
/// is this device's.
///
/// kernel: xfrmi_xmit2(): "Local routing loop detected!"
///
/// In beet mode, which a kernel sends by too, nothing is sent here.
pub(super) fn check_state(sa: &Sa) -> Result<(), Reason> {
    match sa.spec.mode {
        Mode::Tunnel => Ok(()),
        Mode::Transport => Err(Reason::TxTransportLoop),
        _ => Err(Reason::TxNotTunnelMode),
    }
}

/// Why a packet is refused that is longer than the tunnel carries. No IPv6 packet of 1280 bytes or less is too big, but
/// nor may it be fragmented.
///
/// kernel: xfrmi_xmit2(), net/ipv6/ip6_output.c ip6_fragment()
pub(super) fn too_big(inner: &Inner, len: usize) -> Reason {
    match inner.flow.family() {
        Family::V6 if len <= MIN_MTU_V6 as usize => Reason::TxNarrowPath,
        _ => Reason::TxTooBig,
    }
}

/// Device and SA of a packet that is for no VTI: the SA names the device, wherever the packet comes from.
///
/// kernel: xfrmi_rcv_cb(), xfrmi_lookup(); net/xfrm/xfrm_input.c xfrm_input()
pub(super) fn admit(
    tables: &Snapshot,
    outer: &Outer,
    header: Option<(Spi, u32)>,
) -> Result<Admitted, Refused> {
    let (spi, seq) = header.ok_or(Reason::RxShort)?;
    let Some(sa) = tables.states.lookup(outer.dst, spi, Proto::Esp, 0) else {
        return Err(match tables.states.larvals.received(outer.dst, spi, Proto::Esp, 0) {
            Some(larval) => {
                let device = tables.devices.of_sa(larval.spec.if_id).cloned();
                Refused { device, ..Reason::RxAcquire.into() }
            }
            None => Reason::RxNoTunnel.into(),
        });
    };
    let device = tables.devices.of_sa(sa.spec.if_id);
    let refused = |reason| Refused { reason, device: device.cloned(), sa: Some(sa.clone()) };
    // Without a device the kernel's plain ESP takes the packet, and finds no policy behind it.
    let device = device.ok_or_else(|| refused(Reason::RxNoTunnelKnownSa))?;
    check_sa(sa, outer).map_err(refused)?;
    Ok(Admitted { device: device.clone(), sa: sa.clone(), seq })
}

/// In transport mode the packet goes on with the header that it came with.
///
/// kernel: net/ipv4/xfrm4_input.c xfrm4_transport_finish(). IP in it is a packet of its own, for which there is no SA.
pub(super) fn put_header(buf: &mut Buf, outer: &Outer, upper: NextHeader) -> Result<NextHeader, Reason> {
    if matches!(upper, NextHeader::IPV4 | NextHeader::IPV6) {
        return Err(Reason::RxPlainIpip);
    }
    let header = OuterHeader::around(outer.src, outer.dst, upper.0).map_err(|_| Reason::RxInnerProto)?;
    let packet = PerPacket { tos: outer.tos, ..PerPacket::default() };
    header.push(buf, packet).map_err(|_| Reason::RxInnerShort)?;
    Ok(NextHeader(if outer.dst.is_ipv4() { proto::IPIP } else { proto::IPV6 }))
}

/// The direction whose policies a received packet meets.
///
/// kernel: net/ipv4/ip_forward.c ip_forward(), net/ipv4/ip_input.c ip_protocol_deliver_rcu()
pub(super) fn direction(tables: &Snapshot, flow: &Flow) -> Direction {
    if tables.is_for_us(flow.dst) { Direction::In } else { Direction::Fwd }
}

/// Whether a packet that no policy matches may pass: as one that was not in a tunnel.
///
/// kernel: net/xfrm/xfrm_policy.c __xfrm_policy_check() secpath_has_nontransport()
pub(super) fn passes_without_policy(tables: &Snapshot, sa: &Sa, dir: Direction) -> bool {
    sa.spec.mode == Mode::Transport && tables.policies.defaults[dir as usize] == Action::Allow
}

/// Whether `disable_policy` of the device spares a packet the look at policies. IPv6 asks another device: that of the
/// destination address.
///
/// kernel: net/ipv4/route.c ip_route_input_slow() DST_NOPOLICY; net/ipv6/addrconf.c
pub(super) fn needs_no_policy(device: &Device, inner: &Inner) -> bool {
    device.no_policy && (!device.is_xfrm() || inner.flow.family() == Family::V4)
}
