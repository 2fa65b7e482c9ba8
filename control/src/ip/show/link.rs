//! `ip link show` of our devices.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec};

/// How to print links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// How often `-s`.
    pub stats: u8,
    /// `-d`.
    pub details: bool,
    /// `-o`.
    pub oneline: bool,
}

/// What the host has of the TUN behind a device, and `-d` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDetail {
    /// `addrgenmode`; none without IPv6.
    pub addr_gen_mode: Option<String>,
}

/// What the kernel derives from how a VTI is configured.
struct Facts {
    flags: Vec<&'static str>,
    point_to_point: bool,
    qdisc: &'static str,
    operstate: &'static str,
    link_type: &'static str,
    mtu_bounds: (u32, u32),
}

impl Facts {
    fn of(link: &LinkInfo) -> Self {
        let spec = &link.spec;
        let point_to_point = !spec.remote.is_unspecified();
        let mut flags = Vec::new();
        if point_to_point {
            flags.push("POINTOPOINT");
        }
        flags.push("NOARP");
        if link.up {
            flags.extend(["UP", "LOWER_UP"]);
        }
        let (qdisc, operstate) = if link.up { ("noqueue", "UNKNOWN") } else { ("noop", "DOWN") };
        // kernel: net/ipv4/ip_vti.c vti_tunnel_init(), net/ipv6/ip6_vti.c vti6_dev_setup(),
        // net/xfrm/xfrm_interface_core.c xfrmi_dev_setup()
        let (link_type, mtu_bounds) = match spec.kind {
            LinkKind::Vti if spec.header.by_ioctl => ("ipip", (68, 65515)),
            LinkKind::Vti => ("ipip", (0, 0)),
            LinkKind::Vti6 => ("tunnel6", (68, 65495)),
            LinkKind::Xfrm => ("none", (68, 65535)),
        };
        Self { flags, point_to_point, qdisc, operstate, link_type, mtu_bounds }
    }
}

const OFFLOADS: [(&str, &str, u32); 6] = [
    ("numtxqueues", "num_tx_queues", 1),
    ("gso_max_size", "gso_max_size", 65536),
    ("gso_max_segs", "gso_max_segs", 65535),
    ("tso_max_size", "tso_max_size", 65536),
    ("tso_max_segs", "tso_max_segs", 65535),
    ("gro_max_size", "gro_max_size", 65536),
];

/// One device as text.
pub fn text(link: &LinkInfo, host: &HostDetail, style: Style) -> String {
    let (spec, facts) = (&link.spec, Facts::of(link));
    let mut lines = vec![format!(
        "{}: {}@{}: <{}> mtu {} qdisc {} state {} mode DEFAULT group default qlen {}",
        link.ifindex,
        spec.name,
        spec.dev.as_deref().unwrap_or("NONE"),
        facts.flags.join(","),
        link.mtu,
        facts.qdisc,
        facts.operstate,
        link.txqlen
    )];
    let mut second = format!("    link/{} ", facts.link_type);
    if spec.kind != LinkKind::Xfrm {
        let word = if facts.point_to_point { "peer" } else { "brd" };
        let _ = write!(second, "{} {word} {}", spec.local, spec.remote);
    }
    if style.details {
        let (min, max) = facts.mtu_bounds;
        let _ = write!(second, " promiscuity 0  allmulti 0 minmtu {min} maxmtu {max} ");
    }
    lines.push(second);
    if style.details {
        lines.push(detail(spec, host));
    }
    if style.stats > 0 {
        lines.extend(stats(link, style.stats > 1));
    }
    lines.join(if style.oneline { "\\" } else { "\n" }) + "\n"
}

/// One device as `-br` shows it.
pub fn brief(link: &LinkInfo) -> String {
    let (spec, facts) = (&link.spec, Facts::of(link));
    let name = format!("{}@{}", spec.name, spec.dev.as_deref().unwrap_or("NONE"));
    let address = if spec.kind == LinkKind::Xfrm { String::new() } else { format!("{} ", spec.local) };
    format!("{name:<16} {:<14} {address}<{}> \n", facts.operstate, facts.flags.join(","))
}

