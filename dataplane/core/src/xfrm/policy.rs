//! Policies as configured and as shown.

use super::{Direction, Lifetime, Limits, Mark, Mode, Proto, Selector, Spi};
use crate::packet::Flow;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most templates a policy may have. kernel: include/uapi/linux/xfrm.h XFRM_MAX_DEPTH
pub const MAX_TEMPLATES: usize = 6;

/// What a policy does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Let pass, through the templates if there are any.
    #[default]
    Allow,
    /// Drop.
    Block,
}

impl Action {
    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Block => "block",
        }
    }
}

/// Whether a template must find a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// It must.
    #[default]
    Required,
    /// It may be left out.
    Use,
}

impl Level {
    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Required => "required",
            Level::Use => "use",
        }
    }
}

/// `flag` bits of a policy. kernel: include/uapi/linux/xfrm.h XFRM_POLICY_LOCALOK, XFRM_POLICY_ICMP
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyFlags(pub u8);

impl PolicyFlags {
    /// A user may override it.
    pub const LOCALOK: u8 = 1;
    /// Also match the packet an ICMP error quotes.
    pub const ICMP: u8 = 2;
}

/// `tmpl`: the transform a policy wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    /// Outer source; unspecified (`0.0.0.0`) is any.
    pub src: IpAddr,
    /// Outer destination; unspecified is any.
    pub dst: IpAddr,
    /// IPsec protocol.
    pub proto: Proto,
    /// SPI; 0 is any.
    pub spi: Spi,
    /// Mode.
    pub mode: Mode,
    /// Request id: on output exact, on input 0 is any.
    pub reqid: u32,
    /// Whether it must find a state.
    pub level: Level,
}

impl Template {
    /// The outer addresses: its own in modes with an outer header, else the flow's.
    ///
    /// kernel: net/xfrm/xfrm_policy.c xfrm_tmpl_resolve_one()
    pub fn ends(&self, flow: &Flow) -> (IpAddr, IpAddr) {
        match self.mode {
            Mode::Tunnel | Mode::Beet => (self.src, self.dst),
            _ => (flow.src, flow.dst),
        }
    }
}

/// A policy as configured by `ip xfrm policy add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// Packets it is for.
    pub sel: Selector,
    /// Direction.
    pub dir: Direction,
    /// Mark.
    pub mark: Mark,
    /// `if_id` of an xfrm interface.
    pub if_id: u32,
    /// Lower wins; among equals the older.
    pub priority: u32,
    /// What to do.
    pub action: Action,
    /// `flag`.
    pub flags: PolicyFlags,
    /// Index asked for, 0 for the next free one.
    pub index: u32,
    /// Limits.
    pub limits: Limits,
    /// Transforms, outermost last.
    pub templates: Vec<Template>,
}

/// What names a policy: its index, or selector, direction, mark and if_id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyId {
    /// `index N dir D`.
    Index {
        /// Index.
        index: u32,
        /// Direction.
        dir: Direction,
        /// Mark.
        mark: Mark,
        /// if_id.
        if_id: u32,
    },
    /// Selector and direction.
    Selector {
        /// Selector, compared exactly.
        sel: Selector,
        /// Direction.
        dir: Direction,
        /// Mark.
        mark: Mark,
        /// if_id.
        if_id: u32,
    },
}

/// A running policy, as shown. `spec.index` is the index it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// As configured, with its index.
    pub spec: PolicySpec,
    /// Used so far.
    pub current: Lifetime,
}
