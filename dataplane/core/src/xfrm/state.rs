//! States (Security Associations) as configured and as shown.

use super::{Algorithms, Family, Lifetime, Limits, Mark, Mode, Proto, SaDirection, SaId, Selector, Spi};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Largest replay window, packets. kernel: include/uapi/linux/xfrm.h XFRMA_REPLAY_ESN_MAX
pub const MAX_REPLAY_WINDOW: u32 = 4096;

/// `flag` bits of a state. kernel: include/uapi/linux/xfrm.h XFRM_STATE_*
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateFlags(pub u8);

impl StateFlags {
    /// Do not copy ECN to the outer header.
    pub const NOECN: u8 = 1;
    /// Copy the outer DSCP to the inner header on receive.
    pub const DECAP_DSCP: u8 = 2;
    /// Clear the outer DF.
    pub const NOPMTUDISC: u8 = 4;
    /// Wildcard receive (Mobile IPv6).
    pub const WILDRECV: u8 = 8;
    /// Accept ICMP errors that do not match the selector.
    pub const ICMP: u8 = 16;
    /// The selector's family is `AF_UNSPEC`: an SA for both inner families.
    pub const AF_UNSPEC: u8 = 32;
    /// 4-byte alignment (AH).
    pub const ALIGN4: u8 = 64;
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub const ESN: u8 = 128;

    /// Whether all bits of `flag` are set.
    #[inline]
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag == flag
    }
}

/// `extra-flag` bits of a state. kernel: include/uapi/linux/xfrm.h XFRM_SA_XFLAG_*
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExtraFlags(pub u32);

impl ExtraFlags {
    /// Outer DSCP is 0.
    pub const DONT_ENCAP_DSCP: u32 = 1;
    /// The sequence number may wrap to 0.
    pub const OSEQ_MAY_WRAP: u32 = 2;

    /// Whether all bits of `flag` are set.
    #[inline]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag == flag
    }
}

/// `encap TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EncapKind {
    /// ESP in UDP with the non-ESP marker on the port (RFC 3948).
    EspInUdp,
    /// The older draft's form.
    EspInUdpNonIke,
    /// ESP in TCP (RFC 9329).
    EspInTcp,
}

impl EncapKind {
    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            EncapKind::EspInUdp => "espinudp",
            EncapKind::EspInUdpNonIke => "espinudp-nonike",
            EncapKind::EspInTcp => "espintcp",
        }
    }
}

/// `encap TYPE SPORT DPORT OADDR`: the NAT traversal of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Encap {
    /// Carriage.
    pub kind: EncapKind,
    /// UDP source port of packets we send with an outbound state.
    pub sport: u16,
    /// UDP destination port of packets we send.
    pub dport: u16,
    /// Original address (checksum fix-up in transport mode; shown only).
    pub original: IpAddr,
}

/// Sequence numbers of a state: configured start values, and shown current ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCounters {
    /// Highest received (`replay-seq`).
    pub seq: u32,
    /// Its high half (`replay-seq-hi`, ESN).
    pub seq_hi: u32,
    /// Last sent (`replay-oseq`).
    pub oseq: u32,
    /// Its high half (`replay-oseq-hi`, ESN).
    pub oseq_hi: u32,
    /// Window bitmap as the kernel shows it; one word for legacy windows; low word first.
    pub bitmap: Vec<u32>,
}

/// A state as configured by `ip xfrm state add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSpec {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// IPsec protocol.
    pub proto: Proto,
    /// SPI; 0 is accepted, as by the kernel.
    pub spi: Spi,
    /// Mode.
    pub mode: Mode,
    /// Request id that templates refer to.
    pub reqid: u32,
    /// `seq` of an acquire.
    pub seq: u32,
    /// Mark.
    pub mark: Mark,
    /// `output-mark`.
    pub output_mark: Mark,
    /// `if_id` of an xfrm interface.
    pub if_id: u32,
    /// `flag`.
    pub flags: StateFlags,
    /// `extra-flag`.
    pub extra_flags: ExtraFlags,
    /// Window, packets; 0 is no replay check.
    pub replay_window: u32,
    /// Start values.
    pub replay: ReplayCounters,
    /// Inner packets it may carry; `None` when the command had no `sel` (then every packet of its family).
    pub sel: Option<Selector>,
    /// Limits.
    pub limits: Limits,
    /// NAT traversal.
    pub encap: Option<Encap>,
    /// Keys and algorithms.
    pub algs: Algorithms,
    /// Pad the inner packet with zeros to this many bytes (RFC 4303 §2.7), 0 is off.
    pub tfcpad: u32,
    /// `dir`.
    pub dir: Option<SaDirection>,
}

impl StateSpec {
    /// A tunnel-mode ESP state with everything else at `ip xfrm state add`'s defaults (mode apart).
    pub fn tunnel(src: IpAddr, dst: IpAddr, spi: Spi, algs: Algorithms) -> Self {
        Self {
            src,
            dst,
            proto: Proto::Esp,
            spi,
            mode: Mode::Tunnel,
            reqid: 0,
            seq: 0,
            mark: Mark::default(),
            output_mark: Mark::default(),
            if_id: 0,
            flags: StateFlags::default(),
            extra_flags: ExtraFlags::default(),
            replay_window: 0,
            replay: ReplayCounters::default(),
            sel: None,
            limits: Limits::NONE,
            encap: None,
            algs,
            tfcpad: 0,
            dir: None,
        }
    }

    /// What names it.
    pub fn id(&self) -> SaId {
        SaId { dst: self.dst, spi: self.spi, proto: self.proto, mark: self.mark }
    }

    /// Family of the outer header.
    pub fn family(&self) -> Family {
        Family::of(self.dst)
    }

    /// The selector in force: without `sel`, every packet of the outer family, or of both with `af-unspec`.
    ///
    /// kernel: net/xfrm/xfrm_user.c copy_from_user_state()
    pub fn selector(&self) -> Selector {
        match &self.sel {
            Some(s) => s.clone(),
            None if self.flags.has(StateFlags::AF_UNSPEC) => {
                Selector { family: None, ..Selector::any(self.family()) }
            }
            None => Selector::any(self.family()),
        }
    }
}

/// Error counters of a state, as `ip -s xfrm state` shows them under `stats:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStats {
    /// Packets left of the window.
    pub replay_window: u64,
    /// Packets seen before.
    pub replay: u64,
    /// Packets with a wrong ICV.
    pub integrity_failed: u64,
}

/// A running state, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// As configured.
    pub spec: StateSpec,
    /// Current sequence numbers.
    pub replay: ReplayCounters,
    /// Used so far.
    pub current: Lifetime,
    /// Errors.
    pub stats: StateStats,
}
