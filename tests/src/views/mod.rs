//! What `uvti` prints is what iproute2 and `/proc` print of a kernel VTI with the same configuration and the same
//! packets, byte for byte; both are in the same guest.

mod lab;

use crate::gateway::Engine;
use crate::guest::{Results, Setup};
use crate::outcome::Outcome;
use anyhow::Result;
use lab::{Fault, Lab, Step};

/// A tunnel.
const CONFIG: &[&str] = &[
    "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1",
    "addr add 10.9.0.1/24 dev vti0",
    "link set vti0 up",
    "route add 10.2.0.0/16 dev vti0",
    "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 reqid 1 mode tunnel \
     aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128",
    "xfrm state add src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x200 reqid 1 mode tunnel replay-window 32 \
     aead rfc4106(gcm(aes)) 0x2122232425262728292a2b2c2d2e2f3031323334 128",
    "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 1 \
     tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel",
    "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir in mark 1 \
     tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel",
    "xfrm policy add src 10.7.0.0/16 dst 10.8.0.0/16 dir fwd priority 9 action block",
];

/// Devices that carry nothing, each configured in another way: its name, and the lines that make it.
const DEVICES: &[(&str, &[&str])] = &[
    ("t1", &["link add t1 type vti local 198.51.100.1 remote 203.0.113.1 ikey 5 okey 0.0.1.0"]),
    ("t2", &["link add t2 type vti local 198.51.100.1 remote any"]),
    ("t3", &["link add t3 type vti local any remote 203.0.113.3 dev wan fwmark 0x10", "link set t3 up"]),
    ("t4", &["link add name t4 mtu 1400 type vti remote 203.0.113.4"]),
    ("t5", &["tunnel add t5 mode vti local 198.51.100.1 remote 203.0.113.5 key 42"]),
    ("t6", &["tunnel add t6 mode vti local 198.51.100.1 remote 203.0.113.6 ttl 64"]),
    ("t7", &["tunnel add t7 mode vti local 198.51.100.1 remote 203.0.113.7 nopmtudisc"]),
    ("t8", &["tunnel add t8 mode vti local 198.51.100.1 remote 203.0.113.8 tos 0x10 pmtudisc"]),
    (
        "t9",
        &["tunnel add t9 mode vti local 198.51.100.1 remote 203.0.113.9 tos inherit dev wan ikey 1 okey 2"],
    ),
    ("t10", &["tunnel add t10 mode vti local 192.0.2.10 remote any"]),
    ("t15", &["tunnel add t15 mode vti local 198.51.100.1 remote 203.0.113.15 tos inherit/EF"]),
    ("vti15", &["tunnel add vti15 local 198.51.100.1 remote 203.0.113.16"]),
    (
        "t11",
        &[
            "tunnel add t11 mode vti local 198.51.100.1 remote 203.0.113.11 ttl 64 tos 4",
            "link change t11 type vti local 198.51.100.1 remote 203.0.113.11 key 7",
        ],
    ),
    (
        "t12",
        &[
            "link add t12 type vti local 198.51.100.1 remote 203.0.113.12 key 7",
            "tunnel change t12 mode vti local 198.51.100.1 remote 203.0.113.12 ttl 9 pmtudisc",
        ],
    ),
    (
        "t13",
        &[
            "tunnel add t13 mode vti local 198.51.100.1 remote 203.0.113.13 key 7",
            "tunnel change t13 mode vti local 198.51.100.1 remote 203.0.113.13 nopmtudisc",
        ],
    ),
    (
        "t14",
        &[
            "tunnel add t14 mode vti local 198.51.100.1 remote 203.0.113.14 key 7 ttl 9",
            "tunnel change t14 mode vti local 198.51.100.1 remote 203.0.113.14 key 8",
        ],
    ),
];

/// The same of `vti6`.
const DEVICES_V6: &[(&str, &[&str])] = &[
    ("s1", &["link add s1 type vti6 local 2001:db8::1 remote 2001:db8::2 key 7"]),
    ("s2", &["tunnel add s2 mode vti6 local 2001:db8::1 remote 2001:db8::3 ikey 1 okey 2"]),
];

