//! Has packets dropped, and compares what uvti counted with what a kernel did.

use super::classes::{CLASSES, CLEAN, Class, Packets};
use super::packets::{Sealer, inner};
use super::progress::Progress;
use super::stage::{A, B, End, OUTER_A, OUTER_B, Stage};
use super::stop::Stop;
use crate::client::ClientError;
use crate::ip::batch;
use crate::protocol::{Request, Response};
use crate::service::Running;
use anyhow::{Context, Result, anyhow, bail};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use uvti_core::reason::LinkStats;

/// What a kernel counted: recorded from runs of Linux 6.12.
const GOLDEN: &str = include_str!("golden.json");
/// How many packets go into the tunnel.
const INTO: usize = 5;
/// How long they may take to be counted.
const LIMIT: Duration = Duration::from_secs(2);

/// Counters by the kernel's names; what is 0 is not there.
pub(super) type Counters = BTreeMap<String, u64>;

/// A kernel's counters for one class, for each packet that is dropped.
#[derive(Debug, Deserialize)]
pub(super) struct Golden {
    class: String,
    kernel: String,
    dropped: u64,
    link: Counters,
    xfrm: Counters,
}

/// What was counted: drops by reason, errors of the link, the XFRM MIB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    pub(super) reasons: Counters,
    pub(super) link: Counters,
    pub(super) xfrm: Counters,
}

/// One class of drops.
#[derive(Debug, Serialize)]
pub(super) struct Drop {
    pub(super) class: &'static str,
    pub(super) cause: &'static str,
    pub(super) reason: &'static str,
    pub(super) meaning: &'static str,
    /// The kernel's version.
    pub(super) kernel_version: String,
    /// What the kernel counted; as to the reason, what it stands for.
    pub(super) kernel: Counted,
    pub(super) uvti: Counted,
    pub(super) same: bool,
}

/// Every class, one after the other, at A.
pub(super) fn all(stage: &mut Stage, stop: &Stop, progress: &Progress) -> Result<Vec<Drop>> {
    let golden = golden()?;
    let mut sender = Sender::open(stage)?;
    let mut drops = Vec::new();
    for (i, class) in CLASSES.iter().enumerate() {
        progress.begin(&format!("dropping: {}", class.cause));
        progress.count(i as u64, CLASSES.len() as u64);
        let expected = golden.iter().find(|g| g.class == class.name);
        let expected = expected.with_context(|| format!("{} is not in the golden file", class.name))?;
        drops.push(one(&mut stage.a, class, expected, &mut sender, stop).with_context(|| class.name)?);
    }
    Ok(drops)
}

fn golden() -> Result<Vec<Golden>> {
    serde_json::from_str(GOLDEN).context("the golden file")
}

fn one(end: &mut End, class: &Class, golden: &Golden, sender: &mut Sender, stop: &Stop) -> Result<Drop> {
    configure(end, class)?;
    let before = Snapshot::take(end)?;
    let sent = sender.send(&class.packets)?;
    let all_counted = || -> Result<Option<()>> {
        let done = packets(&end.link()?.stats) - packets(&before.stats);
        Ok((done >= sent).then_some(()))
    };
    // That they are not shows in the comparison.
    if stop.wait(LIMIT, "packets being counted", all_counted).is_err() {
        stop.check()?;
    }
    let uvti = Snapshot::take(end)?.since(&before);
    let row = class.reason.row();
    let times =
        |per_packet: &Counters| per_packet.iter().map(|(k, n)| (k.clone(), n * golden.dropped)).collect();
    let kernel = Counted {
        reasons: Counters::from([(row.name.to_owned(), golden.dropped)]),
        link: times(&golden.link),
        xfrm: times(&golden.xfrm),
    };
    Ok(Drop {
        class: class.name,
        cause: class.cause,
        reason: row.name,
        meaning: row.meaning,
        kernel_version: golden.kernel.clone(),
        same: uvti == kernel,
        kernel,
        uvti,
    })
}

