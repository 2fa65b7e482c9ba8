//! `uvti run --metrics ADDR`: counters in Prometheus' text format, by HTTP.
//!
//! Names are node_exporter's where it has them (`node_network_…`, `node_xfrm_…`), so that dashboards for kernel VTIs show
//! uvti's. Labels are devices and reasons, both bounded; nothing of a packet or an SA is one.

use crate::protocol::{DeviceTotals, Totals};
use crate::server::Dataplane;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uvti_core::reason::{LinkStats, Mib, Reason};

/// How long a client may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest request, bytes.
const REQUEST: usize = 8 << 10;

/// The endpoint. Clients are served one after the other: there is never more than one thread or request.
pub(crate) struct Exporter(TcpListener);

impl Exporter {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).map(Self)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `stop` is set and [`wake`](Self::wake) is called.
    pub(crate) fn run(&self, dataplane: &Arc<dyn Dataplane>, stop: &AtomicBool) {
        for stream in self.0.incoming() {
            if stop.load(Ordering::Acquire) {
                return;
            }
            let answered = match stream {
                Ok(stream) => answer(stream, &**dataplane),
                Err(error) => {
                    // Out of descriptors or the like: it does not get better by asking at once.
                    std::thread::sleep(Duration::from_millis(50));
                    Err(error)
                }
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "metrics");
            }
        }
    }

    /// Wakes [`run`](Self::run), so that it sees its `stop` flag.
    pub(crate) fn wake(&self) {
        let Ok(mut address) = self.address() else { return };
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            });
        }
        let _ = TcpStream::connect_timeout(&address, PATIENCE);
    }
}

fn answer(mut stream: TcpStream, dataplane: &dyn Dataplane) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = request(&mut stream)?;
    let (status, body) = match request.split(|b| *b == b' ').take(2).collect::<Vec<_>>()[..] {
        [b"GET", b"/metrics" | b"/"] => ("200 OK", text(&dataplane.totals())),
        [b"GET", _] => ("404 Not Found", "look at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// Reads a request up to its empty line: in a bounded time, however slowly it drips.
fn request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (deadline, mut request) = (Instant::now() + PATIENCE, Vec::new());
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() >= REQUEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(&piece[..n]),
        }
    }
    Ok(request)
}

/// A link counter: node_exporter's name, and where it is.
type LinkMetric = (&'static str, fn(&LinkStats) -> u64);

/// node_exporter's netdev collector, in the names that it has unless told otherwise.
const LINK: [LinkMetric; 11] = [
    ("receive_packets", |s| s.rx_packets),
    ("receive_bytes", |s| s.rx_bytes),
    ("receive_errs", |s| s.rx_errors),
    ("receive_drop", |s| s.rx_dropped),
    ("receive_frame", |s| s.rx_frame_errors),
    ("transmit_packets", |s| s.tx_packets),
    ("transmit_bytes", |s| s.tx_bytes),
    ("transmit_errs", |s| s.tx_errors),
    ("transmit_drop", |s| s.tx_dropped),
    ("transmit_colls", |s| s.collisions),
    // /proc/net/dev adds what was aborted to the carrier errors. kernel: net/core/net-procfs.c
    ("transmit_carrier", |s| s.tx_carrier_errors + s.tx_aborted_errors),
];

/// Everything, in Prometheus' text format 0.0.4.
fn text(totals: &Totals) -> String {
    let mut out = String::new();
    let help = "Packets dropped, by exact reason; device \"-\" is for those that met none.";
    family(&mut out, "uvti_drop_packets_total", help);
    for device in &totals.devices {
        for (name, n) in &device.drops {
            let way = Reason::from_name(name).map_or("", |reason| reason.row().way.name());
            let device = escaped(&device.name);
            _ = writeln!(
                out,
                "uvti_drop_packets_total{{reason=\"{name}\",direction=\"{way}\",device=\"{device}\"}} {n}"
            );
        }
    }
    let help = "Packets that a policy without a mark encrypted before they reached the device, which does not count them.";
    family(&mut out, "uvti_unmarked_packets_total", help);
    for device in totals.devices.iter().filter(|d| d.name != "-") {
        let (name, n) = (escaped(&device.name), device.tx_unmarked);
        _ = writeln!(out, "uvti_unmarked_packets_total{{device=\"{name}\"}} {n}");
    }
    for (name, of) in LINK {
        let name = format!("node_network_{name}_total");
        family(&mut out, &name, "As a kernel VTI counts it.");
        for DeviceTotals { name: device, stats, .. } in totals.devices.iter().filter(|d| d.name != "-") {
            _ = writeln!(out, "{name}{{device=\"{}\"}} {}", escaped(device), of(stats));
        }
    }
    for (mib, n) in &totals.xfrm {
        let name = xfrm_name(*mib);
        family(&mut out, &name, &format!("{} of /proc/net/xfrm_stat, as the kernel counts it.", mib.name()));
        _ = writeln!(out, "{name} {n}");
    }
    out
}

/// A name of a device may have quotes and backslashes.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"")
}

fn family(out: &mut String, name: &str, help: &str) {
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
}

/// node_exporter's name: `XfrmOutNoStates` is `node_xfrm_out_no_states_packets_total`.
fn xfrm_name(mib: Mib) -> String {
    let mut name = "node_xfrm".to_owned();
    for c in mib.name().trim_start_matches("Xfrm").chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name + "_packets_total"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_node_exporters() {
        let names: Vec<String> =
            [Mib::OutNoStates, Mib::InTmplMismatch, Mib::OutBundleGenError, Mib::AcquireError]
                .map(xfrm_name)
                .to_vec();
        assert_eq!(
            names,
            [
                "node_xfrm_out_no_states_packets_total",
                "node_xfrm_in_tmpl_mismatch_packets_total",
                "node_xfrm_out_bundle_gen_error_packets_total",
                "node_xfrm_acquire_error_packets_total",
            ]
        );
    }

    /// Words of a text that begin like this.
    fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(move |c| !of_a_name(c)).filter(move |word| word.starts_with(start))
    }

    #[test]
    fn what_dashboard_and_alerts_name_is_there() {
        let files = [
            include_str!("../../docs/monitoring/dashboard.json"),
            include_str!("../../docs/monitoring/alerts.yml"),
        ];
        let totals = Totals { xfrm: Mib::ALL.iter().map(|mib| (*mib, 0)).collect(), ..Totals::default() };
        let exported = text(&totals);
        for file in files {
            // A pattern of names is not one.
            let whole = |name: &&str| name.ends_with("_total");
            let names: Vec<_> = words(file, "uvti_").chain(words(file, "node_")).filter(whole).collect();
            assert!(names.len() > 2, "{names:?}");
            for name in names {
                assert!(exported.contains(&format!("# TYPE {name} counter")), "{name}");
            }
            for name in words(file, "tx_").chain(words(file, "rx_")).filter(|name| !name.ends_with('_')) {
                assert!(Reason::from_name(name).is_some(), "{name}");
            }
        }
        let dashboard: serde_json::Value = serde_json::from_str(files[0]).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()) && !panels.is_empty());
    }
}
