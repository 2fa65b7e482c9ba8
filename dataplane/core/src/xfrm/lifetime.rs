//! Lifetimes: the limits of a state or policy, and what it has used of them.

use serde::{Deserialize, Serialize};

/// Limits of a state or policy; `u64::MAX` (iproute2's `INF`) is no limit for bytes and packets, 0 for times.
///
/// kernel: include/uapi/linux/xfrm.h struct xfrm_lifetime_cfg
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes after which an expire event is sent.
    pub soft_bytes: u64,
    /// Bytes after which the state is dead.
    pub hard_bytes: u64,
    /// Packets after which an expire event is sent.
    pub soft_packets: u64,
    /// Packets after which the state is dead.
    pub hard_packets: u64,
    /// Seconds since it was added.
    pub soft_add_seconds: u64,
    /// Seconds since it was added.
    pub hard_add_seconds: u64,
    /// Seconds since it was first used.
    pub soft_use_seconds: u64,
    /// Seconds since it was first used.
    pub hard_use_seconds: u64,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Limits = Limits {
        soft_bytes: u64::MAX,
        hard_bytes: u64::MAX,
        soft_packets: u64::MAX,
        hard_packets: u64::MAX,
        soft_add_seconds: 0,
        hard_add_seconds: 0,
        soft_use_seconds: 0,
        hard_use_seconds: 0,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What a state or policy has used. Times are seconds since the Unix epoch, 0 when not yet.
///
/// kernel: include/uapi/linux/xfrm.h struct xfrm_lifetime_cur
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Bytes of inner packets.
    pub bytes: u64,
    /// Inner packets.
    pub packets: u64,
    /// When it was added.
    pub add_time: u64,
    /// When it was first used.
    pub use_time: u64,
}
