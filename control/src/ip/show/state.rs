//! `ip xfrm state`.

use super::{Style, flag_names, lifetimes, mark, selector};
use crate::ip::parse::{EXTRA_FLAGS, STATE_FLAGS};
use crate::protocol::Counts;
use std::fmt::Write;
use uvti_core::esp;
use uvti_core::xfrm::{ExtraFlags, Key, Mark, Selector, StateFlags, StateInfo};

/// One state.
pub fn state(info: &StateInfo, style: Style) -> String {
    let spec = &info.spec;
    let mut out = String::new();
    let _ = writeln!(out, "src {} dst {}", spec.src, spec.dst);
    identity(&mut out, info, style);
    let marks = [(spec.mark, "mark"), (spec.output_mark, "output-mark")];
    marks_line(&mut out, marks);
    algorithms(&mut out, info, style);
    if let Some(encap) = &spec.encap {
        let (kind, original) = (encap.kind.name(), encap.original);
        let _ =
            writeln!(out, "\tencap type {kind} sport {} dport {} addr {original}", encap.sport, encap.dport);
    }
    replay(&mut out, info);
    if spec.if_id != 0 {
        let _ = writeln!(out, "\tif_id {:#x}", spec.if_id);
    }
    if spec.tfcpad != 0 {
        let _ = writeln!(out, "\ttfcpad {}", spec.tfcpad);
    }
    if let Some(dir) = spec.dir {
        let _ = writeln!(out, "\tdir {}", if dir == uvti_core::xfrm::SaDirection::In { "in" } else { "out" });
    }
    selector_line(&mut out, &spec.selector(), style);
    used(&mut out, info, style);
    style.finish(out)
}

/// One state without what is in attributes of its own but its mark and `if_id`, in lines.
pub(super) fn outline(info: &StateInfo, style: Style) -> String {
    let mut info = info.clone();
    info.spec.extra_flags = ExtraFlags::default();
    let spec = &info.spec;
    let mut out = String::new();
    let _ = writeln!(out, "src {} dst {}", spec.src, spec.dst);
    identity(&mut out, &info, style);
    marks_line(&mut out, [(spec.mark, "mark"), (Mark::default(), "output-mark")]);
    if spec.if_id != 0 {
        let _ = writeln!(out, "\tif_id {:#x}", spec.if_id);
    }
    selector_line(&mut out, &spec.selector(), style);
    used(&mut out, &info, style);
    out
}

fn used(out: &mut String, info: &StateInfo, style: Style) {
    if style.stats {
        lifetimes(out, &info.spec.limits, &info.current);
        let stats = &info.stats;
        let _ = writeln!(
            out,
            "\tstats:\n\t  replay-window {} replay {} failed {}",
            stats.replay_window, stats.replay, stats.integrity_failed
        );
    }
}

fn identity(out: &mut String, info: &StateInfo, style: Style) {
    let spec = &info.spec;
    let (proto, mode) = (spec.proto.name(), spec.mode.name());
    // The kernel shows a window beyond 32 packets, and any with ESN, in the ESN context only.
    let window = if uses_bitmap(info) { 0 } else { spec.replay_window };
    let mut flags = flag_names(spec.flags.0, STATE_FLAGS);
    if style.stats {
        // iproute2 6.1 prints extra flags with -s only and without a blank in front, and `seq` as the decimal
        // digits of the number in network order: measured, and kept.
        if spec.extra_flags.0 != 0 {
            let _ = write!(flags, "extra_flag {}", flag_names(spec.extra_flags.0, EXTRA_FLAGS));
        }
        let (spi, reqid, seq) = (spec.spi, spec.reqid, spec.seq.to_be());
        let _ = write!(
            out,
            "\tproto {proto} spi {spi}({}) reqid {reqid}({reqid:#010x}) mode {mode}\n\
             \treplay-window {window} seq 0x{seq:08} flag {flags} (0x{:08b})",
            spi.0, spec.flags.0
        );
    } else {
        let _ = write!(
            out,
            "\tproto {proto} spi {} reqid {} mode {mode}\n\treplay-window {window} ",
            spec.spi, spec.reqid
        );
        if !flags.is_empty() {
            let _ = write!(out, "flag {flags}");
        }
    }
    out.push('\n');
}

