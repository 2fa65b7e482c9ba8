//! The counters of a device and of XFRM, by the kernel's names: a kernel VTI's from the kernel, uvti's from uvti.

use crate::client::{Client, ClientError};
use crate::protocol::{Request, Response, Totals};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use uvti_core::reason::LinkStats;
use uvti_dataplane::host::netlink::Netlink;

/// What was counted; what is 0 is not there.
pub(crate) type Counters = BTreeMap<String, u64>;

/// The name of a field of `struct rtnl_link_stats64` as `ip -s link` and uvti's reasons call it, where that is
/// shorter: `carrier`, `aborted`. Others keep the kernel's.
pub(crate) fn short_name(field: &str) -> &str {
    match field {
        "tx_carrier_errors" => "carrier",
        "tx_aborted_errors" => "aborted",
        _ => field,
    }
}

/// The field of a name that iproute2 or the kernel has for it; `None` for a name that is no link field.
///
/// Words of `ip -s link` without a direction are those of its TX lines, `rx_…` and `tx_…` name one.
pub(crate) fn field(name: &str) -> Option<&'static str> {
    Some(match name {
        "rx_packets" => "rx_packets",
        "rx_bytes" => "rx_bytes",
        "rx_errors" => "rx_errors",
        "rx_dropped" => "rx_dropped",
        "tx_packets" | "packets" => "tx_packets",
        "tx_bytes" | "bytes" => "tx_bytes",
        "tx_errors" | "errors" => "tx_errors",
        "tx_dropped" | "dropped" => "tx_dropped",
        "carrier" | "carrier_errors" | "tx_carrier_errors" => "carrier",
        "aborted" | "aborted_errors" | "tx_aborted_errors" => "aborted",
        "collisions" | "collsns" => "collisions",
        "multicast" | "mcast" => "multicast",
        "missed" | "rx_missed_errors" => "rx_missed_errors",
        "rx_length_errors" => "rx_length_errors",
        "rx_over_errors" => "rx_over_errors",
        "rx_crc_errors" => "rx_crc_errors",
        "rx_frame_errors" => "rx_frame_errors",
        "rx_fifo_errors" => "rx_fifo_errors",
        "tx_fifo_errors" => "tx_fifo_errors",
        "tx_heartbeat_errors" => "tx_heartbeat_errors",
        "tx_window_errors" => "tx_window_errors",
        "rx_nohandler" => "rx_nohandler",
        "rx_otherhost_dropped" => "rx_otherhost_dropped",
        _ => return None,
    })
}

/// What the kernel counted on a link of the calling thread's namespace.
pub(crate) fn kernel_link(netlink: &mut Netlink, device: &str) -> Result<Counters> {
    let index = netlink.link_by_name(device)?.index;
    let stats = netlink.link_stats(index)?;
    Ok(counters(stats.into_iter().map(|(name, n)| (short_name(name), n))))
}

/// The kernel's XFRM MIB in the calling thread's namespace; empty where the kernel has none.
pub(crate) fn kernel_xfrm() -> Result<Counters> {
    match std::fs::read_to_string("/proc/thread-self/net/xfrm_stat") {
        Ok(text) => xfrm_stat(&text).with_context(|| format!("not an xfrm_stat: {text}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Counters::new()),
        Err(error) => Err(error).context("/proc/net/xfrm_stat"),
    }
}

/// All that uvti counted.
pub(crate) fn totals(client: &mut Client) -> Result<Totals, ClientError> {
    match client.ask(&Request::Stat)? {
        Response::Stat(totals) => Ok(totals),
        _ => Err(ClientError::Unexpected),
    }
}

/// The link counters of one device of uvti's.
pub(crate) fn uvti_link(stats: &LinkStats) -> Counters {
    // Without `..`: a field that is added must be shown.
    let LinkStats {
        rx_packets,
        rx_bytes,
        rx_errors,
        rx_dropped,
        rx_frame_errors,
        tx_packets,
        tx_bytes,
        tx_errors,
        tx_dropped,
        collisions,
        tx_carrier_errors,
        tx_aborted_errors,
    } = *stats;
    counters([
        ("rx_packets", rx_packets),
        ("rx_bytes", rx_bytes),
        ("rx_errors", rx_errors),
        ("rx_dropped", rx_dropped),
        ("rx_frame_errors", rx_frame_errors),
        ("tx_packets", tx_packets),
        ("tx_bytes", tx_bytes),
        ("tx_errors", tx_errors),
        ("tx_dropped", tx_dropped),
        ("collisions", collisions),
        ("carrier", tx_carrier_errors),
        ("aborted", tx_aborted_errors),
    ])
}

/// The XFRM MIB of uvti's.
pub(crate) fn uvti_xfrm(totals: &Totals) -> Counters {
    counters(totals.xfrm.iter().map(|(mib, n)| (mib.name(), *n)))
}

fn counters<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Counters {
    pairs.into_iter().filter(|(_, n)| *n != 0).map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Reads `/proc/net/xfrm_stat`: a name and a number a line.
fn xfrm_stat(text: &str) -> Option<Counters> {
    let mut read = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        read.push((words.next()?, words.next()?.parse().ok()?));
    }
    Some(counters(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xfrm_stat_is_read_by_name() {
        let read = xfrm_stat("XfrmInError   \t0\nXfrmInNoStates  \t5\n").unwrap();
        assert_eq!(read, Counters::from([("XfrmInNoStates".to_owned(), 5)]));
        assert_eq!(xfrm_stat("garbage"), None);
    }

    #[test]
    fn every_counter_of_a_kernel_link_has_a_name_that_is_taken() {
        for name in ["tx_carrier_errors", "tx_aborted_errors", "collisions", "rx_errors", "tx_window_errors"]
        {
            assert_eq!(field(name), Some(field(short_name(name)).unwrap()), "{name}");
        }
        assert_eq!(field("collsns"), Some("collisions"));
        assert_eq!(field("XfrmOutNoStates"), None);
    }
}
