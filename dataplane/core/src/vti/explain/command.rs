//! Tables' objects in the words of `ip xfrm`: to be shown, and to be pasted.

use crate::packet::proto;
use crate::xfrm::{
    Action, Family, Level, Limits, Mark, PolicySpec, PortMatch, SaDirection, Selector, StateSpec, Template,
};

/// The name of a protocol, or its number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        proto::ICMP => "icmp".to_owned(),
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::GRE => "gre".to_owned(),
        proto::ESP => "esp".to_owned(),
        proto::ICMPV6 => "ipv6-icmp".to_owned(),
        proto::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// `src … dst … proto … sport … dport …`.
pub(super) fn selector(sel: &Selector) -> String {
    let mut words = vec![format!("src {} dst {}", sel.src, sel.dst)];
    if sel.proto != 0 {
        words.push(format!("proto {}", protocol(sel.proto)));
    }
    let names = match sel.proto {
        proto::ICMP | proto::ICMPV6 | proto::MH => ("type", "code"),
        _ => ("sport", "dport"),
    };
    let mut port = |name: &str, p: PortMatch| {
        if p.mask != 0 {
            words.push(format!("{name} {}", p.value));
        }
    };
    match sel.proto {
        proto::GRE if sel.sport.mask != 0 => {
            words.push(format!("key {}", u32::from(sel.sport.value) << 16 | u32::from(sel.dport.value)));
        }
        _ => {
            port(names.0, sel.sport);
            port(names.1, sel.dport);
        }
    }
    words.extend(sel.dev.iter().map(|dev| format!("dev {dev}")));
    words.join(" ")
}

fn mark(mark: Mark) -> Option<String> {
    match mark {
        m if m.is_unset() => None,
        Mark { value, mask: u32::MAX } => Some(format!("mark {value:#x}")),
        Mark { value, mask } => Some(format!("mark {value:#x} mask {mask:#x}")),
    }
}

fn if_id(if_id: u32) -> String {
    if if_id == 0 { String::new() } else { format!(" if_id {if_id:#x}") }
}

/// `tmpl src … dst … proto esp reqid … mode …`.
pub(super) fn template(t: &Template) -> String {
    let spi = if t.spi.0 == 0 { String::new() } else { format!(" spi {}", t.spi) };
    let level = if t.level == Level::Use { " level use" } else { "" };
    let (proto, mode) = (t.proto.name(), t.mode.name());
    format!("tmpl src {} dst {} proto {proto}{spi} reqid {} mode {mode}{level}", t.src, t.dst, t.reqid)
}

/// A policy as it is shown: `index 8 dir out priority 0 src … dst … mark 0x1`.
pub(super) fn policy_line(p: &PolicySpec) -> String {
    let action = if p.action == Action::Block { " action block" } else { "" };
    let mark = match (mark(p.mark), p.if_id) {
        (Some(mark), _) => format!(" {mark}"),
        (None, 0) => " without mark".to_owned(),
        (None, _) => String::new(),
    };
    let (dir, sel, if_id) = (p.dir.name(), selector(&p.sel), if_id(p.if_id));
    format!("index {} dir {dir} priority {}{action} {sel}{mark}{if_id}", p.index, p.priority)
}

/// `uvti ip xfrm policy VERB …`: the policy as it is.
pub(super) fn policy(verb: &str, p: &PolicySpec) -> String {
    let mut words = vec![format!("uvti ip xfrm policy {verb} {} dir {}", selector(&p.sel), p.dir.name())];
    words.extend(mark(p.mark));
    if p.if_id != 0 {
        words.push(format!("if_id {:#x}", p.if_id));
    }
    if verb != "delete" {
        if p.action == Action::Block {
            words.push("action block".to_owned());
        }
        if p.priority != 0 {
            words.push(format!("priority {}", p.priority));
        }
        if p.flags.0 != 0 {
            words.push(format!("flag {:#x}", p.flags.0));
        }
        words.extend(limits(&p.limits));
        words.extend(p.templates.iter().map(template));
    }
    words.join(" ")
}

/// A state as it is shown, without its keys.
pub(super) fn state_line(s: &StateSpec) -> String {
    let mark = mark(s.mark).map(|m| format!(" {m}")).unwrap_or_default();
    let (spi, mode, if_id) = (s.spi, s.mode.name(), if_id(s.if_id));
    format!("spi {spi} reqid {} mode {mode} src {} dst {}{mark}{if_id}", s.reqid, s.src, s.dst)
}

