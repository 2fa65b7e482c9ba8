//! A packet that has come from the network.

use super::tx::note_unlisted;
use super::{
    Check, Context, Counts, Explanation, Seen, SeenSa, Step, Verdict, checks, command, near, subject,
};
use crate::device::Device;
use crate::esp::{self, NextHeader};
use crate::packet::tos::EcnRule;
use crate::packet::{Buf, Inner, Outer, proto};
use crate::reason::{LinkStats, Reason};
use crate::route::Onward;
use crate::tables::{Policy, Snapshot};
use crate::vti::Drop;
use crate::vti::inbound::{check_sa, inner_packet, open, whole};
use crate::vti::onward;
use crate::vti::receive::{Admitted, Refused, admit, check_inner, flow_seen, opened_all_the_same};
use crate::vti::xfrmi;
use crate::xfrm::{Direction, Mode, Sa, Spi};
use std::sync::Arc;

/// The checks in the datapath's order. A test wants every reason of the core here.
pub(super) const STEPS: &[Step] = &[
    ("packet", &[Reason::RxKeepalive, Reason::RxNonEsp]),
    ("device", &[Reason::RxNoTunnel, Reason::RxNoTunnelKnownSa]),
    (
        "outer policy",
        &[Reason::RxOuterPolicyBlock, Reason::RxOuterPolicyTemplate, Reason::RxOuterDefaultBlock],
    ),
    ("header", &[Reason::RxShort]),
    ("sa", &[Reason::RxNoSa, Reason::RxAcquire]),
    ("direction", &[Reason::RxWrongDirection]),
    ("encap", &[Reason::RxEncapMismatch]),
    ("replay", &[Reason::RxReplayZero, Reason::RxReplayOld, Reason::RxReplayDuplicate]),
    ("lifetime", &[Reason::RxSaExpired]),
    ("mode", &[Reason::RxNotTunnelMode]),
    ("icv", &[Reason::RxTruncated, Reason::RxBadIcv]),
    ("padding", &[Reason::RxBadPadding, Reason::RxDummy]),
    (
        "inner packet",
        &[Reason::RxInnerProto, Reason::RxInnerShort, Reason::RxInnerVersion, Reason::RxPlainIpip],
    ),
    ("congestion", &[Reason::RxCongested]),
    ("selector", &[Reason::RxSelectorMismatch]),
    ("policy", &[Reason::RxNoPolicy, Reason::RxPolicyBlock]),
    ("template", &[Reason::RxTemplateMismatch, Reason::RxTemplateMissing]),
    (
        "host",
        &[
            Reason::RxForwardBlock,
            Reason::RxForwardTemplate,
            Reason::RxForwardDefaultBlock,
            Reason::RxLocalBlock,
            Reason::RxLocalTemplate,
            Reason::RxLocalDefaultBlock,
        ],
    ),
];

/// The checks for a packet that has come by a device, or by none: an xfrm interface is named by the SA.
fn steps(judged: &Judged) -> Vec<Step> {
    let mut steps = STEPS.to_vec();
    let by_sa = match &judged.device {
        Some(device) => device.is_xfrm(),
        None => matches!(judged.reason, Some(Reason::RxShort | Reason::RxAcquire)),
    };
    if by_sa {
        steps.retain(|(name, _)| *name != "outer policy");
        steps[1..4].rotate_left(1);
    }
    steps
}

/// What cannot be checked without ciphertext, and what cannot without an inner packet.
const NEEDS_CIPHERTEXT: &[&str] = &["icv", "padding"];
const NEEDS_INNER: &[&str] =
    &["icv", "padding", "inner packet", "congestion", "selector", "policy", "template", "host"];

/// What is known of an ESP packet.
#[derive(Debug)]
pub enum Esp {
    /// All of it, from the SPI on: a private copy.
    Packet(Buf),
    /// Its header, and perhaps what would be in it: explained as if its ICV were right.
    Header {
        /// SPI.
        spi: Spi,
        /// Low half of the sequence number.
        seq: u32,
        /// The inner packet.
        inner: Option<Buf>,
    },
}

impl Esp {
    fn take(self) -> (Buf, Option<Option<Buf>>) {
        match self {
            Esp::Packet(buf) => (buf, None),
            Esp::Header { spi, seq, inner } => {
                let header = [spi.0.to_be_bytes(), seq.to_be_bytes()].concat();
                (Buf::from_packet(&header), Some(inner))
            }
        }
    }
}