/// The same as an element of iproute2's JSON array.
pub fn brief_value(link: &LinkInfo) -> Value {
    let (spec, facts) = (&link.spec, Facts::of(link));
    let mut value = json!({ "link": spec.dev, "ifname": spec.name, "operstate": facts.operstate });
    if spec.kind != LinkKind::Xfrm {
        value["address"] = json!(spec.local);
    }
    value["flags"] = json!(facts.flags);
    value
}

fn detail(spec: &LinkSpec, host: &HostDetail) -> String {
    let mut out = match spec.kind {
        LinkKind::Xfrm => format!("    xfrm if_id {:#x} ", spec.if_id),
        LinkKind::Vti | LinkKind::Vti6 => ends(spec),
    };
    if let Some(mode) = &host.addr_gen_mode {
        let _ = write!(out, "addrgenmode {mode} ");
    }
    for (word, _, value) in OFFLOADS {
        let _ = write!(out, "{word} {value} ");
    }
    out
}

/// Endpoints and keys of a VTI.
fn ends(spec: &LinkSpec) -> String {
    let name = |a: IpAddr| match a.is_unspecified() && spec.kind == LinkKind::Vti {
        true => "any".to_owned(),
        false => a.to_string(),
    };
    let mut out =
        format!("    {} remote {} local {} ", spec.kind.name(), name(spec.remote), name(spec.local));
    if let Some(dev) = &spec.dev {
        let _ = write!(out, "dev {dev} ");
    }
    for (word, key) in [("ikey", spec.ikey), ("okey", spec.okey)] {
        if key != 0 {
            let _ = write!(out, "{word} {} ", Ipv4Addr::from(key));
        }
    }
    if spec.fwmark != 0 {
        let _ = write!(out, "fwmark {:#x} ", spec.fwmark);
    }
    out
}

/// Columns as wide as the widest value asks for, and at least as iproute2's headings.
fn stats(link: &LinkInfo, errors: bool) -> Vec<String> {
    let s = &link.stats;
    let rx = [s.rx_bytes, s.rx_packets, s.rx_errors, s.rx_dropped, 0, 0];
    let tx = [s.tx_bytes, s.tx_packets, s.tx_errors, s.tx_dropped, s.tx_carrier_errors, s.collisions];
    let rx_errors = [0, 0, s.rx_frame_errors, 0, 0];
    let tx_errors = [s.tx_aborted_errors, 0, 0, 0, 0];
    let mut width = [10, 7, 6, 7, 7, 7];
    let mut widen = |values: &[u64], from: usize| {
        for (column, value) in width[from..].iter_mut().zip(values) {
            *column = (*column).max(value.to_string().len());
        }
    };
    widen(&rx, 0);
    widen(&tx, 0);
    if errors {
        widen(&rx_errors, 1);
        widen(&tx_errors, 1);
    }
    let row = |values: &[u64], skip: usize| {
        let mut out = String::from("    ");
        if skip > 0 {
            out.push_str(&" ".repeat(width[0] + 1));
        }
        for (value, w) in values.iter().zip(&width[skip..]) {
            let _ = write!(out, "{value:>w$} ");
        }
        out
    };
    let head = |title: &str, names: [&str; 6]| {
        let mut out = format!("    {title}:");
        for (n, (name, w)) in names.iter().zip(&width).enumerate() {
            let w = if n == 0 { w - title.len() - 1 } else { *w };
            let _ = write!(out, "{name:>w$} ");
        }
        out + "          "
    };
    let error_head = |title: &str, names: [&str; 5]| {
        let mut out = format!("    {title}:");
        for (n, (name, w)) in names.iter().zip(&width[1..]).enumerate() {
            let w = if n == 0 { w + width[0] - title.len() } else { *w };
            let _ = write!(out, "{name:>w$}{}", if n < 4 { " " } else { "" });
        }
        out
    };
    let mut lines =
        vec![head("RX", ["bytes", "packets", "errors", "dropped", "missed", "mcast"]), row(&rx, 0)];
    if errors {
        lines.push(error_head("RX errors", ["length", "crc", "frame", "fifo", "overrun"]));
        lines.push(row(&rx_errors, 1));
    }
    lines.push(head("TX", ["bytes", "packets", "errors", "dropped", "carrier", "collsns"]));
    lines.push(row(&tx, 0));
    if errors {
        lines.push(error_head("TX errors", ["aborted", "fifo", "window", "heartbt", "transns"]));
        lines.push(row(&tx_errors, 1));
    }
    lines
}