/// Changes the tables in one transaction.
fn configure(end: &mut End, class: &Class) -> Result<()> {
    let text = CLEAN.to_owned() + &class.lines.concat();
    let links = end.client.links()?;
    let wrong = |errors: Vec<batch::FileError>| {
        anyhow!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    let plan = batch::plan(class.name, &text, &Running(&links)).map_err(wrong)?;
    let owned = |line: batch::Line| match line.kind {
        batch::Kind::Owned(ops) => ops,
        // The classes' lines are all uvti's.
        batch::Kind::System(_) => Vec::new(),
    };
    Ok(end.client.apply(plan.into_iter().flat_map(owned).collect())??)
}

/// All packets of a link, whatever became of them.
fn packets(s: &LinkStats) -> u64 {
    s.rx_packets + s.rx_errors + s.tx_packets + s.tx_errors
}

/// The counters at one time.
struct Snapshot {
    stats: LinkStats,
    counted: Counted,
}

impl Snapshot {
    fn take(end: &mut End) -> Result<Self> {
        let stats = end.link()?.stats;
        let mut link: Counters = serde_json::from_value(serde_json::to_value(stats)?)?;
        link.retain(|name, _| !name.ends_with("_packets") && !name.ends_with("_bytes"));
        let Response::XfrmStat(mib) = end.client.ask(&Request::XfrmStat)? else {
            bail!(ClientError::Unexpected)
        };
        let xfrm = mib.into_iter().map(|(mib, n)| (mib.name().to_owned(), n)).collect();
        let Response::Stat(totals) = end.client.ask(&Request::Stat)? else { bail!(ClientError::Unexpected) };
        let mut reasons = Counters::new();
        for (name, n) in totals.devices.into_iter().flat_map(|d| d.drops) {
            *reasons.entry(name).or_default() += n;
        }
        Ok(Self { stats, counted: Counted { reasons, link, xfrm } })
    }

    fn since(&self, before: &Self) -> Counted {
        let (now, before) = (&self.counted, &before.counted);
        Counted {
            reasons: added(&now.reasons, &before.reasons),
            link: added(&now.link, &before.link),
            xfrm: added(&now.xfrm, &before.xfrm),
        }
    }
}

fn added(now: &Counters, before: &Counters) -> Counters {
    let more = |(name, n): (&String, &u64)| {
        let n = n.wrapping_sub(before.get(name).copied().unwrap_or(0));
        (n != 0).then(|| (name.clone(), n))
    };
    now.iter().filter_map(more).collect()
}

/// Sends packets made by hand.
struct Sender {
    into: Socket,
    esp: Socket,
    sealer: Sealer,
    next_iv: u64,
}

impl Sender {
    fn open(stage: &Stage) -> Result<Self> {
        let raw = |protocol| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)));
        let into = stage.a.netns.run(|| {
            let socket = raw(255)?; // IPPROTO_RAW: with the IP header, and never receives
            socket.set_header_included_v4(true)?;
            // Goes on sending what is too big when the first ICMP error has told the host the path's MTU.
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
            Ok::<_, std::io::Error>(socket)
        })?;
        let esp = stage.b.netns.run(|| {
            let socket = raw(50)?;
            socket.bind(&SocketAddr::from((OUTER_B, 0)).into())?;
            Ok::<_, std::io::Error>(socket)
        })?;
        let opened = (|| Ok::<_, std::io::Error>((into?, esp?)))();
        let (into, esp) = opened.context("cannot open raw sockets")?;
        Ok(Self { into, esp, sealer: Sealer::new()?, next_iv: 1 })
    }

    /// How many it sent.
    fn send(&mut self, packets: &Packets) -> Result<u64> {
        let to = |address: Ipv4Addr| SocketAddr::from((address, 0)).into();
        match *packets {
            Packets::Into { len, df } => {
                let packet = inner(A, B, len, df);
                for _ in 0..INTO {
                    self.into.send_to(&packet, &to(B)).context("cannot send into the tunnel")?;
                }
                Ok(INTO as u64)
            }
            Packets::Esp { spi, sequence, forged } => {
                for seq in sequence {
                    let packet = self.sealer.seal(spi, *seq, self.next_iv, forged)?;
                    self.next_iv += 1;
                    self.esp.send_to(&packet, &to(OUTER_A)).context("cannot send ESP")?;
                }
                Ok(sequence.len() as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways: every class has its recording, and no recording is left out.
    #[test]
    fn the_classes_are_those_of_the_golden_file() {
        let golden = golden().unwrap();
        let recorded: Vec<&str> = golden.iter().map(|g| g.class.as_str()).collect();
        let classes: Vec<&str> = CLASSES.iter().map(|c| c.name).collect();
        assert_eq!(classes, recorded);
    }

    /// The table of reasons says of each class what the kernel counted.
    #[test]
    fn the_golden_file_agrees_with_the_table_of_reasons() {
        for (golden, class) in golden().unwrap().iter().zip(CLASSES) {
            let row = class.reason.row();
            let link: Counters = row.link.iter().map(|f| (f.name().to_owned(), 1)).collect();
            let xfrm: Counters = row.mib.iter().map(|m| (m.name().to_owned(), 1)).collect();
            assert_eq!(golden.xfrm, xfrm, "{}", class.name);
            assert_eq!(golden.link.len(), link.len(), "{}", class.name);
        }
    }

    #[test]
    fn only_what_was_added_is_counted() {
        let of =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect::<Counters>();
        let (before, now) = (of(&[("a", 1), ("b", 2)]), of(&[("a", 1), ("b", 5), ("c", 1)]));
        assert_eq!(added(&now, &before), of(&[("b", 3), ("c", 1)]));
    }
}