fn marks_line(out: &mut String, marks: [(Mark, &str); 2]) {
    let [(own, _), (output, _)] = marks;
    let (own, output) = (!own.is_unset(), !output.is_unset());
    if !own && !output {
        return;
    }
    out.push('\t');
    if own {
        let _ = write!(out, "mark {} ", mark(marks[0].0));
    }
    if output {
        let _ = write!(out, "output-mark {}", mark(marks[1].0));
    }
    out.push('\n');
}

fn algorithms(out: &mut String, info: &StateInfo, style: Style) {
    let algs = &info.spec.algs;
    if let Some(auth) = &algs.auth {
        let (name, bits) = (esp::auth_name(auth), esp::auth_bits(auth));
        let _ = writeln!(out, "\tauth-trunc {name} {} {bits}", key(&auth.key, style));
    }
    if let Some(aead) = &algs.aead {
        let _ = writeln!(out, "\taead {} {} {}", aead.name, key(&aead.key, style), aead.icv_bits);
    }
    if let Some(enc) = &algs.enc {
        let _ = writeln!(out, "\tenc {} {}", esp::enc_name(enc), key(&enc.key, style));
    }
}

fn key(key: &Key, style: Style) -> String {
    if style.nokeys {
        return "<<Keys hidden>>".to_owned();
    }
    let bytes = key.bytes();
    if bytes.is_empty() {
        return String::new();
    }
    let mut text = "0x".to_owned();
    for b in bytes {
        let _ = write!(text, "{b:02x}");
    }
    if style.stats {
        let _ = write!(text, " ({} bits)", bytes.len() * 8);
    }
    text
}

fn uses_bitmap(info: &StateInfo) -> bool {
    info.spec.flags.has(StateFlags::ESN) || info.spec.replay_window > 32
}

fn replay(out: &mut String, info: &StateInfo) {
    let r = &info.replay;
    if !uses_bitmap(info) {
        let bitmap = r.bitmap.first().copied().unwrap_or(0);
        let _ = writeln!(
            out,
            "\tanti-replay context: seq {:#x}, oseq {:#x}, bitmap {bitmap:#010x}",
            r.seq, r.oseq
        );
        return;
    }
    let words = info.spec.replay_window.div_ceil(32) as usize;
    let _ = write!(
        out,
        "\tanti-replay esn context:\n\
         \t seq-hi {:#x}, seq {:#x}, oseq-hi {:#x}, oseq {:#x}\n\
         \t replay_window {}, bitmap-length {words}\n\t",
        r.seq_hi, r.seq, r.oseq_hi, r.oseq, info.spec.replay_window
    );
    // From the highest word down, eight a line.
    for (n, i) in (0..words).rev().enumerate() {
        if n > 0 && n % 8 == 0 {
            out.push_str("\n\t");
        }
        let word = r.bitmap.get(i).copied().unwrap_or(0);
        let _ = write!(out, "{}{word:08x} ", if n % 8 == 0 { " " } else { "" });
    }
    out.push('\n');
}

fn selector_line(out: &mut String, sel: &Selector, style: Style) {
    // A selector for both families is not shown.
    if sel.family.is_none() {
        return;
    }
    out.push_str("\tsel ");
    selector(out, sel);
    out.push_str(if style.stats { "uid 0\n" } else { "\n" });
}

/// `ip xfrm state count`.
pub fn count(counts: &Counts, stats: bool) -> String {
    let more = match stats {
        true => format!(" (buckets count {} Max {})", counts.state_buckets, counts.state_buckets_max),
        false => String::new(),
    };
    format!("\t SAD count {}{more}\n", counts.states)
}
