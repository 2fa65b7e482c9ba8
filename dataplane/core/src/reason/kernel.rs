//! What a kernel counts and sends: link fields, the XFRM MIB, SA statistics, ICMP.

use serde::{Deserialize, Serialize};

/// Kind of a link that uvti owns, each of which counts by rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkKind {
    /// A VTI with an IPv4 outer header. kernel: net/ipv4/ip_vti.c
    Vti,
    /// A VTI with an IPv6 outer header. kernel: net/ipv6/ip6_vti.c
    Vti6,
    /// An xfrm interface: the outer header is that of its SAs. kernel: net/xfrm/xfrm_interface_core.c
    Xfrm,
}

impl LinkKind {
    /// All.
    pub const ALL: [LinkKind; 3] = [LinkKind::Vti, LinkKind::Vti6, LinkKind::Xfrm];

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<LinkKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// iproute2's name (`type vti`).
    pub const fn name(self) -> &'static str {
        match self {
            LinkKind::Vti => "vti",
            LinkKind::Vti6 => "vti6",
            LinkKind::Xfrm => "xfrm",
        }
    }
}

/// Link counters, those of `struct rtnl_link_stats64` that a VTI touches.
///
/// kernel: include/uapi/linux/if_link.h
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the kernel's, and its documentation is the reference")]
pub struct LinkStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub rx_frame_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub collisions: u64,
    pub tx_carrier_errors: u64,
    pub tx_aborted_errors: u64,
}

/// A field of `struct rtnl_link_stats64` that a reason adds one to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the kernel's: include/uapi/linux/if_link.h")]
pub enum LinkField {
    RxPackets,
    RxBytes,
    RxErrors,
    RxDropped,
    RxFrameErrors,
    TxPackets,
    TxBytes,
    TxErrors,
    TxDropped,
    TxCarrierErrors,
    TxAbortedErrors,
    Collisions,
}

impl LinkField {
    /// The kernel's name of the field.
    pub const fn name(self) -> &'static str {
        match self {
            LinkField::RxPackets => "rx_packets",
            LinkField::RxBytes => "rx_bytes",
            LinkField::RxErrors => "rx_errors",
            LinkField::RxDropped => "rx_dropped",
            LinkField::RxFrameErrors => "rx_frame_errors",
            LinkField::TxPackets => "tx_packets",
            LinkField::TxBytes => "tx_bytes",
            LinkField::TxErrors => "tx_errors",
            LinkField::TxDropped => "tx_dropped",
            LinkField::TxCarrierErrors => "carrier",
            LinkField::TxAbortedErrors => "aborted",
            LinkField::Collisions => "collisions",
        }
    }

    /// Adds `n` packets to the field. Received bytes are counted by length where the packet is.
    pub fn add(self, stats: &mut LinkStats, n: u64) {
        let field = match self {
            LinkField::RxPackets => &mut stats.rx_packets,
            LinkField::RxBytes => return,
            LinkField::RxErrors => &mut stats.rx_errors,
            LinkField::RxDropped => &mut stats.rx_dropped,
            LinkField::RxFrameErrors => &mut stats.rx_frame_errors,
            LinkField::TxPackets => &mut stats.tx_packets,
            LinkField::TxBytes => &mut stats.tx_bytes,
            LinkField::TxErrors => &mut stats.tx_errors,
            LinkField::TxDropped => &mut stats.tx_dropped,
            LinkField::TxCarrierErrors => &mut stats.tx_carrier_errors,
            LinkField::TxAbortedErrors => &mut stats.tx_aborted_errors,
            LinkField::Collisions => &mut stats.collisions,
        };
        *field += n;
    }
}

/// What the sender of a dropped inner packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icmp {
    /// Nothing.
    Silent,
    /// ICMP 3/1 host unreachable; ICMPv6 1/3 address unreachable.
    Unreachable,
    /// ICMP 3/4 fragmentation needed; ICMPv6 2/0 packet too big; with the tunnel's MTU.
    TooBig,
    /// The same with the tunnel's MTU even where that is less than an IPv6 link must have.
    TooBigForIpv6,
}

impl Icmp {
    /// One word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Icmp::Silent => "",
            Icmp::Unreachable => "host-unreachable",
            Icmp::TooBig | Icmp::TooBigForIpv6 => "frag-needed",
        }
    }
}

/// A counter of one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaStat {
    /// `replay-window`.
    ReplayWindow,
    /// `replay`.
    Replay,
    /// `failed`.
    IntegrityFailed,
}

impl SaStat {
    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            SaStat::ReplayWindow => "replay-window",
            SaStat::Replay => "replay",
            SaStat::IntegrityFailed => "failed",
        }
    }
}

macro_rules! mib {
    ($($name:ident),* $(,)?) => {
        /// The counters of `/proc/net/xfrm_stat`, in the kernel's order.
        ///
        /// kernel: net/xfrm/xfrm_proc.c xfrm_mib_list
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "documented in Documentation/networking/xfrm_proc.rst")]
        #[repr(u8)]
        pub enum Mib { $($name),* }

        impl Mib {
            /// All, in order.
            pub const ALL: &[Mib] = &[$(Mib::$name),*];

            /// The kernel's name.
            pub const fn name(self) -> &'static str {
                match self { $(Mib::$name => concat!("Xfrm", stringify!($name))),* }
            }
        }
    };
}

mib! {
    InError, InBufferError, InHdrError, InNoStates, InStateProtoError, InStateModeError, InStateSeqError,
    InStateExpired, InStateMismatch, InStateInvalid, InTmplMismatch, InNoPols, InPolBlock, InPolError,
    OutError, OutBundleGenError, OutBundleCheckError, OutNoStates, OutStateProtoError, OutStateModeError,
    OutStateSeqError, OutStateExpired, OutPolBlock, OutPolDead, OutPolError, FwdHdrError, OutStateInvalid,
    AcquireError, OutStateDirError, InStateDirError, InIptfsError, OutNoQueueSpace,
}
