//! What is to be dropped, as plain data: lines of `ip` that change A's tables, and packets.

use uvti_core::reason::Reason;

/// Key and salt of the SA 0x300, whose packets are sealed by hand.
pub(super) const BY_HAND: [u8; 20] = *b"sealed by hand alone";

macro_rules! key {
    (a) => {
        " aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
    };
    (b) => {
        " aead rfc4106(gcm(aes)) 0x2122232425262728292a2b2c2d2e2f3031323334 128"
    };
    (hand) => {
        " aead rfc4106(gcm(aes)) 0x7365616c65642062792068616e6420616c6f6e65 128"
    };
}
macro_rules! sa {
    ($src:literal $dst:literal $spi:literal $mode:literal $key:ident $($more:literal)?) => {
        concat!(
            "xfrm state add src ", $src, " dst ", $dst, " proto esp spi ", $spi, " reqid 1 mode ", $mode,
            key!($key), $(" ", $more,)? "\n"
        )
    };
}
macro_rules! policy {
    ($dir:literal $src:literal $dst:literal $reqid:literal $mode:literal) => {
        concat!(
            "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir ",
            $dir,
            " mark 1 tmpl src ",
            $src,
            " dst ",
            $dst,
            " proto esp reqid ",
            $reqid,
            " mode ",
            $mode,
            "\n"
        )
    };
}
macro_rules! device {
    ($verb:literal $local:literal $remote:literal) => {
        concat!("link ", $verb, " vti0 type vti local ", $local, " remote ", $remote, " key 1\n")
    };
}

/// A's configuration.
pub(super) const BATCH_A: &str = concat!(
    device!("add" "198.51.100.1" "198.51.100.2"),
    sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" a),
    sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" b "replay-window 32"),
    policy!("out" "198.51.100.1" "198.51.100.2" "1" "tunnel"),
    policy!("in" "198.51.100.2" "198.51.100.1" "1" "tunnel"),
);
/// B's configuration.
pub(super) const BATCH_B: &str = concat!(
    device!("add" "198.51.100.2" "198.51.100.1"),
    sa!("198.51.100.2" "198.51.100.1" "0x200" "tunnel" b),
    sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" a "replay-window 32"),
    policy!("out" "198.51.100.2" "198.51.100.1" "1" "tunnel"),
    policy!("in" "198.51.100.1" "198.51.100.2" "1" "tunnel"),
);

/// What every class begins with: nothing but the device.
pub(super) const CLEAN: &str =
    concat!("xfrm policy flush\nxfrm state flush\n", device!("change" "198.51.100.1" "198.51.100.2"));

const SA_OUT: &str = sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" a);
const OUT: &str = policy!("out" "198.51.100.1" "198.51.100.2" "1" "tunnel");
const SA_IN: &str = sa!("198.51.100.2" "198.51.100.1" "0x300" "tunnel" hand "replay-window 32");
const IN: &str = policy!("in" "198.51.100.2" "198.51.100.1" "1" "tunnel");

/// One way to lose a packet.
pub(super) struct Class {
    /// Its name in the golden file.
    pub(super) name: &'static str,
    /// What is wrong, in few words.
    pub(super) cause: &'static str,
    /// What uvti must call it.
    pub(super) reason: Reason,
    /// Lines of `ip` for A, after [`CLEAN`].
    pub(super) lines: &'static [&'static str],
    /// What is sent then.
    pub(super) packets: Packets,
}

/// What is sent.
pub(super) enum Packets {
    /// Five packets from A into the tunnel.
    Into { len: usize, df: bool },
    /// ESP from B to A, with these sequence numbers.
    Esp { spi: u32, sequence: &'static [u32], forged: bool },
}

const FIVE: Packets = Packets::Into { len: 100, df: false };
const FIVE_ESP: &[u32] = &[1, 2, 3, 4, 5];

const fn esp(sequence: &'static [u32]) -> Packets {
    Packets::Esp { spi: 0x300, sequence, forged: false }
}

const fn class(
    name: &'static str,
    cause: &'static str,
    reason: Reason,
    lines: &'static [&'static str],
    packets: Packets,
) -> Class {
    Class { name, cause, reason, lines, packets }
}

