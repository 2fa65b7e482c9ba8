//! Devices and outer routes.

use super::{Candidate, near, nearest};
use crate::device::Device;
use crate::packet::Outer;
use crate::tables::Snapshot;
use crate::vti::explain::Near;
use crate::xfrm::{Family, Sa};

/// `disable_xfrm` is set.
pub(super) fn disabled(device: &Device) -> Vec<Near> {
    let name = &device.spec.name;
    vec![near(
        format!("disable_xfrm is set on {name}"),
        vec![format!("sysctl -w net.ipv4.conf.{name}.disable_xfrm=0")],
    )]
}

/// No way to the far end.
pub(super) fn no_route(sa: &Sa) -> Vec<Near> {
    let (src, dst) = (sa.spec.src, sa.spec.dst);
    let text = format!("the host has no route to {dst} from {src}");
    vec![near(text, vec![format!("ip route add {dst} via $GATEWAY")])]
}

/// The way to the far end leads into the tunnel.
pub(super) fn looped(device: &Device, sa: Option<&Sa>) -> Vec<Near> {
    let name = &device.spec.name;
    let to = sa.map_or(device.spec.remote, |sa| sa.spec.dst);
    let text = format!("the route to {to} leads into a tunnel, by way of {name}");
    vec![near(text, vec![format!("ip route add {to} via $GATEWAY dev $UNDERLAY")])]
}

/// A packet that may not be fragmented.
pub(super) fn too_big(device: &Device, mtu: u32) -> Vec<Near> {
    let name = &device.spec.name;
    let text = format!("the largest that passes is {mtu} bytes, the device's MTU is {}", device.mtu);
    let repair = (mtu < device.mtu).then(|| format!("uvti ip link set dev {name} mtu {mtu}"));
    vec![near(text, repair.into_iter().collect())]
}

/// A path on which IPv6 has no room.
pub(super) fn narrow(mtu: u32) -> Vec<Near> {
    let text = format!("the path carries {mtu} bytes of inner packet, and IPv6 wants 1280");
    vec![near(text, Vec::new())]
}

/// The SA names an xfrm interface that is down, or not there.
pub(super) fn no_interface(tables: &Snapshot, if_id: u32) -> Vec<Near> {
    let (text, repair) = match tables.devices.iter().find(|d| d.is_xfrm() && d.spec.if_id == if_id) {
        Some(device) => (
            format!("{} has the SA's if_id {if_id:#x}, but it is down", device.spec.name),
            format!("ip link set dev {} up", device.spec.name),
        ),
        None => (
            format!("there is no xfrm interface with the SA's if_id {if_id:#x}"),
            format!("uvti ip link add type xfrm if_id {if_id:#x}"),
        ),
    };
    vec![near(text, vec![repair])]
}

/// Devices whose ends are nearly the packet's.
pub(super) fn no_device(tables: &Snapshot, outer: &Outer) -> Vec<Near> {
    let family = Some(Family::of(outer.dst));
    nearest(tables.devices.iter().filter(|d| d.family() == family).filter_map(|d| {
        let (spec, mut differ, mut repair) = (&d.spec, Vec::new(), Vec::new());
        let (name, kind) = (&spec.name, spec.kind.name());
        let (mut local, mut remote) = (spec.local, spec.remote);
        if !local.is_unspecified() && local != outer.dst {
            differ.push(format!("its local is {local}, the packet goes to {}", outer.dst));
            local = outer.dst;
        }
        if !remote.is_unspecified() && remote != outer.src {
            differ.push(format!("its remote is {remote}, the packet comes from {}", outer.src));
            remote = outer.src;
        }
        if !differ.is_empty() {
            repair.push(format!("uvti ip link change {name} type {kind} local {local} remote {remote}"));
        }
        if !d.up {
            differ.push("it is down".to_owned());
            repair.push(format!("ip link set dev {name} up"));
        }
        Candidate::new(&format!("{name} would take it, but"), &differ, repair)
    }))
}