/// One device as an element of iproute2's JSON array, keys in its order.
pub fn value(link: &LinkInfo, host: &HostDetail, style: Style) -> Value {
    let (spec, facts) = (&link.spec, Facts::of(link));
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("ifindex", json!(link.ifindex));
    put("link", json!(spec.dev));
    put("ifname", json!(spec.name));
    put("flags", json!(facts.flags));
    put("mtu", json!(link.mtu));
    put("qdisc", json!(facts.qdisc));
    put("operstate", json!(facts.operstate));
    put("linkmode", json!("DEFAULT"));
    put("group", json!("default"));
    put("txqlen", json!(link.txqlen));
    put("link_type", json!(facts.link_type));
    if spec.kind != LinkKind::Xfrm {
        put("address", json!(spec.local));
        if facts.point_to_point {
            put("link_pointtopoint", json!(true));
        }
        put("broadcast", json!(spec.remote));
    }
    if style.details {
        put("promiscuity", json!(0));
        put("allmulti", json!(0));
        put("min_mtu", json!(facts.mtu_bounds.0));
        put("max_mtu", json!(facts.mtu_bounds.1));
        put("linkinfo", json!({ "info_kind": spec.kind.name(), "info_data": info_data(spec) }));
        if let Some(mode) = &host.addr_gen_mode {
            put("inet6_addr_gen_mode", json!(mode));
        }
        OFFLOADS.iter().for_each(|(_, key, value)| put(key, json!(value)));
    }
    if style.stats > 0 {
        put("stats64", stats_value(link, style.stats > 1));
    }
    Value::Object(map)
}

fn info_data(spec: &LinkSpec) -> Value {
    if spec.kind == LinkKind::Xfrm {
        return json!({ "if_id": format!("{:#x}", spec.if_id) });
    }
    let name = |a: IpAddr| match a.is_unspecified() && spec.kind == LinkKind::Vti {
        true => json!("any"),
        false => json!(a),
    };
    let mut map = Map::new();
    map.insert("remote".into(), name(spec.remote));
    map.insert("local".into(), name(spec.local));
    if let Some(dev) = &spec.dev {
        map.insert("link".into(), json!(dev));
    }
    for (word, key) in [("ikey", spec.ikey), ("okey", spec.okey)] {
        if key != 0 {
            map.insert(word.into(), json!(Ipv4Addr::from(key)));
        }
    }
    if spec.fwmark != 0 {
        map.insert("fwmark".into(), json!(format!("{:#x}", spec.fwmark)));
    }
    Value::Object(map)
}

fn stats_value(link: &LinkInfo, errors: bool) -> Value {
    let s = &link.stats;
    let mut rx = json!({ "bytes": s.rx_bytes, "packets": s.rx_packets, "errors": s.rx_errors,
        "dropped": s.rx_dropped, "over_errors": 0, "multicast": 0 });
    let mut tx = json!({ "bytes": s.tx_bytes, "packets": s.tx_packets, "errors": s.tx_errors,
        "dropped": s.tx_dropped, "carrier_errors": s.tx_carrier_errors, "collisions": s.collisions });
    if errors {
        for key in ["length_errors", "crc_errors", "frame_errors", "fifo_errors", "missed_errors"] {
            rx[key] = json!(0);
        }
        rx["frame_errors"] = json!(s.rx_frame_errors);
        tx["aborted_errors"] = json!(s.tx_aborted_errors);
        for key in ["fifo_errors", "window_errors", "heartbeat_errors", "carrier_changes"] {
            tx[key] = json!(0);
        }
    }
    json!({ "rx": rx, "tx": tx })
}