/// How far a packet came.
#[derive(Default)]
struct Judged {
    device: Option<Arc<Device>>,
    sa: Option<Arc<Sa>>,
    /// The inner packet, once it is known.
    inner: Option<Inner>,
    policy: Option<Arc<Policy>>,
    /// Its length with TFC padding, bytes.
    len: usize,
    /// Where the host takes it, if that was asked.
    onward: Option<Onward>,
    /// The policy by which the host drops it.
    refusing: Option<Arc<Policy>>,
    reason: Option<Reason>,
}

/// What would become of the packet: the calls of [`Receiver::run`](crate::vti::Receiver::run) without those that
/// move the window, charge or end the SA.
fn judge(
    tables: &Snapshot,
    outer: &Outer,
    buf: &mut Buf,
    known: Option<Option<Buf>>,
    cx: &Context<'_>,
) -> Judged {
    let mut judged = Judged::default();
    judged.reason = match admit(tables, outer, buf.bytes()) {
        Err(refused) => {
            let reason = match opened_all_the_same(&refused, outer, buf.bytes()) {
                Some((sa, seq)) => open_without_device(sa, buf, seq, known).err(),
                None => None,
            };
            let Refused { device, sa, .. } = &refused;
            (judged.device, judged.sa) = (device.clone(), sa.clone());
            reason.or(Some(refused.reason))
        }
        Ok(Admitted { device, sa, seq }) => {
            (judged.device, judged.sa) = (Some(device.clone()), Some(sa.clone()));
            deliver(tables, outer, buf, known, &device, &sa, seq, &mut judged)
                .and_then(|()| pass_the_host(tables, &device, cx, &mut judged))
                .err()
        }
    };
    judged
}

fn open_without_device(sa: &Sa, buf: &mut Buf, seq: u32, known: Option<Option<Buf>>) -> Result<(), Reason> {
    let seq = check_sa(sa, None, seq)?;
    if known.is_none() { open(sa, buf, seq).map(drop) } else { Ok(()) }
}

#[allow(clippy::too_many_arguments, reason = "all that the passes of a receiver have")]
fn deliver(
    tables: &Snapshot,
    outer: &Outer,
    buf: &mut Buf,
    known: Option<Option<Buf>>,
    device: &Device,
    sa: &Sa,
    seq: u32,
    judged: &mut Judged,
) -> Result<(), Reason> {
    let seq = check_sa(sa, Some(device), seq)?;
    let next_header = match known {
        None => {
            let upper = open(sa, buf, seq)?;
            judged.len = buf.len();
            whole(sa, buf, outer, upper)?
        }
        Some(None) => return Ok(()),
        Some(Some(inner)) => {
            *buf = inner;
            judged.len = buf.len();
            NextHeader(if buf.bytes().first().is_some_and(|b| b >> 4 == 6) {
                proto::IPV6
            } else {
                proto::IPIP
            })
        }
    };
    if sa.spec.mode != Mode::Transport {
        judged.len = buf.len();
    }
    let inner = inner_packet(sa, buf, outer, next_header, tables.settings.ecn)?;
    judged.inner = Some(inner);
    if xfrmi::needs_no_policy(device, &inner) {
        return Ok(());
    }
    match check_inner(tables, device, sa, &flow_seen(sa, &inner, buf.bytes())) {
        Ok(policy) => judged.policy = policy.cloned(),
        Err((reason, policy)) => {
            judged.policy = policy.cloned();
            return Err(reason);
        }
    }
    Ok(())
}

/// What the host asks policies, where the inner packet is known.
fn pass_the_host(
    tables: &Snapshot,
    device: &Device,
    cx: &Context<'_>,
    judged: &mut Judged,
) -> Result<(), Reason> {
    let asked = tables.policies.concern_host() && !device.is_xfrm();
    let Some(flow) = judged.inner.map(|inner| inner.flow).filter(|_| asked) else {
        return Ok(());
    };
    let onward = judged.onward.insert((cx.onward)(device, flow.src, flow.dst));
    onward::check(tables, device, &flow, onward).map(drop).map_err(|(reason, policy)| {
        judged.refusing = policy.cloned();
        reason
    })
}

