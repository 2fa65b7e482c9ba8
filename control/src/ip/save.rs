//! `uvti save`: what uvti owns, as a batch of `ip` lines that makes it again.

use super::dsfield;
use super::parse::{EXTRA_FLAGS, POLICY_FLAGS, STATE_FLAGS, protocol_name};
use super::show::flag_names;
use std::fmt::{Display, Write};
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec, TunnelHeader};
use uvti_core::xfrm::{
    Action, Direction, Key, Level, Limits, Mark, PolicyInfo, SaDirection, Selector, StateInfo, Template,
};

/// The batch. States and policies are given as they are listed, newest first, and written oldest first: among equals
/// the order decides. Sequence numbers go on where they are.
pub fn save(
    links: &[LinkInfo],
    states: &[StateInfo],
    policies: &[PolicyInfo],
    defaults: [Action; 3],
) -> String {
    let mut out = String::new();
    links.iter().flat_map(link).for_each(|line| line.end(&mut out));
    states.iter().rev().map(state).for_each(|line| line.end(&mut out));
    policies.iter().rev().map(policy).for_each(|line| line.end(&mut out));
    if defaults != [Action::Allow; 3] {
        let mut line = Line::of("xfrm policy setdefault");
        for dir in Direction::ALL {
            let action = if defaults[dir as usize] == Action::Allow { "accept" } else { "block" };
            line.word(dir.name(), action);
        }
        line.end(&mut out);
    }
    out
}

/// A line on its way.
struct Line(String);

impl Line {
    fn of(start: impl Into<String>) -> Self {
        Self(start.into())
    }

    /// A keyword and its value.
    fn word(&mut self, keyword: &str, value: impl Display) {
        let _ = write!(self.0, " {keyword} {value}");
    }

    /// The same, unless the value is the one that it has without.
    fn some<T: Display + PartialEq>(&mut self, keyword: &str, value: T, without: T) {
        if value != without {
            self.word(keyword, value);
        }
    }

    fn mark(&mut self, keyword: &str, mark: Mark) {
        if !mark.is_unset() {
            let _ = write!(self.0, " {keyword} {:#x} mask {:#x}", mark.value, mark.mask);
        }
    }

    fn flags<T: Into<u64> + Copy>(&mut self, keyword: &str, flags: T, table: &[(&str, T)]) {
        let bits: u64 = flags.into();
        let named = table.iter().fold(0, |all, (_, bit)| all | (*bit).into());
        match bits {
            0 => {}
            _ if bits & !named != 0 => self.word(keyword, format_args!("{bits:#x}")),
            _ => self.word(keyword, flag_names(flags, table)),
        }
    }

    fn limits(&mut self, limits: &Limits) {
        for (name, value, without) in [
            ("byte-soft", limits.soft_bytes, u64::MAX),
            ("byte-hard", limits.hard_bytes, u64::MAX),
            ("packet-soft", limits.soft_packets, u64::MAX),
            ("packet-hard", limits.hard_packets, u64::MAX),
            ("time-soft", limits.soft_add_seconds, 0),
            ("time-hard", limits.hard_add_seconds, 0),
            ("time-use-soft", limits.soft_use_seconds, 0),
            ("time-use-hard", limits.hard_use_seconds, 0),
        ] {
            if value != without {
                self.word("limit", format_args!("{name} {value}"));
            }
        }
    }

    fn end(mut self, out: &mut String) {
        self.0.push('\n');
        out.push_str(&self.0);
    }
}

/// A device: by `ip link` or `ip tunnel`, as it was made, and what that cannot say by the other.
fn link(info: &LinkInfo) -> Vec<Line> {
    let spec = &info.spec;
    let (name, kind) = (&spec.name, spec.kind.name());
    let mut lines = Vec::new();
    if spec.header.by_ioctl {
        let mut add = Line::of(format!("tunnel add {name} mode {kind}"));
        ends(&mut add, spec);
        let made = TunnelHeader { by_ioctl: true, df: true, ..TunnelHeader::default() };
        // `ip link change` would set it back.
        let header = if spec.fwmark == 0 { spec.header } else { made };
        outer_header(&mut add, header, made);
        lines.push(add);
        lines.push(Line::of(format!("link set dev {name} mtu {}", info.mtu)));
        if spec.fwmark != 0 {
            lines.push(Line::of(format!("link change {name} type {kind} fwmark {:#x}", spec.fwmark)));
            lines.extend(header_change(spec));
        }
    } else {
        let mut add = Line::of(format!("link add name {name} mtu {} type {kind}", info.mtu));
        ends(&mut add, spec);
        if spec.fwmark != 0 {
            add.word("fwmark", format_args!("{:#x}", spec.fwmark));
        }
        if spec.kind == LinkKind::Xfrm {
            add.word("if_id", format_args!("{:#x}", spec.if_id));
        }
        lines.push(add);
        lines.extend(header_change(spec));
    }
    lines
}

/// Endpoints, keys, and the device below.
fn ends(line: &mut Line, spec: &LinkSpec) {
    for (keyword, address) in [("local", spec.local), ("remote", spec.remote)] {
        if !address.is_unspecified() {
            line.word(keyword, address);
        }
    }
    line.some("ikey", spec.ikey, 0);
    line.some("okey", spec.okey, 0);
    if let Some(dev) = &spec.dev {
        line.word("dev", dev);
    }
}