/// One thing that happens to the tunnel.
#[derive(Debug)]
enum Act {
    /// A line of `ip`.
    Ip(&'static str),
    /// Packets.
    Take(Step),
}

const fn client(count: u64, size: usize, df: bool) -> Act {
    Act::Take(Step::Client { count, size, df })
}

const fn peer(spi: u32, sequence: u32, fault: Fault) -> Act {
    Act::Take(Step::Peer { spi, sequence, fault })
}

/// Moves every counter that the views show, each by another number.
const ACTS: &[Act] = &[
    client(2, 100, false),
    client(1, 1470, true),
    peer(0x200, 40, Fault::None),
    peer(0x200, 41, Fault::None),
    peer(0x200, 41, Fault::None),
    peer(0x200, 1, Fault::None),
    peer(0x200, 42, Fault::Icv),
    peer(0x200, 43, Fault::Icv),
    peer(0x200, 44, Fault::Cut(4)),
    peer(0x999, 1, Fault::None),
    Act::Ip("xfrm state delete src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100"),
    client(3, 100, false),
    Act::Ip(
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x101 reqid 1 mode tunnel \
         replay-oseq 0xfffffffe aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128",
    ),
    client(3, 100, false),
    Act::Ip("route add 198.51.100.2/32 dev vti0"),
    client(4, 100, false),
    Act::Ip("route del 198.51.100.2/32 dev vti0"),
];

/// What is asked of `ip` for the tunnel.
const VIEWS: &[&str] = &[
    "link show dev vti0",
    "-s link show dev vti0",
    "-s -s link show dev vti0",
    "-s -s -d link show dev vti0",
    "-s -s -d -o link show dev vti0",
    "-br link show dev vti0",
    "-j link show dev vti0",
    "-s -d -j link show dev vti0",
    "-s -s -d -j link show dev vti0",
    "-s -s -d -j -p link show dev vti0",
    "-br -j link show dev vti0",
    "link show type vti",
    "-s tunnel show vti0",
    "-s tunnel show",
    "tunnel show",
    "-s -d -j tunnel show vti0",
    "xfrm state",
    "-s xfrm state",
    "-o -s xfrm state",
    "xfrm state count",
    "-s xfrm state count",
    "xfrm state list nokeys",
    "xfrm policy",
    "-s xfrm policy",
    "-o xfrm policy",
    "xfrm policy count",
    "-s xfrm policy count",
    "xfrm policy getdefault",
    "-4 xfrm state",
    "-6 xfrm state",
    "-6 -s xfrm policy",
    "xfrm state list src 198.51.100.2 proto esp",
    "xfrm state list dst 198.51.100.2 spi 0x101",
    "xfrm state list reqid 2",
    "xfrm state list mode transport",
    "xfrm state get dst 198.51.100.1 proto esp spi 0x200",
    "-s xfrm state get src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x200",
    "xfrm policy list dir fwd",
    "xfrm policy list src 10.7.0.0/16",
    "xfrm policy list action block",
    "xfrm policy list priority 9",
    "xfrm policy get dir out mark 1 src 0.0.0.0/0 dst 0.0.0.0/0",
    "-s xfrm policy get index 18 dir fwd",
];

/// Changes by filters and of defaults, and what is left.
const CHANGES: &[(&str, &str)] = &[
    ("xfrm policy setdefault in block fwd block", "xfrm policy getdefault"),
    ("xfrm policy setdefault fwd accept", "xfrm policy getdefault"),
    ("xfrm policy deleteall dir in", "xfrm policy"),
    ("xfrm policy deleteall priority 9", "xfrm policy count"),
    ("xfrm state deleteall src 198.51.100.2", "xfrm state"),
    ("xfrm state deleteall reqid 9", "xfrm state count"),
    ("-6 xfrm state deleteall", "xfrm state count"),
    ("xfrm state flush proto ah", "xfrm state count"),
    ("xfrm state flush proto esp", "xfrm state count"),
    ("xfrm policy flush", "-s xfrm policy count"),
];

/// The engines one after the other: a namespace each, and a clock that differs by a moment.
pub fn run(setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    // `ip tunnel` asks the fallback device for a tunnel.
    std::fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "0")?;
    let uvti = Engine::Uvti { program: setup.uvti.clone(), workers: 1 };
    let mut cases = shown(&Engine::Kernel)?.into_iter().zip(shown(&uvti)?);
    cases.try_for_each(|((case, kernel), (_, uvti))| {
        results.push(&Outcome::of(&case, |failures| {
            // Later kernels have more lines in it, all behind those of the guest's.
            let uvti = match case.as_str() {
                "net/xfrm_stat" => uvti.get(..kernel.len()).unwrap_or(&uvti),
                _ => &uvti,
            };
            if kernel != uvti {
                failures.push(format!("kernel:\n{kernel}\nuvti:\n{uvti}"));
            }
            Ok(kernel.lines().next().unwrap_or_default().to_owned())
        }))
    })
}

