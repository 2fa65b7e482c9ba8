//! `uvti mtu`: where the bytes of a path's MTU go, and what is left for inner packets.

use crate::client::{Client, ClientError};
use crate::protocol::{Request, Response};
use crate::views::{lines, number, pretty, table};
use comfy_table::Cell;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use uvti_core::vti::ledger::{Ledger, Source};

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of this device alone.
    #[arg(value_name = "DEV")]
    device: Option<String>,
    /// As JSON.
    #[arg(short, long)]
    json: bool,
}

/// The ledgers; not fine if the device is none of ours.
pub(crate) fn run(client: &mut Client, args: &Args) -> Result<(String, bool), ClientError> {
    let Response::Mtu(mut ledgers) = client.ask(&Request::Mtu)? else { return Err(ClientError::Unexpected) };
    if let Some(name) = &args.device {
        if !client.links()?.iter().any(|link| link.spec.name == *name) {
            return Ok((format!("uvti has no device {name}\n"), false));
        }
        ledgers.retain(|ledger| ledger.device == *name);
    }
    Ok((if args.json { pretty(&as_json(&ledgers)) } else { text(&ledgers) }, true))
}

/// The ledgers with the MTU to give each device, where its own is too large.
fn as_json(ledgers: &[Ledger]) -> Value {
    let with_advice = |ledger: &Ledger| {
        let mut value = json!(ledger);
        value["advice"] = json!(ledger.advice());
        value
    };
    ledgers.iter().map(with_advice).collect()
}

const HEADINGS: [&str; 15] = [
    "DEVICE", "SPI", "PATH MTU", "FROM", "OUTER", "UDP", "ESP", "IV", "PAD", "TRAILER", "ICV", "UNUSED",
    "LARGEST", "MSS V4", "MSS V6",
];

fn text(ledgers: &[Ledger]) -> String {
    if ledgers.is_empty() {
        return "no SA could carry a packet: nothing to add up\n".to_owned();
    }
    let mut table = table(&HEADINGS);
    for l in ledgers {
        let path = |part: fn(&uvti_core::vti::ledger::Path) -> u32| {
            number(l.path.as_ref().map_or_else(|| "-".to_owned(), |path| part(path).to_string()))
        };
        let mut cells = vec![Cell::new(&l.device), Cell::new(l.spi), path(|p| p.mtu), Cell::new(from(l))];
        cells.extend([l.outer, l.udp, l.esp, l.iv].map(number));
        cells.push(number(format!("0-{}", l.pad_worst)));
        cells.extend([l.trailer, l.icv].map(number));
        cells.extend([path(|p| p.unused), path(|p| p.largest_inner), path(|p| p.mss_v4), path(|p| p.mss_v6)]);
        table.add_row(cells);
    }
    lines(&table) + &advice(ledgers)
}

fn from(ledger: &Ledger) -> String {
    match ledger.path.map(|path| path.source) {
        None => "no route".to_owned(),
        Some(Source::Device) => "device".to_owned(),
        Some(Source::Route) => "route".to_owned(),
        Some(Source::Learned { expires_in }) => format!("learned, {expires_in} s left"),
    }
}

/// For each device that lets packets in which are too big, what that does and how to end it.
fn advice(ledgers: &[Ledger]) -> String {
    let mut least: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for ledger in ledgers {
        if let Some(largest) = ledger.advice() {
            let entry = least.entry(&ledger.device).or_insert((largest, ledger.device_mtu));
            entry.0 = entry.0.min(largest);
        }
    }
    let mut text = String::new();
    for (device, (largest, mtu)) in least {
        _ = write!(
            text,
            "\n{device}: its MTU is {mtu}. Of what the host hands over, packets of {} to {mtu} bytes with DF are dropped \
             (tx_too_big), and without DF fragmented outside.\n  uvti ip link set dev {device} mtu {largest}\n",
            largest + 1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use uvti_core::vti::ledger::Path;
    use uvti_core::xfrm::Spi;

    fn ledger(device_mtu: u32, source: Source) -> Ledger {
        Ledger {
            device: "vti0".into(),
            device_mtu,
            src: "198.51.100.1".parse().unwrap(),
            dst: "198.51.100.2".parse().unwrap(),
            spi: Spi(0x1000),
            outer: 20,
            udp: 0,
            esp: 8,
            iv: 8,
            pad_worst: 3,
            trailer: 2,
            icv: 16,
            path: Some(Path {
                mtu: 1500,
                source,
                largest_inner: 1446,
                unused: 0,
                mss_v4: 1406,
                mss_v6: 1386,
            }),
        }
    }

    #[test]
    fn a_ledger_with_advice() {
        let expected = "\
\x20DEVICE  SPI         PATH MTU  FROM    OUTER  UDP  ESP  IV  PAD  TRAILER  ICV  UNUSED  LARGEST  MSS V4  MSS V6
 vti0    0x00001000      1500  device     20    0    8   8  0-3        2   16       0     1446    1406    1386

vti0: its MTU is 1480. Of what the host hands over, packets of 1447 to 1480 bytes with DF are dropped (tx_too_big), and without DF fragmented outside.
  uvti ip link set dev vti0 mtu 1446
";
        assert_eq!(text(&[ledger(1480, Source::Device)]), expected);
        assert_eq!(as_json(&[ledger(1480, Source::Device)])[0]["advice"], 1446);
    }

    #[test]
    fn a_device_that_fits_needs_none() {
        let shown = text(&[ledger(1446, Source::Learned { expires_in: 599 })]);
        assert!(shown.contains("learned, 599 s left") && !shown.contains("uvti ip"), "{shown}");
    }

    #[test]
    fn without_a_route_there_is_nothing_to_say() {
        let shown = text(&[Ledger { path: None, ..ledger(1480, Source::Device) }]);
        assert!(shown.contains("no route") && !shown.contains("uvti ip"), "{shown}");
    }
}
