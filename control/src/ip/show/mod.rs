//! What iproute2 prints, to the byte.

pub mod link;
pub mod notice;
pub mod policy;
pub mod state;
pub mod tunnel;

use std::fmt::Write;
use uvti_core::xfrm::{Lifetime, Limits, Mark, Selector};

/// How to print xfrm objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// `-s`.
    pub stats: bool,
    /// `-o`.
    pub oneline: bool,
    /// `nokeys`.
    pub nokeys: bool,
}

impl Style {
    /// Folds one object into a line if asked to.
    fn finish(self, text: String) -> String {
        if self.oneline { text.replace('\n', "\\") + "\n" } else { text }
    }
}

/// `src P dst P …`, with the blank at its end that iproute2 leaves.
pub(crate) fn selector(out: &mut String, sel: &Selector) {
    let _ = write!(out, "src {} dst {} ", sel.src, sel.dst);
    if sel.proto != 0 {
        let _ = write!(out, "proto {} ", super::parse::protocol_name(sel.proto));
    }
    match sel.proto {
        GRE if sel.sport.mask != 0 || sel.dport.mask != 0 => {
            let key = u32::from(sel.sport.value) << 16 | u32::from(sel.dport.value);
            let _ = write!(out, "key {key} ");
        }
        GRE => {}
        ICMP | ICMPV6 | MOBILITY => halves(out, sel, "type", "code"),
        _ => halves(out, sel, "sport", "dport"),
    }
    if let Some(dev) = &sel.dev {
        let _ = write!(out, "dev {dev} ");
    }
}

const ICMP: u8 = 1;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const MOBILITY: u8 = 135;

fn halves(out: &mut String, sel: &Selector, first: &str, second: &str) {
    if sel.sport.mask != 0 {
        let _ = write!(out, "{first} {} ", sel.sport.value);
    }
    if sel.dport.mask != 0 {
        let _ = write!(out, "{second} {} ", sel.dport.value);
    }
}

/// Names of the bits set, with a blank between; bits without a name as one number in hexadecimal.
pub(crate) fn flag_names<T: Into<u64> + Copy>(flags: T, table: &[(&str, T)]) -> String {
    let mut rest: u64 = flags.into();
    let mut words = Vec::new();
    for (name, bit) in table {
        let bit: u64 = (*bit).into();
        if rest & bit != 0 {
            rest &= !bit;
            words.push((*name).to_owned());
        }
    }
    if rest != 0 {
        words.push(format!("{rest:x}"));
    }
    words.join(" ")
}

pub(crate) fn mark(mark: Mark) -> String {
    // C's %#x writes no 0x in front of 0.
    let hex = |n: u32| if n == 0 { "0".to_owned() } else { format!("{n:#x}") };
    format!("{}/{}", hex(mark.value), hex(mark.mask))
}

/// `lifetime config:` and `lifetime current:`.
fn lifetimes(out: &mut String, limits: &Limits, current: &Lifetime) {
    let limit = |n: u64| if n == u64::MAX { "(INF)".to_owned() } else { n.to_string() };
    let _ = write!(
        out,
        "\tlifetime config:\n\
         \t  limit: soft {}(bytes), hard {}(bytes)\n\
         \t  limit: soft {}(packets), hard {}(packets)\n\
         \t  expire add: soft {}(sec), hard {}(sec)\n\
         \t  expire use: soft {}(sec), hard {}(sec)\n\
         \tlifetime current:\n\
         \t  {}(bytes), {}(packets)\n\
         \t  add {} use {}\n",
        limit(limits.soft_bytes),
        limit(limits.hard_bytes),
        limit(limits.soft_packets),
        limit(limits.hard_packets),
        limits.soft_add_seconds,
        limits.hard_add_seconds,
        limits.soft_use_seconds,
        limits.hard_use_seconds,
        current.bytes,
        current.packets,
        time(current.add_time),
        time(current.use_time),
    );
}

/// Local time; `-` when it has not come.
fn time(seconds: u64) -> String {
    if seconds == 0 {
        return "-".to_owned();
    }
    let stamp = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    match stamp {
        Some(stamp) => {
            stamp.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        None => seconds.to_string(),
    }
}