/// `dir` of a state.
pub(super) fn direction(dir: Option<SaDirection>) -> &'static str {
    match dir {
        None => "the SA has no dir: it is for both",
        Some(SaDirection::In) => "dir in",
        Some(SaDirection::Out) => "dir out",
    }
}

/// `uvti ip xfrm state delete …`.
pub(super) fn state_delete(s: &StateSpec) -> String {
    let mark = mark(s.mark).map(|m| format!(" {m}")).unwrap_or_default();
    format!(
        "uvti ip xfrm state delete src {} dst {} proto {} spi {}{mark}",
        s.src,
        s.dst,
        s.proto.name(),
        s.spi
    )
}

/// `uvti ip xfrm state add …`, with `$KEY` (or `$AUTH_KEY`, `$ENC_KEY`) for the secret: an explanation is passed on.
pub(super) fn state_add(s: &StateSpec) -> String {
    let mut words = vec![format!(
        "uvti ip xfrm state add src {} dst {} proto {} spi {}",
        s.src,
        s.dst,
        s.proto.name(),
        s.spi
    )];
    words.push(format!("reqid {} mode {}", s.reqid, s.mode.name()));
    words.extend(mark(s.mark));
    words.extend(mark(s.output_mark).map(|m| format!("output-{m}")));
    if s.if_id != 0 {
        words.push(format!("if_id {:#x}", s.if_id));
    }
    if s.replay_window != 0 {
        words.push(format!("replay-window {}", s.replay_window));
    }
    if s.flags.0 != 0 {
        words.push(format!("flag {:#x}", s.flags.0));
    }
    if s.extra_flags.0 != 0 {
        words.push(format!("extra-flag {:#x}", s.extra_flags.0));
    }
    algorithms(s, &mut words);
    if let Some(e) = &s.encap {
        words.push(format!("encap {} {} {} {}", e.kind.name(), e.sport, e.dport, e.original));
    }
    words.extend(s.sel.as_ref().map(|sel| format!("sel {}", selector(sel))));
    words.extend(limits(&s.limits));
    if s.tfcpad != 0 {
        words.push(format!("tfcpad {}", s.tfcpad));
    }
    words.extend(s.dir.map(|dir| direction(Some(dir)).to_owned()));
    words.join(" ")
}

fn algorithms(s: &StateSpec, words: &mut Vec<String>) {
    if let Some(aead) = &s.algs.aead {
        words.push(format!("aead '{}' $KEY {}", aead.name, aead.icv_bits));
    }
    if let Some(auth) = &s.algs.auth {
        words.push(match auth.trunc_bits {
            Some(bits) => format!("auth-trunc '{}' $AUTH_KEY {bits}", auth.name),
            None => format!("auth '{}' $AUTH_KEY", auth.name),
        });
    }
    if let Some(enc) = &s.algs.enc {
        words.push(format!("enc '{}' $ENC_KEY", enc.name));
    }
}

fn limits(l: &Limits) -> Vec<String> {
    let none = Limits::NONE;
    let all = [
        ("time-soft", l.soft_add_seconds, none.soft_add_seconds),
        ("time-hard", l.hard_add_seconds, none.hard_add_seconds),
        ("time-use-soft", l.soft_use_seconds, none.soft_use_seconds),
        ("time-use-hard", l.hard_use_seconds, none.hard_use_seconds),
        ("byte-soft", l.soft_bytes, none.soft_bytes),
        ("byte-hard", l.hard_bytes, none.hard_bytes),
        ("packet-soft", l.soft_packets, none.soft_packets),
        ("packet-hard", l.hard_packets, none.hard_packets),
    ];
    all.iter().filter(|(_, n, none)| n != none).map(|(name, n, _)| format!("limit {name} {n}")).collect()
}

/// A state in place of another of that name: what an update cannot change.
pub(super) fn state_replace(old: &StateSpec, new: &StateSpec) -> Vec<String> {
    vec![state_delete(old), state_add(new)]
}

/// A new state for a template, its secrets and SPI left open.
pub(super) fn state_for(t: &Template, family: Family) -> String {
    let both = if Family::of(t.dst) == family { "" } else { " flag af-unspec" };
    format!(
        "uvti ip xfrm state add src {} dst {} proto {} spi {} reqid {} mode {}{both} aead 'rfc4106(gcm(aes))' \
         $KEY 128",
        t.src,
        t.dst,
        t.proto.name(),
        if t.spi.0 == 0 { "$SPI".to_owned() } else { t.spi.to_string() },
        t.reqid,
        t.mode.name()
    )
}
