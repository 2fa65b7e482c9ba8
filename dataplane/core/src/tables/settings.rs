//! What the datapath takes from sysctls and from whoever listens, besides the tables.

use crate::packet::tos::EcnRule;
use serde::{Deserialize, Serialize};

/// Settings of a namespace.
///
/// kernel: net/xfrm/xfrm_sysctl.c
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `net.core.xfrm_larval_drop`: packets without an SA are dropped at once, not held until it comes.
    pub larval_drop: bool,
    /// `net.core.xfrm_acq_expires`: how long a larval state lives, seconds.
    pub acq_expires: u64,
    /// Whether a key manager listens: only then is an SA that is missing asked for.
    pub key_manager: bool,
    /// Where output policies that match without a mark apply.
    pub unmarked: Unmarked,
    /// `uvti run --ecn`: how congestion passes between inner and outer headers.
    pub ecn: EcnRule,
}

/// Where an output policy that matches packets without a mark applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unmarked {
    /// Before the device, as in a kernel, whose routing knows the policies: the device counts nothing.
    #[default]
    Host,
    /// On the device alone, with the others.
    Device,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            larval_drop: true,
            acq_expires: 30,
            key_manager: false,
            unmarked: Unmarked::Host,
            ecn: EcnRule::Kernel,
        }
    }
}
