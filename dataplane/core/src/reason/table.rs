//! The table of reasons. Append at the end; never renumber, never reuse.

use super::{Icmp, LinkField, Mib, Row, SaStat, Way};
use std::fmt;

macro_rules! reasons {
    ($( $(#[doc = $meaning:literal])+ $id:ident $name:literal $way:ident
        [$($link:ident)*] $(vti6 $dropped:ident)? $(xfrm [$($own:ident)*])? $(mib $mib:ident $(+ $mibs:ident)*)? $(sa $sa:ident)? $(icmp $icmp:ident)? => $check:literal; )*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $( $(#[doc = $meaning])+ $id ),* }

        impl Reason {
            /// All, in number order.
            pub const ALL: &[Reason] = &[$(Reason::$id),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its row of the table.
            pub const fn row(self) -> &'static Row {
                const ROWS: [Row; Reason::COUNT] = [$( Row {
                    name: $name,
                    way: Way::$way,
                    link: &[$(LinkField::$link),*],
                    vti6_tx_dropped: false $(|| flag!($dropped))?,
                    xfrm_link: first!($(Some(&[$(LinkField::$own),*]),)? None),
                    mib: &[$(Mib::$mib $(, Mib::$mibs)*)?],
                    sa: first!($(Some(SaStat::$sa),)? None),
                    icmp: first!($(Icmp::$icmp,)? Icmp::Silent),
                    meaning: concat!($($meaning),+).trim_ascii_start(),
                    check: $check,
                } ),*];
                &ROWS[self as usize]
            }
        }
    };
}

macro_rules! flag {
    (dropped) => {
        true
    };
}

macro_rules! first {
    ($first:expr $(, $rest:expr)*) => {
        $first
    };
}

reasons! {
    /// Shorter than its IP header.
    TxRunt "tx_runt" Tx [TxErrors] vti6 dropped
        => "uvti stat";
    /// Neither IPv4 nor IPv6.
    TxNotIp "tx_not_ip" Tx [TxErrors] vti6 dropped
        => "uvti stat";
    /// No output policy matches the packet and the device's okey.
    TxNoPolicy "tx_no_policy" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip xfrm policy list dir out";
    /// The output policy that matches allows the packet without a template: nothing would encrypt it.
    TxBypassPolicy "tx_bypass_policy" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip xfrm policy list dir out";
    /// No output policy matches and the default policy for output is block.
    TxDefaultBlock "tx_default_block" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip xfrm policy getdefault";
    /// The output policy that matches says block.
    TxPolicyBlock "tx_policy_block" Tx [TxErrors TxCarrierErrors] vti6 dropped mib OutPolBlock icmp Unreachable
        => "uvti ip xfrm policy list dir out action block";
    /// A policy matches, but no valid SA fits its template (addresses, reqid, mode, SPI, mark, selector).
    TxNoSa "tx_no_sa" Tx [TxErrors TxCarrierErrors] vti6 dropped mib OutNoStates icmp Unreachable
        => "uvti ip xfrm state list";
    /// The template names an SPI that belongs to an SA with other parameters.
    TxTemplateSpiClash "tx_template_spi_clash" Tx [TxErrors TxCarrierErrors] vti6 dropped mib OutPolError icmp Unreachable
        => "uvti ip xfrm state list";
    /// The SA has `dir in` and was chosen for output.
    TxWrongDirection "tx_wrong_direction" Tx [TxErrors TxCarrierErrors] vti6 dropped mib OutStateDirError + OutPolError icmp Unreachable
        => "uvti ip xfrm state list";
    /// No route to the tunnel's far end (or it is blackholed, prohibited, or its link is down).
    TxNoOuterRoute "tx_no_outer_route" Tx [TxErrors TxCarrierErrors] vti6 dropped mib OutBundleGenError icmp Unreachable
        => "ip route get REMOTE from LOCAL";
    /// Every template is optional and none found an SA: nothing would encrypt the packet.
    TxNoTransform "tx_no_transform" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip xfrm policy list dir out";
    /// `disable_xfrm` is set on the device.
    TxXfrmDisabled "tx_xfrm_disabled" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "sysctl net.ipv4.conf.DEV.disable_xfrm";
    /// The SA that fits is not in tunnel mode.
    TxNotTunnelMode "tx_not_tunnel_mode" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip xfrm state list";
    /// The SA's outer addresses are of the other family than the device's.
    TxOuterFamily "tx_outer_family" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip -d link show DEV";
    /// The SA's outer addresses are not the device's local and remote.
    TxEndpointMismatch "tx_endpoint_mismatch" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "uvti ip -d link show DEV";
    /// The route to the tunnel's far end leads back into this device.
    TxLoop "tx_loop" Tx [TxErrors Collisions] vti6 dropped
        => "ip route get REMOTE from LOCAL";
    /// An ESP packet of this very tunnel came back into its device: a loop that the route look-up did not show.
    TxOwnEsp "tx_own_esp" Tx [TxErrors Collisions] vti6 dropped
        => "ip route get REMOTE from LOCAL";
    /// The routes to the far ends of several VTIs lead into each other.
    TxMutualLoop "tx_mutual_loop" Tx [TxErrors TxAbortedErrors]
        => "ip route get REMOTE from LOCAL";
    /// Larger than the tunnel's MTU, and may not be fragmented.
    TxTooBig "tx_too_big" Tx [TxErrors] vti6 dropped icmp TooBig
        => "uvti ip -d link show DEV";
    /// The SA has used up a hard byte or packet limit.
    TxSaExpired "tx_sa_expired" Tx [TxErrors TxAbortedErrors] mib OutStateExpired
        => "uvti ip -s xfrm state list";
    /// The SA's sequence number would wrap: it must be replaced.
    TxSeqOverflow "tx_seq_overflow" Tx [TxErrors TxAbortedErrors] mib OutStateSeqError
        => "uvti ip xfrm state list";
    /// The cipher refused the packet.
    TxSealFailed "tx_seal_failed" Tx [TxErrors TxAbortedErrors] mib OutStateProtoError
        => "uvti stat";
    /// The encapsulated packet does not fit an IP packet or a buffer.
    TxNoRoom "tx_no_room" Tx [TxErrors TxAbortedErrors] mib OutError
        => "uvti ip -d link show DEV";
    /// The SA's home worker is gone: it ended by a panic, which the log has.
    TxWorkerGone "tx_worker_gone" Tx [TxDropped]
        => "uvti check";
    /// The queue of the device below was full.
    TxLowerQueueFull "tx_lower_queue_full" Tx [TxPackets TxBytes] xfrm [TxErrors TxAbortedErrors]
        => "tc -s qdisc show";
    /// The host refused the encapsulated packet as larger than the path's MTU.
    TxLowerTooBig "tx_lower_too_big" Tx [TxErrors TxAbortedErrors]
        => "ip route get REMOTE from LOCAL";
    /// The host refused to send the encapsulated packet (firewall, address gone, link gone).
    TxSendFailed "tx_send_failed" Tx [TxErrors TxAbortedErrors]
        => "ip route get REMOTE from LOCAL; nft list ruleset";

    /// The outer header is not one, or the packet was cut.
    RxOuterHeader "rx_outer_header" Rx []
        => "uvti stat";
    /// Longer than the receive buffer.
    RxTooLong "rx_too_long" Rx [RxErrors RxDropped] mib InHdrError
        => "uvti stat";
    /// A NAT-T keepalive (one byte 0xff).
    RxKeepalive "rx_keepalive" Rx []
        => "";
    /// An IKE packet (non-ESP marker) on the NAT-T port: there is no IKE daemon behind it.
    RxNonEsp "rx_non_esp" Rx []
        => "";
    /// No VTI that is up has these outer addresses, and no SA this SPI.
    RxNoTunnel "rx_no_tunnel" Rx [] mib InNoStates
        => "uvti ip -d link show";
    /// No VTI that is up has these outer addresses; the SA exists, but without a VTI no policy accepts its packets.
    RxNoTunnelKnownSa "rx_no_tunnel_known_sa" Rx [] mib InNoPols
        => "uvti ip -d link show";
    /// An input policy without mark blocks the outer packet itself.
    RxOuterPolicyBlock "rx_outer_policy_block" Rx [] mib InPolBlock
        => "uvti ip xfrm policy list dir in";
    /// An input policy without mark wants the outer packet itself to have come through IPsec.
    RxOuterPolicyTemplate "rx_outer_policy_template" Rx [] mib InTmplMismatch
        => "uvti ip xfrm policy list dir in";
    /// Too short for SPI and sequence number.
    RxShort "rx_short" Rx [RxErrors RxDropped] mib InHdrError
        => "uvti stat";
    /// No SA with this destination, SPI and the device's ikey.
    RxNoSa "rx_no_sa" Rx [RxErrors RxDropped] mib InNoStates
        => "uvti ip xfrm state list";
    /// The SA has `dir out`.
    RxWrongDirection "rx_wrong_direction" Rx [RxErrors RxDropped] mib InStateDirError
        => "uvti ip xfrm state list";
    /// The SA wants UDP encapsulation and the packet has none, or the other way round.
    RxEncapMismatch "rx_encap_mismatch" Rx [RxErrors RxDropped] mib InStateMismatch
        => "uvti ip xfrm state list";
    /// Sequence number 0, which is never sent.
    RxReplayZero "rx_replay_zero" Rx [RxErrors RxDropped] mib InStateSeqError
        => "uvti ip -s xfrm state list";
    /// Left of the replay window: late, or replayed.
    RxReplayOld "rx_replay_old" Rx [RxErrors RxDropped] mib InStateSeqError sa ReplayWindow
        => "uvti ip -s xfrm state list";
    /// Seen before.
    RxReplayDuplicate "rx_replay_duplicate" Rx [RxErrors RxDropped] mib InStateSeqError sa Replay
        => "uvti ip -s xfrm state list";
    /// The SA has used up a hard byte or packet limit.
    RxSaExpired "rx_sa_expired" Rx [RxErrors RxDropped] mib InStateExpired
        => "uvti ip -s xfrm state list";
    /// The SA is not in tunnel mode.
    RxNotTunnelMode "rx_not_tunnel_mode" Rx [RxErrors RxDropped] mib InStateModeError
        => "uvti ip xfrm state list";
    /// Too short for IV, padding and ICV.
    RxTruncated "rx_truncated" Rx [RxErrors RxDropped] mib InStateProtoError
        => "uvti stat";
    /// The ICV is wrong: another key, or the packet was changed on its way.
    RxBadIcv "rx_bad_icv" Rx [RxErrors RxDropped] mib InStateProtoError sa IntegrityFailed
        => "uvti ip -s xfrm state list";
    /// Authentic, but the pad length is longer than the packet.
    RxBadPadding "rx_bad_padding" Rx [RxErrors RxDropped] mib InStateProtoError
        => "uvti stat";
    /// A dummy packet (next header 59), which the kernel counts as an error.
    RxDummy "rx_dummy" Rx [RxErrors RxDropped] mib InStateProtoError
        => "";
    /// Authentic, but what it carries is neither IPv4 nor IPv6.
    RxInnerProto "rx_inner_proto" Rx [RxErrors RxDropped] mib InStateModeError
        => "uvti stat";
    /// Authentic, but the inner packet is shorter than its IP header.
    RxInnerShort "rx_inner_short" Rx [RxErrors RxDropped] mib InStateModeError
        => "uvti stat";
    /// The inner packet does not match the SA's selector.
    RxSelectorMismatch "rx_selector_mismatch" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InStateMismatch
        => "uvti ip xfrm state list";
    /// No input policy matches the inner packet and the device's ikey.
    RxNoPolicy "rx_no_policy" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InNoPols
        => "uvti ip xfrm policy list dir in";
    /// The input policy that matches says block.
    RxPolicyBlock "rx_policy_block" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InPolBlock
        => "uvti ip xfrm policy list dir in action block";
    /// The SA is not what the input policy's template asks for (addresses, reqid, mode, protocol).
    RxTemplateMismatch "rx_template_mismatch" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InTmplMismatch
        => "uvti ip xfrm policy list dir in";
    /// The input policy allows only packets that did not come through IPsec (it has no template).
    RxTemplateMissing "rx_template_missing" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InTmplMismatch
        => "uvti ip xfrm policy list dir in";
    /// The SA's home worker is gone: it ended by a panic, which the log has.
    RxWorkerGone "rx_worker_gone" Rx [RxDropped]
        => "uvti check";
    /// The device took no more packets.
    RxDeviceFull "rx_device_full" Rx [RxDropped]
        => "ip link show DEV";
    /// The device refused the packet (it is down, gone, or the packet is not IP).
    RxDeviceRefused "rx_device_refused" Rx [RxDropped]
        => "ip link show DEV";
    /// Authentic, but the inner packet's version is not what its next header says. A kernel VTI has received it;
    /// its IP stack drops it afterwards.
    RxInnerVersion "rx_inner_version" Rx [RxPackets RxBytes]
        => "uvti stat";
    /// No input policy without mark matches the outer packet itself, and the default policy for input is block.
    RxOuterDefaultBlock "rx_outer_default_block" Rx [] mib InNoPols
        => "uvti ip xfrm policy getdefault";
    /// The device was deleted while the packet waited in its queue.
    TxDeviceGone "tx_device_gone" Tx []
        => "uvti ip link show";
    /// No SA fits yet, packets wait for it (`xfrm_larval_drop` is 0), and 101 of this policy do already.
    TxHoldQueueFull "tx_hold_queue_full" Tx [TxErrors TxAbortedErrors]
        => "uvti ip xfrm state list";
    /// Waited for an SA that did not come, or whose policy is gone. A kernel counted it as sent when it began to wait.
    TxHeldPurged "tx_held_purged" Tx []
        => "uvti ip xfrm state list";
    /// Waited for an SA; one came, but for other packets.
    TxHeldNoSa "tx_held_no_sa" Tx [] mib OutNoStates
        => "uvti ip xfrm state list";
    /// Waited for an SA, and is larger than its tunnel's MTU.
    TxHeldTooBig "tx_held_too_big" Tx [] mib OutStateModeError icmp TooBig
        => "uvti ip -d link show DEV";
    /// Waited for an SA; a policy that came meanwhile says block.
    TxHeldPolicyBlock "tx_held_policy_block" Tx [] mib OutPolBlock
        => "uvti ip xfrm policy list dir out action block";
    /// Waited for an SA; the policy that now matches has a template that cannot be resolved.
    TxHeldPolicyError "tx_held_policy_error" Tx [] mib OutPolError
        => "uvti ip xfrm policy list dir out";
    /// Waited for an SA, to whose far end there is no route.
    TxHeldNoOuterRoute "tx_held_no_outer_route" Tx [] mib OutBundleGenError
        => "ip route get REMOTE from LOCAL";
    /// Waited for an SA that has used up a hard byte or packet limit.
    TxHeldSaExpired "tx_held_sa_expired" Tx [] mib OutStateExpired
        => "uvti ip -s xfrm state list";
    /// Waited for an SA whose sequence number would wrap.
    TxHeldSeqOverflow "tx_held_seq_overflow" Tx [] mib OutStateSeqError
        => "uvti ip xfrm state list";
    /// Waited for an SA; this one is not for the device, or the host did not send the packet.
    TxHeldUnsent "tx_held_unsent" Tx []
        => "uvti ip xfrm state list";
    /// The SPI is that of a larval state: a key manager reserved it and has not delivered the SA.
    RxAcquire "rx_acquire" Rx [RxErrors RxDropped] mib AcquireError
        => "uvti ip xfrm state list";
    /// A plain IP-in-IP packet from the tunnel's far end: `ip_vti` takes it and finds no SA for it.
    RxPlainIpip "rx_plain_ipip" Rx [RxErrors RxDropped] xfrm [RxPackets RxBytes] mib InNoStates
        => "uvti stat";
    /// `vti6`: the inner packet's source is the tunnel's far end.
    TxSourceIsRemote "tx_source_is_remote" Tx [TxErrors] vti6 dropped
        => "uvti ip -d link show DEV";
    /// `vti6`: the tunnel's local address is not one of this host's.
    TxLocalNotOurs "tx_local_not_ours" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "ip address show";
    /// `vti6`: the tunnel's remote address is one of this host's.
    TxRemoteIsOurs "tx_remote_is_ours" Tx [TxErrors TxCarrierErrors] vti6 dropped icmp Unreachable
        => "ip address show";
    /// What the host left to the device (a checksum, a super-packet to be cut) does not fit the packet. Such a
    /// super-packet counts as one.
    TxBadOffload "tx_bad_offload" Tx [TxDropped]
        => "uvti run --help";
    /// The SA's next sequence numbers are not noted in the state directory yet: its disk is slow, full or broken.
    TxSeqNotReserved "tx_seq_not_reserved" Tx [TxErrors TxAbortedErrors]
        => "uvti ip xfrm state list";
    /// xfrm interface: the SA is in transport mode and has no outer header: its packet is routed as the inner one was,
    /// back into this device.
    TxTransportLoop "tx_transport_loop" Tx [TxErrors Collisions] vti6 dropped
        => "uvti ip xfrm state list";
    /// xfrm interface: an IPv6 packet of at most 1280 bytes, which is never refused as too big, on a path that carries
    /// less.
    TxNarrowPath "tx_narrow_path" Tx [TxErrors TxAbortedErrors] icmp TooBigForIpv6
        => "uvti mtu";
    /// To 0.0.0.0, which a kernel VTI routes to the loopback device, where nothing is encrypted. Not what a host routes.
    TxNoDestination "tx_no_destination" Tx [TxErrors TxCarrierErrors] vti6 dropped
        => "uvti drops --reason tx_no_destination";
    /// An output policy that matches without a mark says block: before the packet would reach the device.
    TxUnmarkedPolicyBlock "tx_unmarked_policy_block" Tx [] mib OutPolBlock
        => "uvti ip xfrm policy list dir out action block";
    /// No output policy matches without a mark, and the default policy for output is block: before the device.
    TxUnmarkedDefaultBlock "tx_unmarked_default_block" Tx []
        => "uvti ip xfrm policy getdefault";
    /// A policy matches without a mark, before the device, but no valid SA fits its template.
    TxUnmarkedNoSa "tx_unmarked_no_sa" Tx [] mib OutNoStates
        => "uvti ip xfrm state list";
    /// A policy matches without a mark, before the device; its template names an SPI of another SA.
    TxUnmarkedPolicyError "tx_unmarked_policy_error" Tx [] mib OutPolError
        => "uvti ip xfrm state list";
    /// A policy matches without a mark, before the device; its SA has `dir in`.
    TxUnmarkedWrongDirection "tx_unmarked_wrong_direction" Tx [] mib OutStateDirError + OutPolError
        => "uvti ip xfrm state list";
    /// A policy matches without a mark, before the device; there is no route to its SA's far end.
    TxUnmarkedNoOuterRoute "tx_unmarked_no_outer_route" Tx [] mib OutBundleGenError
        => "ip route get REMOTE from LOCAL";
    /// A policy matches without a mark, before the device; its SA is not in tunnel mode, which only a kernel can send.
    TxUnmarkedNotTunnelMode "tx_unmarked_not_tunnel_mode" Tx []
        => "uvti ip xfrm state list";
    /// A policy matches without a mark, before the device, and the way to its SA's far end leads into a VTI again.
    TxUnmarkedLoop "tx_unmarked_loop" Tx []
        => "ip route get REMOTE from LOCAL";
    /// A policy matches without a mark, before the device, and the packet is larger than the MTU of its tunnel.
    TxUnmarkedTooBig "tx_unmarked_too_big" Tx [] icmp TooBig
        => "uvti mtu";
    /// A policy matches without a mark, before the device, and 101 packets wait for its SA already.
    TxUnmarkedHoldQueueFull "tx_unmarked_hold_queue_full" Tx []
        => "uvti ip xfrm state list";
    /// A policy matches without a mark, before the device; its SA has used up a hard byte or packet limit.
    TxUnmarkedSaExpired "tx_unmarked_sa_expired" Tx [] mib OutStateExpired
        => "uvti ip -s xfrm state list";
    /// A policy matches without a mark, before the device; its SA's sequence number would wrap.
    TxUnmarkedSeqOverflow "tx_unmarked_seq_overflow" Tx [] mib OutStateSeqError
        => "uvti ip xfrm state list";
    /// A policy that matches without a mark encrypted it, before the device, and the host did not send it.
    TxUnmarkedUnsent "tx_unmarked_unsent" Tx []
        => "ip route get REMOTE from LOCAL; nft list ruleset";
    /// The inner packet is for others, and a FWD policy without mark says block. A kernel VTI has received it; its IP
    /// stack drops it afterwards.
    RxForwardBlock "rx_forward_policy_block" Rx [RxPackets RxBytes] mib InPolBlock
        => "uvti ip xfrm policy list dir fwd action block";
    /// The inner packet is for others, and the FWD policy without mark that matches has a template: behind the VTI,
    /// which has taken IPsec off, nothing fits one.
    RxForwardTemplate "rx_forward_policy_template" Rx [RxPackets RxBytes] mib InTmplMismatch
        => "uvti ip xfrm policy list dir fwd";
    /// The inner packet is for others, no FWD policy without mark matches, and the default policy for FWD is block.
    RxForwardDefaultBlock "rx_forward_default_block" Rx [RxPackets RxBytes] mib InNoPols
        => "uvti ip xfrm policy getdefault";
    /// The inner packet is for this host, and an input policy without mark says block.
    RxLocalBlock "rx_local_policy_block" Rx [RxPackets RxBytes] mib InPolBlock
        => "uvti ip xfrm policy list dir in action block";
    /// The inner packet is for this host, and the input policy without mark that matches has a template: behind the
    /// VTI, which has taken IPsec off, nothing fits one. `disable_policy` of the VTI ends these checks.
    RxLocalTemplate "rx_local_policy_template" Rx [RxPackets RxBytes] mib InTmplMismatch
        => "sysctl net.ipv4.conf.DEV.disable_policy";
    /// The inner packet is for this host, no input policy without mark matches, and the default policy for input is
    /// block.
    RxLocalDefaultBlock "rx_local_default_block" Rx [RxPackets RxBytes] mib InNoPols
        => "uvti ip xfrm policy getdefault";
    /// With `--ecn rfc6040`: congestion was experienced on the way, and the inner packet's sender would not understand
    /// that (Not-ECT). Other tunnels of the kernel count the same; its VTI lets it pass.
    RxCongested "rx_congested" Rx [RxErrors RxFrameErrors]
        => "uvti run --help";
}

impl Reason {
    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Reason> {
        Self::ALL.iter().copied().find(|r| r.row().name == name)
    }

    /// The reason of that number.
    pub fn from_index(index: usize) -> Option<Reason> {
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}