/// Explains what becomes of an ESP packet from the network.
pub fn receive(tables: &Snapshot, outer: &Outer, esp: Esp, cx: &Context<'_>) -> Explanation {
    let (mut buf, known) = esp.take();
    let bytes = buf.bytes().to_vec();
    let unchecked: &[&str] = match &known {
        None => &[],
        Some(Some(_)) => NEEDS_CIPHERTEXT,
        Some(None) => NEEDS_INNER,
    };
    let judged = judge(tables, outer, &mut buf, known, cx);
    let found = Found { tables, outer, esp: &bytes, judged: &judged, unchecked };
    let kind = judged.device.as_ref().map(|d| d.spec.kind);
    let drop = judged.reason.map(|reason| Drop {
        sa: judged.sa.clone(),
        policy: judged.refusing.as_ref().or(judged.policy.as_ref()).cloned(),
        ..Drop::from(reason)
    });
    let mut list: Vec<Check> =
        checks(&steps(&judged), judged.reason, unchecked, |name| found.object(name, cx));
    let near = drop.as_ref().map(|drop| {
        note_unlisted(&mut list, drop.reason);
        near::receive(tables, outer, &bytes, judged.device.as_deref(), judged.inner.as_ref(), drop)
    });
    Explanation {
        way: "rx".to_owned(),
        device: judged.device.as_ref().map(|d| d.spec.name.clone()),
        packet: found.line(),
        checks: list,
        verdict: match &drop {
            Some(drop) => {
                let device = judged.device.as_ref().map_or("DEV", |d| &d.spec.name);
                Verdict::dropped(drop.reason, device, None)
            }
            None => Verdict::passed(found.delivered()),
        },
        counts: match &drop {
            Some(drop) => Counts::of(drop, kind, judged.len),
            None => Counts { link: found.received(), ..Counts::default() },
        },
        icmp: None,
        seen: Seen { sa: judged.sa.as_ref().map(|sa| SeenSa::of(sa)), ..Seen::default() },
        near: near.unwrap_or_default(),
    }
}

/// The objects that had a part in it.
struct Found<'a> {
    tables: &'a Snapshot,
    outer: &'a Outer,
    esp: &'a [u8],
    judged: &'a Judged,
    unchecked: &'a [&'a str],
}

