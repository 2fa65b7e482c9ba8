//! Routes: what the kernel answers for an outer packet, and adding routes.

use super::address::family;
use super::{Netlink, NetlinkError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use rustix::io::Errno;
use std::net::IpAddr;

/// The kernel's route for an outer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterRoute {
    /// Index of the device that it leaves by.
    pub ifindex: u32,
    /// Source address that the host would choose.
    pub prefsrc: Option<IpAddr>,
    /// Largest packet, bytes: the route's own MTU (or the path MTU that the host learned), else the device's.
    pub mtu: u32,
    /// Whether the destination is this host.
    pub scope: Scope,
    /// Whether the device is up and has a carrier. The kernel routes to one without.
    pub carrier: bool,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Out of a device.
    Unicast,
    /// To this host.
    Local,
}

/// Why there is no route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No route matches (`ENETUNREACH`).
    #[error("no route to the destination")]
    NoRoute,
    /// An `unreachable` route matches (`EHOSTUNREACH`).
    #[error("an unreachable route matches the destination")]
    Unreachable,
    /// A `blackhole` route matches (`EINVAL`).
    #[error("a blackhole route matches the destination")]
    Blackhole,
    /// A `prohibit` route matches (`EACCES`).
    #[error("a prohibit route matches the destination")]
    Prohibit,
    /// The source is not an address of this host.
    #[error("the source address is not one of this host")]
    SourceNotLocal,
    /// The answer is of a type to which nothing can be sent (broadcast, multicast, …).
    #[error("the destination is not unicast: the route is of type {0:?}")]
    NotUnicast(RouteType),
    /// The question could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A route to be added to the main table.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec {
    /// Destination.
    pub dst: IpAddr,
    /// Length of the destination's prefix.
    pub prefix: u8,
    /// Gateway.
    pub via: Option<IpAddr>,
    /// Index of the device.
    pub dev: Option<u32>,
    /// `mtu N`.
    pub mtu: Option<u32>,
    /// `unicast` unless it refuses.
    pub kind: RouteKind,
}

/// Kinds of routes that can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "iproute2's names")]
pub enum RouteKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
}

impl Netlink {
    /// What the kernel would do with a packet from `src` (unless unspecified) to `dst` that carries `mark` and is
    /// to leave by device `oif` (unless 0).
    pub fn route(
        &mut self,
        src: Option<IpAddr>,
        dst: IpAddr,
        mark: u32,
        oif: u32,
    ) -> Result<OuterRoute, RouteError> {
        let src = src.filter(|address| !address.is_unspecified());
        let message = match self.ask(src, dst, mark, oif) {
            Ok(message) => message,
            Err(error) => return Err(self.explain(error, src)),
        };
        let scope = match message.header.kind {
            RouteType::Unicast => Scope::Unicast,
            RouteType::Local => Scope::Local,
            // IPv6 answers with the route; IPv4 with its error.
            RouteType::BlackHole => return Err(RouteError::Blackhole),
            RouteType::Unreachable => return Err(RouteError::Unreachable),
            RouteType::Prohibit => return Err(RouteError::Prohibit),
            other => return Err(RouteError::NotUnicast(other)),
        };
        self.read_route(&message, scope)
    }

    fn read_route(&mut self, message: &RouteMessage, scope: Scope) -> Result<OuterRoute, RouteError> {
        let (mut ifindex, mut prefsrc, mut route_mtu) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::PrefSource(RouteAddress::Inet(a)) => prefsrc = Some(IpAddr::V4(*a)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(a)) => prefsrc = Some(IpAddr::V6(*a)),
                RouteAttribute::Metrics(metrics) => {
                    route_mtu = metrics.iter().find_map(|m| match m {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let ifindex = ifindex.ok_or_else(|| Self::misread("asking for a route", "it names no device"))?;
        let link = self.link_by_index(ifindex)?;
        let mtu = route_mtu.unwrap_or(link.mtu);
        Ok(OuterRoute { ifindex, prefsrc, mtu, scope, carrier: link.up && link.carrier })
    }

    fn ask(
        &mut self,
        src: Option<IpAddr>,
        dst: IpAddr,
        mark: u32,
        oif: u32,
    ) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(dst);
        message.header.destination_prefix_length = full_prefix(dst);
        message.attributes.push(RouteAttribute::Destination(dst.into()));
        if let Some(src) = src {
            message.header.source_prefix_length = full_prefix(src);
            message.attributes.push(RouteAttribute::Source(src.into()));
        }
        if mark != 0 {
            message.attributes.push(RouteAttribute::Mark(mark));
        }
        if oif != 0 {
            message.attributes.push(RouteAttribute::Oif(oif));
        }
        let what = format!("asking for the route to {dst}");
        match self.query(Message::GetRoute(message), &what)? {
            Message::NewRoute(message) => Ok(message),
            _ => Err(Self::misread(&what, "it is not a route")),
        }
    }

    /// The meaning of an errno. kernel: net/ipv4/fib_semantics.c fib_props
    fn explain(&mut self, error: NetlinkError, src: Option<IpAddr>) -> RouteError {
        let errno = error.errno();
        // A source that the host does not have is refused with the errno of another cause: ENETUNREACH measured on
        // 6.18. kernel: net/ipv4/route.c ip_route_output_key_hash_rcu()
        if let (Some(Errno::NETUNREACH | Errno::INVAL), Some(src)) = (errno, src) {
            match self.has_address(src) {
                Ok(true) => {}
                Ok(false) => return RouteError::SourceNotLocal,
                Err(error) => return error.into(),
            }
        }
        match errno {
            Some(Errno::NETUNREACH) => RouteError::NoRoute,
            Some(Errno::HOSTUNREACH) => RouteError::Unreachable,
            Some(Errno::ACCESS) => RouteError::Prohibit,
            Some(Errno::INVAL) => RouteError::Blackhole,
            _ => RouteError::Netlink(error),
        }
    }

    /// Adds a route to the main table.
    pub fn add_route(&mut self, route: RouteSpec) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(route.dst);
        message.header.destination_prefix_length = route.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = match (route.dst, route.via, route.kind) {
            (IpAddr::V4(_), None, RouteKind::Unicast) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        message.header.kind = match route.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
        };
        message.attributes.push(RouteAttribute::Destination(route.dst.into()));
        message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
        message.attributes.extend(route.dev.map(RouteAttribute::Oif));
        let metrics = route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        message.attributes.extend(metrics);
        let what = format!("adding a route to {}/{}", route.dst, route.prefix);
        self.change(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, &what)
    }
}

pub(super) fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
