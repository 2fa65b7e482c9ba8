//! The scenarios, as plain data. Each has the name of its recording.
//!
//! In all of them the gateway is 198.51.100.1, its peer 198.51.100.2; a client 10.1.0.2 sends to 10.2.0.5 behind
//! the tunnel.

/// A script and what is sent.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Its name in the recording.
    pub(super) name: &'static str,
    /// Lines of `ip`, in blocks.
    pub(super) config: &'static [&'static str],
    /// What happens then, in order.
    pub(super) steps: &'static [Step],
}

/// One step of a scenario.
#[derive(Debug)]
pub(super) enum Step {
    /// The client sends so many UDP packets of that size (IP header included) into the tunnel.
    Client { count: u64, size: usize, df: bool },
    /// The peer sends an ESP packet with a UDP packet of 100 bytes inside, and something wrong with it.
    Peer { spi: u32, sequence: u32, fault: Fault },
    /// The SA has vanished.
    Gone { spi: u32 },
}

/// What is wrong with an ESP packet.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// A bit of the ICV.
    Icv,
    /// It ends after so many bytes.
    Cut(usize),
}

const VTI: &str = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const VTI_FAR: &str = "link add vti0 type vti local 198.51.100.1 remote 203.0.113.1 key 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";

/// An SA: addresses, SPI, mode, first byte of the key, and the rest of its line.
macro_rules! sa {
    ($src:literal $dst:literal $spi:literal $mode:literal out $more:literal) => {
        sa!(@ $src $dst $spi $mode "0x0102030405060708090a0b0c0d0e0f1011121314" $more)
    };
    ($src:literal $dst:literal $spi:literal $mode:literal in $more:literal) => {
        sa!(@ $src $dst $spi $mode "0x2122232425262728292a2b2c2d2e2f3031323334" $more)
    };
    (@ $src:literal $dst:literal $spi:literal $mode:literal $key:literal $more:literal) => {
        concat!(
            "xfrm state add src ", $src, " dst ", $dst, " proto esp spi ", $spi, " reqid 1 mode ", $mode,
            " aead rfc4106(gcm(aes)) ", $key, " 128 ", $more
        )
    };
}

/// A policy for everything: its direction, and its template (or action).
macro_rules! policy {
    ($dir:literal $($what:literal)*) => {
        concat!("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir ", $dir, " mark 1", $(" ", $what),*)
    };
}

const SA_OUT: &str = sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "");
const SA_FAR: &str = sa!("198.51.100.1" "203.0.113.1" "0x100" "tunnel" out "");
const SA_IN: &str = sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "");
const SA_IN_WINDOW: &str = sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "replay-window 32");
const POL_OUT: &str = policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel");
const POL_FAR: &str = policy!("out" "tmpl src 198.51.100.1 dst 203.0.113.1 proto esp reqid 1 mode tunnel");
const POL_IN: &str = policy!("in" "tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel");
const GOOD: &[&str] = &[VTI, SA_OUT, SA_IN, POL_OUT, POL_IN];

const VTI_ANY: &str = "link add vti0 type vti local 198.51.100.1 remote any key 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const VTI_IKEY_7: &str = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 ikey 7 okey 1
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const VTI_OKEY_7: &str = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 ikey 1 okey 7
addr add 10.9.0.1/24 dev vti0
link set vti0 up
route add 10.2.0.0/16 dev vti0";
const POL_OUT_MARK_2: &str = "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 2 \
    tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel";
const POL_IN_MARK_2: &str = "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir in mark 2 \
    tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel";

/// The allowing policy with a priority.
macro_rules! priority {
    ($n:literal) => {
        policy!("out" "priority" $n "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel")
    };
}

/// A more specific policy that blocks, with a priority.
macro_rules! block {
    ($n:literal) => {
        concat!("xfrm policy add src 0.0.0.0/0 dst 10.2.0.0/16 dir out mark 1 action block priority ", $n)
    };
}

const FIVE: &[Step] = &[Step::Client { count: 5, size: 100, df: false }];
const FIVE_ESP: &[Step] = &[esp(1), esp(2), esp(3), esp(4), esp(5)];

