//! Changes to the tables, and why one is refused.

use crate::device::LinkSpec;
use crate::xfrm::{Action, Direction, PolicyId, PolicySpec, Proto, SaId, StateSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One change. A transaction is a list of them: all are applied, in order, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `ip link add … type vti`, `ip tunnel add … mode vti`.
    LinkAdd(LinkSpec),
    /// `ip link change`, `ip tunnel change`: endpoints and keys of an existing device.
    LinkChange(LinkSpec),
    /// `ip link del`, `ip tunnel del`.
    LinkDel {
        /// Name.
        name: String,
    },
    /// `ip xfrm state add`.
    StateAdd(Box<StateSpec>),
    /// `ip xfrm state update`.
    StateUpdate(Box<StateSpec>),
    /// `ip xfrm state delete`.
    StateDel(SaId),
    /// `ip xfrm state flush [proto P]`.
    StateFlush(Proto),
    /// `ip xfrm policy add`.
    PolicyAdd(Box<PolicySpec>),
    /// `ip xfrm policy update`.
    PolicyUpdate(Box<PolicySpec>),
    /// `ip xfrm policy delete`.
    PolicyDel(PolicyId),
    /// `ip xfrm policy flush`.
    PolicyFlush,
    /// `ip xfrm policy setdefault`.
    PolicyDefault {
        /// Direction.
        dir: Direction,
        /// What happens to packets that no policy matches.
        action: Action,
    },
}

/// Which states `list` and `deleteall` mean; absent fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMatch {
    /// Outer source.
    pub src: Option<std::net::IpAddr>,
    /// Outer destination.
    pub dst: Option<std::net::IpAddr>,
    /// IPsec protocol.
    pub proto: Option<Proto>,
    /// SPI.
    pub spi: Option<crate::xfrm::Spi>,
    /// Mode.
    pub mode: Option<crate::xfrm::Mode>,
    /// Request id.
    pub reqid: Option<u32>,
    /// Flags, all of which must be set.
    pub flags: Option<crate::xfrm::StateFlags>,
}

/// The error number a kernel would answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of errno(3) written out")]
pub enum Errno {
    Exists,
    NoEntry,
    NoProcess,
    NoDevice,
    Invalid,
    NotSupported,
    NotPermitted,
    Busy,
    NoBuffers,
    Unspecified,
}

impl Errno {
    /// The text of strerror(3), which iproute2 prints after `RTNETLINK answers: `.
    pub const fn text(self) -> &'static str {
        match self {
            Errno::Exists => "File exists",
            Errno::NoEntry => "No such file or directory",
            Errno::NoProcess => "No such process",
            Errno::NoDevice => "No such device",
            Errno::Invalid => "Invalid argument",
            Errno::NotSupported => "Operation not supported",
            Errno::NotPermitted => "Operation not permitted",
            Errno::Busy => "Device or resource busy",
            Errno::NoBuffers => "No buffer space available",
            Errno::Unspecified => "Unspecified error",
        }
    }
}

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// The kernel's error number.
    pub errno: Errno,
    /// The kernel's extended error text, without the final full stop, which iproute2 prints as `Error: TEXT.`
    /// instead of the errno.
    pub message: Option<String>,
}

impl Refusal {
    /// With an errno alone.
    pub const fn errno(errno: Errno) -> Self {
        Self { errno, message: None }
    }

    /// With a text.
    pub fn message(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno, message: Some(text.into()) }
    }
}

impl fmt::Display for Refusal {
    /// As iproute2 prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(text) => write!(f, "Error: {text}."),
            None => write!(f, "RTNETLINK answers: {}", self.errno.text()),
        }
    }
}