impl Found<'_> {
    fn line(&self) -> String {
        let Outer { src, dst, udp, .. } = self.outer;
        let carriage = match udp {
            Some(ports) => format!("esp in udp {src}:{} > {dst}:{}", ports.src, ports.dst),
            None => format!("esp {src} > {dst}"),
        };
        let inner = self
            .judged
            .inner
            .as_ref()
            .map(|i| format!(", in it {}", subject::line(Some(i), self.judged.len)));
        let inner = inner.unwrap_or_default();
        match esp::peek(self.esp) {
            Some((spi, seq)) => format!("{carriage} spi {spi} seq {seq}{inner}"),
            None => format!("{carriage}, {} bytes{inner}", self.esp.len()),
        }
    }

    fn received(&self) -> LinkStats {
        LinkStats { rx_packets: 1, rx_bytes: self.judged.len as u64, ..LinkStats::default() }
    }

    fn delivered(&self) -> String {
        let device = self.judged.device.as_ref().map_or("", |d| &d.spec.name);
        match (self.unchecked.is_empty(), self.judged.inner.is_some()) {
            (true, _) => format!("Delivered to {device}."),
            (false, true) => format!("Delivered to {device}, if it is authentic."),
            (false, false) => {
                format!("Decrypted for {device}, if it is authentic; what is in it is not known.")
            }
        }
    }

    /// What a check looked at, in words.
    fn object(&self, check: &str, cx: &Context<'_>) -> Option<String> {
        let judged = self.judged;
        match check {
            "packet" => Some(self.line()),
            "device" => Some(match &judged.device {
                Some(d) => {
                    let known_by = subject::device(&d.spec, ("ikey", d.spec.ikey));
                    format!("{} ({}) {known_by}", d.spec.name, (cx.ifname)(d.ifindex))
                }
                None if judged.reason.is_some_and(is_outer_policy) => {
                    let device = self.tables.devices.tunnel(self.outer.dst, self.outer.src)?;
                    format!("{} local {} remote {}", device.spec.name, device.spec.local, device.spec.remote)
                }
                None => format!("none that is up has local {} and remote {}", self.outer.dst, self.outer.src),
            }),
            "outer policy" => Some(match near::outer_policy(self.tables, self.outer) {
                Some(policy) => command::policy_line(&policy.spec),
                None => "none without a mark matches the outer packet".to_owned(),
            }),
            "header" => Some(match esp::peek(self.esp) {
                Some((spi, seq)) => format!("spi {spi} seq {seq}"),
                None => format!("{} bytes", self.esp.len()),
            }),
            "sa" => Some(match &judged.sa {
                Some(sa) => command::state_line(&sa.spec),
                None => {
                    let (spi, _) = esp::peek(self.esp)?;
                    let ikey = judged.device.as_ref().map_or(0, |d| d.spec.ikey);
                    format!("none with dst {} spi {spi} that takes mark {ikey:#x}", self.outer.dst)
                }
            }),
            _ => self.behind_the_sa(check, judged.sa.as_ref()?),
        }
    }

    fn behind_the_sa(&self, check: &str, sa: &Sa) -> Option<String> {
        let (spec, seen) = (&sa.spec, SeenSa::of(sa));
        let without = |what: &str| Some(format!("not checked: {what}"));
        match check {
            "congestion" if self.tables.settings.ecn == EcnRule::Kernel => return None,
            "host" if !self.tables.policies.concern_host() => return None,
            "icv" | "padding" if self.unchecked.contains(&check) => return without("there is no ciphertext"),
            _ if self.unchecked.contains(&check) => return without("there is no inner packet"),
            _ => {}
        }
        Some(match check {
            "direction" => command::direction(spec.dir).to_owned(),
            "encap" => {
                let wants = spec.encap.map_or("bare ESP", |e| e.kind.name());
                let is = if self.outer.udp.is_some() { "in UDP" } else { "bare" };
                format!("the SA is for {wants}, the packet is {is}")
            }
            "replay" => {
                let (_, seq) = esp::peek(self.esp)?;
                match spec.replay_window {
                    0 => format!("seq {seq}, no replay window"),
                    window => format!("seq {seq}, highest received {}, window {window}", seen.window_top),
                }
            }
            "lifetime" => seen.used(),
            "mode" => spec.mode.name().to_owned(),
            "icv" => format!("of {} bytes", sa.crypter.overhead().icv),
            "padding" => "pad length and next header".to_owned(),
            "inner packet" => match &self.judged.inner {
                Some(inner) => subject::line(Some(inner), self.judged.len),
                None => format!("{} bytes", self.judged.len),
            },
            "congestion" => format!("outer tos {:#x}", self.outer.tos),
            "selector" => command::selector(&sa.selector),
            "policy" => match &self.judged.policy {
                Some(policy) => command::policy_line(&policy.spec),
                None => {
                    let device = self.judged.device.as_ref()?;
                    let dir = asked(self.tables, device, self.judged.inner.as_ref()?);
                    let (count, name) = (self.tables.policies.count(dir), dir.name());
                    let key = subject::key(device, dir);
                    format!("none of {count} with dir {name} matches the inner packet and {key}")
                }
            },
            "host" => {
                let way = match self.judged.onward.as_ref()? {
                    Onward::Local(dev) => format!("for this host, by {dev}"),
                    Onward::Forward(dev) => format!("forwarded by {dev}"),
                    Onward::Dropped => "neither forwarded nor for this host".to_owned(),
                };
                match &self.judged.refusing {
                    Some(policy) => format!("{way}: {}", command::policy_line(&policy.spec)),
                    None => way,
                }
            }
            "template" => match self.judged.policy.as_ref()?.spec.templates.first() {
                Some(template) => command::template(template),
                None => "none".to_owned(),
            },
            _ => return None,
        })
    }
}

/// The direction whose policies a packet meets.
pub(super) fn asked(tables: &Snapshot, device: &Device, inner: &Inner) -> Direction {
    if device.is_xfrm() { xfrmi::direction(tables, &inner.flow) } else { Direction::In }
}

fn is_outer_policy(reason: Reason) -> bool {
    STEPS.iter().any(|(name, reasons)| *name == "outer policy" && reasons.contains(&reason))
}