/// All of them, in the order of the golden file.
pub(super) const CLASSES: &[Class] = &[
    class(
        "tx_no_outer_route",
        "remote without a route",
        Reason::TxNoOuterRoute,
        &[
            device!("change" "198.51.100.1" "203.0.113.1"),
            sa!("198.51.100.1" "203.0.113.1" "0x100" "tunnel" a),
            policy!("out" "198.51.100.1" "203.0.113.1" "1" "tunnel"),
        ],
        FIVE,
    ),
    class("tx_no_policy", "policy deleted", Reason::TxNoPolicy, &[SA_OUT], FIVE),
    class(
        "tx_policy_block",
        "policy says block",
        Reason::TxPolicyBlock,
        &[SA_OUT, "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 1 action block\n"],
        FIVE,
    ),
    class("tx_no_sa", "SA deleted", Reason::TxNoSa, &[OUT], FIVE),
    class(
        "tx_sa_transport_template_tunnel",
        "transport SA",
        Reason::TxNoSa,
        &[sa!("198.51.100.1" "198.51.100.2" "0x100" "transport" a), OUT],
        FIVE,
    ),
    class(
        "tx_sa_transport_template_transport",
        "transport SA and policy",
        Reason::TxNotTunnelMode,
        &[
            sa!("10.9.0.1" "10.9.0.2" "0x100" "transport" a),
            policy!("out" "0.0.0.0" "0.0.0.0" "1" "transport"),
        ],
        FIVE,
    ),
    class(
        "tx_endpoint_mismatch",
        "SA to another address",
        Reason::TxEndpointMismatch,
        &[
            sa!("198.51.100.1" "198.51.100.3" "0x100" "tunnel" a),
            policy!("out" "198.51.100.1" "198.51.100.3" "1" "tunnel"),
        ],
        FIVE,
    ),
    class(
        "tx_loop",
        "remote routed into vti0",
        Reason::TxLoop,
        &[
            device!("change" "198.51.100.1" "203.0.113.2"),
            sa!("198.51.100.1" "203.0.113.2" "0x100" "tunnel" a),
            policy!("out" "198.51.100.1" "203.0.113.2" "1" "tunnel"),
        ],
        FIVE,
    ),
    class(
        "tx_too_big",
        "1470 bytes with DF",
        Reason::TxTooBig,
        &[SA_OUT, OUT],
        Packets::Into { len: 1470, df: true },
    ),
    class(
        "tx_seq_overflow",
        "2 numbers left, 5 sent",
        Reason::TxSeqOverflow,
        &[sa!("198.51.100.1" "198.51.100.2" "0x100" "tunnel" a "replay-oseq 0xfffffffd"), OUT],
        FIVE,
    ),
    class(
        "rx_no_sa",
        "ESP of an unknown SPI",
        Reason::RxNoSa,
        &[SA_IN, IN],
        Packets::Esp { spi: 0x999, sequence: FIVE_ESP, forged: false },
    ),
    class(
        "rx_bad_icv",
        "a bit flipped",
        Reason::RxBadIcv,
        &[SA_IN, IN],
        Packets::Esp { spi: 0x300, sequence: FIVE_ESP, forged: true },
    ),
    class(
        "rx_replay_duplicate",
        "one packet thrice",
        Reason::RxReplayDuplicate,
        &[SA_IN, IN],
        esp(&[1, 1, 1]),
    ),
    class("rx_replay_old", "late, window of 32", Reason::RxReplayOld, &[SA_IN, IN], esp(&[100, 69, 68, 50])),
    class("rx_no_policy", "policy deleted", Reason::RxNoPolicy, &[SA_IN], esp(FIVE_ESP)),
    class(
        "rx_template_mismatch",
        "another reqid",
        Reason::RxTemplateMismatch,
        &[SA_IN, policy!("in" "198.51.100.2" "198.51.100.1" "9" "tunnel")],
        esp(FIVE_ESP),
    ),
];
