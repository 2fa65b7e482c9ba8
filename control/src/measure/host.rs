//! What the host lost, in the calling thread's namespace.

use anyhow::{Context, Result};
use uvti_core::xfrm::Family;
use uvti_dataplane::host::netlink::Netlink;

/// Packets dropped at all devices but these.
pub(super) fn link_drops(but: &[&str]) -> Result<u64> {
    let links = Netlink::open()?.links()?;
    let others = links.iter().filter(|link| !but.contains(&link.name.as_str()));
    Ok(others.map(|link| link.rx_dropped + link.tx_dropped).sum())
}

/// Packets that found a UDP socket full.
pub(super) fn udp_overflows(family: Family) -> Result<u64> {
    let (file, read): (_, fn(&str) -> Option<u64>) = match family {
        Family::V4 => ("/proc/thread-self/net/snmp", udp4),
        Family::V6 => ("/proc/thread-self/net/snmp6", udp6),
    };
    let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    read(&text).with_context(|| format!("{file} has no count of full sockets"))
}

/// Two lines: the names of the fields, and their values.
fn udp4(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut fields = names.split_whitespace().zip(values.split_whitespace());
    fields.find(|(name, _)| *name == "RcvbufErrors")?.1.parse().ok()
}

/// A name and its value a line.
fn udp6(snmp6: &str) -> Option<u64> {
    let mut fields = snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    fields.find(|(name, _)| *name == "Udp6RcvbufErrors")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflows_are_found_by_name() {
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams RcvbufErrors SndbufErrors\nUdp: 5 7 9\nUdpLite: RcvbufErrors\nUdpLite: 3\n";
        assert_eq!(udp4(snmp), Some(7));
        assert_eq!(udp4("Udp: InDatagrams\nUdp: 5\n"), None);
        assert_eq!(udp6("Udp6InErrors\t1\nUdp6RcvbufErrors            \t8\n"), Some(8));
        for family in [Family::V4, Family::V6] {
            udp_overflows(family).unwrap();
        }
    }
}
