//! `ip tunnel show`.

use crate::ip::dsfield;
use std::fmt::Write;
use uvti_core::device::{LinkInfo, LinkKind, TunnelHeader};

/// One tunnel; `stats` with its counters.
pub fn tunnel(link: &LinkInfo, stats: bool) -> String {
    let spec = &link.spec;
    let mut out = String::new();
    let dev = spec.dev.as_ref().map(|d| format!(" dev {d}")).unwrap_or_default();
    match spec.kind {
        LinkKind::Vti => {
            let name = |a: std::net::IpAddr| if a.is_unspecified() { "any".into() } else { a.to_string() };
            let (remote, local) = (name(spec.remote), name(spec.local));
            let _ = write!(out, "{}: ip/ip remote {remote} local {local}{dev}", spec.name);
            header(&mut out, &spec.header);
        }
        // `ip tunnel` does not know it.
        LinkKind::Xfrm => return out,
        LinkKind::Vti6 => {
            let _ = write!(
                out,
                "{}: ipv6/ipv6 remote {} local {}{dev} encaplimit 0 hoplimit inherit tclass 0x00 \
                 flowlabel 0x00000 (flowinfo 0x00000000)",
                spec.name, spec.remote, spec.local
            );
        }
    }
    let keyed = spec.kind == LinkKind::Vti || spec.ikey != 0;
    match spec.ikey == spec.okey {
        true if keyed => drop(write!(out, " key {}", spec.ikey)),
        true => {}
        false => drop(write!(out, " ikey {} okey {}", spec.ikey, spec.okey)),
    }
    out.push('\n');
    if stats {
        let s = &link.stats;
        let _ = write!(
            out,
            "RX: Packets    Bytes        Errors CsumErrs OutOfSeq Mcasts\n\
             \x20   {:<10} {:<12} {:<6} {:<8} {:<8} {:<8}\n\
             TX: Packets    Bytes        Errors DeadLoop NoRoute  NoBufs\n\
             \x20   {:<10} {:<12} {:<6} {:<8} {:<8} {:<6}\n",
            s.rx_packets,
            s.rx_bytes,
            s.rx_errors,
            0,
            0,
            0,
            s.tx_packets,
            s.tx_bytes,
            s.tx_errors,
            s.collisions,
            s.tx_carrier_errors,
            s.tx_dropped,
        );
    }
    out
}

fn header(out: &mut String, header: &TunnelHeader) {
    let _ = match header.ttl {
        0 => write!(out, " ttl inherit"),
        ttl => write!(out, " ttl {ttl}"),
    };
    if header.tos != 0 {
        let _ = write!(out, " tos {}", dsfield::shown(header.tos));
    }
    if !header.df {
        out.push_str(" nopmtudisc");
    }
}