/// Each view by its command.
fn shown(engine: &Engine) -> Result<Vec<(String, String)>> {
    let mut lab = Lab::build(engine, CONFIG)?;
    for act in ACTS {
        match act {
            Act::Ip(line) => lab.gateway().ip(&[(*line).to_owned()])?,
            Act::Take(step) => lab.take(step)?,
        }
    }
    let gateway = lab.gateway();
    let ask = |words: &str| -> Result<(String, String)> {
        let shown = gateway.ask(&words.split(' ').collect::<Vec<_>>())?;
        Ok((format!("ip {words}"), comparable(&shown)))
    };
    let mut all = VIEWS.iter().map(|words| ask(words)).collect::<Result<Vec<_>>>()?;
    for file in ["dev", "xfrm_stat"] {
        let text = gateway.proc_net(file)?;
        let ours = |line: &&str| file != "dev" || line.contains("vti0:") || line.contains('|');
        all.push((format!("net/{file}"), text.lines().filter(ours).collect::<Vec<_>>().join("\n")));
    }
    for (name, lines) in DEVICES {
        gateway.ip(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())?;
        for words in ["tunnel show", "-s tunnel show", "-d link show dev", "-s -d -j link show dev"] {
            all.push(ask(&format!("{words} {name}"))?);
        }
    }
    for (name, lines) in DEVICES_V6 {
        gateway.ip(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())?;
        for words in ["-6 tunnel show", "-6 -s tunnel show"] {
            all.push(ask(&format!("{words} {name}"))?);
        }
    }
    for words in ["tunnel show", "-6 tunnel show", "-6 -s tunnel show"] {
        all.push(ask(words)?);
    }
    for (change, view) in CHANGES {
        let (_, said) = ask(change)?;
        let (_, left) = ask(view)?;
        all.push((format!("ip {change}"), said + &left));
    }
    Ok(all)
}

/// Without what two devices in two namespaces cannot share: the interface's index, and times.
fn comparable(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match line.split_once(": ") {
            Some((index, rest)) if index.parse::<u32>().is_ok() => format!("N: {rest}"),
            _ => line.to_owned(),
        };
        lines.push(without_numbers(
            &without_numbers(&without_numbers(&line, "\"ifindex\":"), "  add "),
            " use ",
        ));
    }
    lines.join("\n")
}

/// The number or time behind each `word` by `N`.
fn without_numbers(line: &str, word: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(word) {
        let (head, tail) = rest.split_at(at + word.len());
        let time = |c: char| c.is_ascii_digit() || "-: ".contains(c);
        let number = tail.trim_start_matches(' ');
        let end = number.find(|c| !time(c)).unwrap_or(number.len());
        let digits = number[..end].trim_end();
        out.push_str(head);
        // `-`: it has not come.
        out.push_str(if digits.starts_with(|c: char| c.is_ascii_digit()) { "N" } else { digits });
        rest = &number[digits.len()..];
    }
    out + rest
}