/// What differs from `before`.
fn outer_header(line: &mut Line, header: TunnelHeader, before: TunnelHeader) {
    line.some("ttl", header.ttl, before.ttl);
    if header.tos != before.tos {
        line.word("tos", dsfield::shown(header.tos));
    }
    if header.df != before.df {
        line.0.push_str(if header.df { " pmtudisc" } else { " nopmtudisc" });
    }
}

/// By `ip tunnel change`, from what `ip link` leaves.
fn header_change(spec: &LinkSpec) -> Option<Line> {
    let before = TunnelHeader { by_ioctl: spec.header.by_ioctl, ..TunnelHeader::default() };
    (spec.kind == LinkKind::Vti && spec.header != before).then(|| {
        let mut line = Line::of(format!("tunnel change {}", spec.name));
        outer_header(&mut line, spec.header, before);
        line
    })
}

fn state(info: &StateInfo) -> Line {
    let (spec, replay) = (&info.spec, &info.replay);
    let mut line = Line::of(format!("xfrm state add src {} dst {}", spec.src, spec.dst));
    line.word("proto", spec.proto.name());
    line.word("spi", spec.spi);
    line.word("mode", spec.mode.name());
    line.some("reqid", spec.reqid, 0);
    line.some("seq", spec.seq, 0);
    line.mark("mark", spec.mark);
    line.mark("output-mark", spec.output_mark);
    line.some("if_id", spec.if_id, 0);
    line.flags("flag", spec.flags.0, STATE_FLAGS);
    line.flags("extra-flag", spec.extra_flags.0, EXTRA_FLAGS);
    line.some("replay-window", spec.replay_window, 0);
    line.some("replay-seq", replay.seq, 0);
    line.some("replay-seq-hi", replay.seq_hi, 0);
    line.some("replay-oseq", replay.oseq, 0);
    line.some("replay-oseq-hi", replay.oseq_hi, 0);
    if let Some(aead) = &spec.algs.aead {
        line.word("aead", format_args!("{} {} {}", aead.name, key(&aead.key), aead.icv_bits));
    }
    if let Some(enc) = &spec.algs.enc {
        line.word("enc", format_args!("{} {}", enc.name, key(&enc.key)));
    }
    if let Some(auth) = &spec.algs.auth {
        match auth.trunc_bits {
            Some(bits) => line.word("auth-trunc", format_args!("{} {} {bits}", auth.name, key(&auth.key))),
            None => line.word("auth", format_args!("{} {}", auth.name, key(&auth.key))),
        }
    }
    if let Some(e) = &spec.encap {
        line.word("encap", format_args!("{} {} {} {}", e.kind.name(), e.sport, e.dport, e.original));
    }
    line.some("tfcpad", spec.tfcpad, 0);
    if let Some(dir) = spec.dir {
        line.word("dir", if dir == SaDirection::In { "in" } else { "out" });
    }
    line.limits(&spec.limits);
    if let Some(sel) = &spec.sel {
        line.0.push_str(" sel");
        selector(&mut line, sel);
    }
    line
}

/// In hexadecimal; an empty one is an empty word.
fn key(key: &Key) -> String {
    if key.bytes().is_empty() {
        return "''".to_owned();
    }
    key.bytes().iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn selector(line: &mut Line, sel: &Selector) {
    if sel.family.is_some() {
        line.word("src", sel.src);
        line.word("dst", sel.dst);
    }
    if let Some(dev) = &sel.dev {
        line.word("dev", dev);
    }
    let (first, second) = match sel.proto {
        GRE if sel.sport.mask != 0 || sel.dport.mask != 0 => {
            let key = u32::from(sel.sport.value) << 16 | u32::from(sel.dport.value);
            return line.word("proto", format_args!("gre key {key}"));
        }
        ICMP | ICMPV6 | MOBILITY => ("type", "code"),
        _ => ("sport", "dport"),
    };
    match sel.proto {
        // Something must follow `sel`.
        0 => line.word("proto", "any"),
        proto => line.word("proto", protocol_name(proto)),
    }
    for (keyword, half) in [(first, sel.sport), (second, sel.dport)] {
        if half.mask != 0 {
            line.word(keyword, half.value);
        }
    }
}

const ICMP: u8 = 1;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const MOBILITY: u8 = 135;

fn policy(info: &PolicyInfo) -> Line {
    let spec = &info.spec;
    let mut line = Line::of("xfrm policy add");
    selector(&mut line, &spec.sel);
    line.word("dir", spec.dir.name());
    line.mark("mark", spec.mark);
    line.some("index", spec.index, 0);
    line.some("action", spec.action.name(), Action::Allow.name());
    line.some("priority", spec.priority, 0);
    line.flags("flag", spec.flags.0, POLICY_FLAGS);
    line.some("if_id", spec.if_id, 0);
    line.limits(&spec.limits);
    spec.templates.iter().for_each(|t| template(&mut line, t));
    line
}

fn template(line: &mut Line, t: &Template) {
    line.word("tmpl src", t.src);
    line.word("dst", t.dst);
    line.word("proto", t.proto.name());
    line.some("spi", t.spi.0, 0);
    line.word("mode", t.mode.name());
    line.some("reqid", t.reqid, 0);
    line.some("level", t.level.name(), Level::Required.name());
}