const THREE_ESP: &[Step] = &[esp(1), esp(2), esp(3)];

const fn esp(sequence: u32) -> Step {
    Step::Peer { spi: 0x200, sequence, fault: Fault::None }
}
const fn unknown(sequence: u32) -> Step {
    Step::Peer { spi: 0x999, sequence, fault: Fault::None }
}
const fn forged(sequence: u32) -> Step {
    Step::Peer { spi: 0x200, sequence, fault: Fault::Icv }
}
const fn cut(length: usize) -> Step {
    Step::Peer { spi: 0x200, sequence: 1, fault: Fault::Cut(length) }
}

const fn scenario(name: &'static str, config: &'static [&'static str], steps: &'static [Step]) -> Scenario {
    Scenario { name, config, steps }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("tx_ok_fwd", GOOD, FIVE),
    scenario("tx_nopol_none", &[VTI, SA_OUT], FIVE),
    scenario("tx_pol_allow_notmpl", &[VTI, SA_OUT, policy!("out" "")], FIVE),
    scenario("tx_pol_block", &[VTI, SA_OUT, policy!("out" "action block")], FIVE),
    scenario("tx_nosa", &[VTI, POL_OUT], FIVE),
    scenario(
        "tx_tmpl_reqid_mismatch",
        &[VTI, SA_OUT, policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 9 mode tunnel")],
        FIVE,
    ),
    scenario(
        "tx_tmpl_reqid0",
        &[VTI, SA_OUT, policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 0 mode tunnel")],
        FIVE,
    ),
    scenario(
        "tx_sa_transport",
        &[
            VTI,
            sa!("10.1.0.2" "10.2.0.5" "0x100" "transport" out ""),
            policy!("out" "tmpl src 0.0.0.0 dst 0.0.0.0 proto esp reqid 1 mode transport"),
        ],
        FIVE,
    ),
    scenario(
        "tx_sa_transport_tmpl_tunnel",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "transport" out ""), POL_OUT],
        FIVE,
    ),
    scenario(
        "tx_state_check_daddr",
        &[
            VTI,
            sa!("198.51.100.1" "198.51.100.3" "0x100" "tunnel" out ""),
            policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.3 proto esp reqid 1 mode tunnel"),
        ],
        FIVE,
    ),
    scenario(
        "tx_state_check_saddr",
        &[
            VTI,
            sa!("10.1.0.1" "198.51.100.2" "0x100" "tunnel" out ""),
            policy!("out" "tmpl src 10.1.0.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel"),
        ],
        FIVE,
    ),
    scenario("tx_outer_noroute", &[VTI_FAR, SA_FAR, POL_FAR], FIVE),
    scenario("tx_loop_self", &[VTI_FAR, SA_FAR, POL_FAR, "route add 203.0.113.0/24 dev vti0"], FIVE),
    scenario("tx_big_df_fwd", GOOD, &[Step::Client { count: 5, size: 1470, df: true }]),
    scenario("tx_big_df_1446", GOOD, &[Step::Client { count: 5, size: 1446, df: true }]),
    scenario("tx_big_nodf_fwd", GOOD, &[Step::Client { count: 5, size: 1470, df: false }]),
    scenario(
        "tx_seq_overflow",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "replay-oseq 0xfffffffd"), POL_OUT],
        FIVE,
    ),
    scenario(
        "tx_expire_packets_nokm",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "limit packet-hard 3"), POL_OUT],
        &[
            Step::Client { count: 4, size: 100, df: false },
            Step::Gone { spi: 0x100 },
            Step::Client { count: 2, size: 100, df: false },
        ],
    ),
    scenario(
        "tx_ok_sa_marked",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "mark 1"), POL_OUT, POL_IN],
        FIVE,
    ),
    scenario("tx_ok_remote_any", &[VTI_ANY, SA_OUT, SA_IN, POL_OUT, POL_IN], FIVE),
    scenario("tx_nopol_mark", &[VTI, SA_OUT, POL_OUT_MARK_2], FIVE),
    scenario(
        "tx_nopol_selector",
        &[
            VTI,
            SA_OUT,
            "xfrm policy add src 0.0.0.0/0 dst 10.77.0.0/16 dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel",
        ],
        FIVE,
    ),
    scenario("tx_okey_only", &[VTI_IKEY_7, SA_OUT, POL_OUT], FIVE),
    scenario("tx_pol_prio_block_shadows", &[VTI, SA_OUT, priority!("20"), block!("10")], FIVE),
    scenario("tx_pol_prio_allow_shadows", &[VTI, SA_OUT, priority!("10"), block!("20")], FIVE),
    scenario("tx_pol_prio_equal_specific", &[VTI, SA_OUT, priority!("10"), block!("10")], FIVE),
    scenario(
        "tx_tmpl_proto_ah",
        &[VTI, SA_OUT, policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.2 proto ah reqid 1 mode tunnel")],
        FIVE,
    ),
    scenario(
        "tx_tmpl_spi_mismatch",
        &[
            VTI,
            SA_OUT,
            policy!("out" "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x999 reqid 1 mode tunnel"),
        ],
        FIVE,
    ),
    scenario(
        "tx_tmpl_level_use_nosa",
        &[VTI, policy!("out" "tmpl src 0.0.0.0 dst 0.0.0.0 proto esp reqid 1 mode transport level use")],
        FIVE,
    ),
    scenario(
        "tx_sa_selector_mismatch",
        &[
            VTI,
            sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "sel src 0.0.0.0/0 dst 10.77.0.0/16"),
            POL_OUT,
        ],
        FIVE,
    ),
    scenario(
        "tx_sa_selector_ok",
        &[
            VTI,
            sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "sel src 0.0.0.0/0 dst 10.2.0.0/16"),
            POL_OUT,
        ],
        FIVE,
    ),
    scenario(
        "tx_sa_mark_mismatch",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "mark 2"), POL_OUT],
        FIVE,
    ),
    scenario("tx_outer_blackhole", &[VTI_FAR, SA_FAR, POL_FAR, "route add blackhole 203.0.113.0/24"], FIVE),
    scenario(
        "tx_outer_unreachable",
        &[VTI_FAR, SA_FAR, POL_FAR, "route add unreachable 203.0.113.0/24"],
        FIVE,
    ),
    scenario("tx_outer_prohibit", &[VTI_FAR, SA_FAR, POL_FAR, "route add prohibit 203.0.113.0/24"], FIVE),
    scenario(
        "tx_seq_maywrap",
        &[
            VTI,
            sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "replay-oseq 0xfffffffd extra-flag oseq-may-wrap"),
            POL_OUT,
        ],
        FIVE,
    ),
    scenario(
        "tx_sa_tfcpad",
        &[VTI, sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" out "tfcpad 300"), POL_OUT],
        &[Step::Client { count: 2, size: 100, df: false }],
    ),
    scenario("rx_ok_fwd", GOOD, FIVE_ESP),
    scenario("rx_unknown_spi", GOOD, &[unknown(1), unknown(1), unknown(1), unknown(1), unknown(1)]),
    scenario("rx_bad_icv", GOOD, &[forged(1), forged(2), forged(3), forged(4), forged(5)]),
    scenario("rx_replay", &[VTI, SA_OUT, SA_IN_WINDOW, POL_OUT, POL_IN], &[esp(1), esp(1), esp(1)]),
    scenario(
        "rx_replay_old",
        &[VTI, SA_OUT, SA_IN_WINDOW, POL_OUT, POL_IN],
        &[esp(100), esp(69), esp(68), esp(50)],
    ),
    scenario("rx_replay_seq0", &[VTI, SA_OUT, SA_IN_WINDOW, POL_OUT, POL_IN], &[esp(0), esp(0)]),
    scenario(
        "rx_replay_badicv_noadvance",
        &[VTI, SA_OUT, SA_IN_WINDOW, POL_OUT, POL_IN],
        &[forged(1000), esp(1)],
    ),
    scenario("rx_nopol", &[VTI, SA_OUT, SA_IN, POL_OUT], FIVE_ESP),
    scenario("rx_pol_block", &[VTI, SA_IN, policy!("in" "action block")], FIVE_ESP),
    scenario("rx_pol_allow_notmpl", &[VTI, SA_IN, policy!("in" "")], FIVE_ESP),
    scenario(
        "rx_tmpl_reqid_mismatch",
        &[VTI, SA_IN, policy!("in" "tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 9 mode tunnel")],
        FIVE_ESP,
    ),
    scenario(
        "rx_tmpl_saddr_mismatch",
        &[VTI, SA_IN, policy!("in" "tmpl src 198.51.100.3 dst 198.51.100.1 proto esp reqid 1 mode tunnel")],
        FIVE_ESP,
    ),
    scenario(
        "rx_sa_selector_mismatch",
        &[
            VTI,
            SA_OUT,
            sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "sel src 10.77.0.0/16 dst 0.0.0.0/0"),
            POL_OUT,
            POL_IN,
        ],
        FIVE_ESP,
    ),
    scenario(
        "rx_sa_transport",
        &[VTI, sa!("198.51.100.2" "198.51.100.1" "0x200" "transport" in ""), POL_IN],
        FIVE_ESP,
    ),
    scenario("rx_pol_mark_mismatch", &[VTI, SA_IN, POL_IN_MARK_2], FIVE_ESP),
    scenario("rx_ikey_used", &[VTI_OKEY_7, SA_IN, POL_IN], THREE_ESP),
    scenario(
        "rx_pol_selector_mismatch",
        &[
            VTI,
            SA_IN,
            "xfrm policy add src 10.77.0.0/16 dst 0.0.0.0/0 dir in mark 1 tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel",
        ],
        FIVE_ESP,
    ),
    scenario(
        "rx_tmpl_reqid0",
        &[VTI, SA_IN, policy!("in" "tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 0 mode tunnel")],
        THREE_ESP,
    ),
    scenario(
        "rx_tmpl_level_use",
        &[
            VTI,
            SA_IN,
            policy!("in" "tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel level use"),
        ],
        THREE_ESP,
    ),
    scenario(
        "rx_sa_mark_mismatch",
        &[VTI, sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "mark 2"), POL_IN],
        FIVE_ESP,
    ),
    scenario(
        "rx_sa_mark_ok",
        &[VTI, sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "mark 1"), POL_IN],
        THREE_ESP,
    ),
    scenario("rx_replay_window0", GOOD, &[esp(1), esp(1), esp(1)]),
    scenario("rx_seq0_window0", GOOD, &[esp(0), esp(0)]),
    scenario(
        "rx_replay_bmp",
        &[VTI, sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "replay-window 128"), POL_IN],
        &[esp(200), esp(200), esp(73), esp(72)],
    ),
    scenario(
        "rx_encap_mismatch",
        &[
            VTI,
            sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "encap espinudp 4500 4500 0.0.0.0"),
            POL_IN,
        ],
        FIVE_ESP,
    ),
    scenario(
        "rx_expire_bytes",
        &[VTI, sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" in "limit byte-hard 300"), POL_IN],
        &[esp(1), esp(2), esp(3), esp(4), esp(5), esp(6)],
    ),
    scenario("rx_trunc_4", GOOD, &[cut(4), cut(4), cut(4), cut(4), cut(4)]),
    scenario("rx_trunc_8", GOOD, &[cut(8), cut(8), cut(8), cut(8), cut(8)]),
    scenario("rx_trunc_24", GOOD, &[cut(24), cut(24), cut(24), cut(24), cut(24)]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::recorded;

    /// A scenario that sends something else than its recording proves nothing.
    #[test]
    fn each_scenario_sends_what_was_recorded() {
        for scenario in SCENARIOS {
            let sent: u64 = scenario
                .steps
                .iter()
                .map(|step| match step {
                    Step::Client { count, .. } => *count,
                    Step::Peer { .. } => 1,
                    Step::Gone { .. } => 0,
                })
                .sum();
            assert_eq!(sent, recorded(scenario.name).unwrap().sent, "{}", scenario.name);
        }
    }
}
