//! A packet that is about to leave by a device.

use super::{
    Check, Context, Counts, Explanation, Ledger, Outcome, Seen, SeenRoute, SeenSa, Step, Verdict, checks,
    command, near, subject,
};
use crate::device::Device;
use crate::packet::{Buf, Inner, OuterHeader};
use crate::reason::{Icmp, LinkStats, Reason};
use crate::route::Route;
use crate::tables::{Policy, Snapshot};
use crate::vti::Drop;
use crate::vti::Stage;
use crate::vti::icmp;
use crate::vti::outbound::{check_inner, check_packet, check_sa, encapsulate};
use crate::vti::transmit::{Decision, Refused, decide, holder, route_key};
use crate::xfrm::{Direction, Mode, Sa, Template};
use std::net::IpAddr;
use std::sync::Arc;

/// The checks in the datapath's order. A test wants every reason of the core here.
pub(super) const STEPS: &[Step] = &[
    ("packet", &[Reason::TxRunt, Reason::TxNotIp, Reason::TxNoDestination, Reason::TxSourceIsRemote]),
    ("addresses", &[Reason::TxLocalNotOurs, Reason::TxRemoteIsOurs]),
    ("device", &[Reason::TxXfrmDisabled]),
    ("policy", &[Reason::TxNoPolicy, Reason::TxDefaultBlock, Reason::TxPolicyBlock]),
    ("template", &[Reason::TxBypassPolicy]),
    ("sa", &[Reason::TxNoSa, Reason::TxTemplateSpiClash, Reason::TxNoTransform]),
    ("hold queue", &[Reason::TxHoldQueueFull]),
    ("direction", &[Reason::TxWrongDirection]),
    ("route", &[Reason::TxNoOuterRoute]),
    ("mode", &[Reason::TxNotTunnelMode]),
    ("endpoints", &[Reason::TxOuterFamily, Reason::TxEndpointMismatch]),
    ("loop", &[Reason::TxLoop, Reason::TxMutualLoop, Reason::TxTransportLoop]),
    ("own esp", &[Reason::TxOwnEsp]),
    ("size", &[Reason::TxTooBig, Reason::TxNarrowPath]),
    ("lifetime", &[Reason::TxSaExpired]),
    ("sequence", &[Reason::TxSeqOverflow, Reason::TxSeqNotReserved]),
    ("seal", &[Reason::TxNoRoom, Reason::TxSealFailed]),
];

/// The same for a packet that an unmarked policy takes before it reaches the device.
pub(super) const UNMARKED: &[Step] = &[
    ("packet", &[]),
    ("unmarked policy", &[Reason::TxUnmarkedDefaultBlock, Reason::TxUnmarkedPolicyBlock]),
    ("template", &[]),
    ("sa", &[Reason::TxUnmarkedNoSa, Reason::TxUnmarkedPolicyError]),
    ("hold queue", &[Reason::TxUnmarkedHoldQueueFull]),
    ("direction", &[Reason::TxUnmarkedWrongDirection]),
    ("route", &[Reason::TxUnmarkedNoOuterRoute]),
    ("mode", &[Reason::TxUnmarkedNotTunnelMode]),
    ("loop", &[Reason::TxUnmarkedLoop]),
    ("size", &[Reason::TxUnmarkedTooBig]),
    ("lifetime", &[Reason::TxUnmarkedSaExpired]),
    ("sequence", &[Reason::TxUnmarkedSeqOverflow]),
    ("seal", &[Reason::TxUnmarkedUnsent]),
];

/// What becomes of a packet that waits.
const WAITS: &str =
    "Waits for an SA, with up to 100 others of its policy: sent when there is one, dropped if none comes.";

/// How far a packet came.
struct Judged {
    stage: Stage,
    inner: Option<Inner>,
    decision: Option<Decision>,
    /// The policy on which it would wait for an SA.
    holder: Option<Arc<Policy>>,
    /// Length of the outer packet, bytes.
    result: Result<usize, Drop>,
}

/// What would become of the packet in `buf`: the calls of [`Transmitter::run`](crate::vti::Transmitter::run) without
/// those that take, count or end something. The copy is sealed with the number and IV that the next packet gets, and
/// thrown away: of one nonce at most one packet leaves.
fn judge(tables: &Snapshot, device: &Device, buf: &mut Buf) -> Judged {
    let refused = |inner, mut refused: Refused| {
        let holder = holder(tables, device, &refused).cloned();
        let stage = Stage::of(refused.reason);
        if holder.as_ref().is_some_and(|policy| policy.is_full()) {
            refused.reason = stage.reason(Reason::TxHoldQueueFull);
        }
        let holder = holder.filter(|policy| !policy.is_full());
        Judged { stage, inner, decision: None, holder, result: Err(refused.into()) }
    };
    let inner = match check_inner(buf) {
        Ok(inner) => inner,
        Err(reason) => return refused(None, reason.into()),
    };
    let decision = match decide(tables, device, &inner.flow) {
        Ok(decision) => decision,
        Err(why) => return refused(Some(inner), why),
    };
    let result = admit(tables, device, &decision, &inner, buf);
    Judged { stage: decision.stage, inner: Some(inner), decision: Some(decision), holder: None, result }
}

fn admit(
    tables: &Snapshot,
    device: &Device,
    decision: &Decision,
    inner: &Inner,
    buf: &mut Buf,
) -> Result<usize, Drop> {
    check_packet(tables, device, decision, inner, buf.bytes())?;
    let run = &decision.sa.run;
    let (used, numbers) = (run.current(), run.out.available());
    check_sa(&decision.sa, used.packets, used.bytes, numbers)
        .and_then(|()| encapsulate(decision, buf, inner, run.out.last() + 1, || 1))
        .map_err(|reason| decision.refuse(reason, 0))?;
    Ok(buf.len())
}

/// Explains what `device` would do with the packet in `buf`, a private copy.
pub fn transmit(tables: &Snapshot, device: &Device, mut buf: Buf, cx: &Context<'_>) -> Explanation {
    let packet = buf.bytes().to_vec();
    let judged = judge(tables, device, &mut buf);
    let found = Found::new(tables, device, &packet, &judged);
    let refused = judged.result.as_ref().err().filter(|_| judged.holder.is_none());
    let reason = refused.map(|drop| drop.reason);
    let steps = if judged.stage == Stage::Host { UNMARKED } else { STEPS };
    let mut explanation = Explanation {
        way: "tx".to_owned(),
        device: Some(device.spec.name.clone()),
        packet: subject::line(judged.inner.as_ref(), packet.len()),
        checks: checks(steps, reason, &[], |name| found.object(name, cx)),
        verdict: match &judged.result {
            _ if judged.holder.is_some() => Verdict::passed(WAITS.to_owned()),
            Ok(len) => Verdict::passed(found.sent(*len, cx)),
            Err(drop) => Verdict::dropped(drop.reason, &device.spec.name, Some(found.ends())),
        },
        counts: match &judged.result {
            Err(drop) if judged.holder.is_none() => Counts::of(drop, Some(device.spec.kind), 0),
            _ if judged.stage == Stage::Host => Counts::default(),
            // A kernel VTI counts what waits as sent.
            _ => Counts {
                link: LinkStats { tx_packets: 1, tx_bytes: packet.len() as u64, ..LinkStats::default() },
                ..Counts::default()
            },
        },
        icmp: refused.and_then(|drop| told(drop, &packet, judged.inner.as_ref()?)),
        seen: found.seen(cx),
        near: Vec::new(),
    };
    if let (Err(drop), Some(inner)) = (&judged.result, &judged.inner) {
        explanation.near = near::transmit(tables, device, &inner.flow, drop);
    }
    if let Some(drop) = refused {
        note_unlisted(&mut explanation.checks, drop.reason);
    }
    explanation
}

/// A reason that no step has: it must show in any case.
pub(super) fn note_unlisted(checks: &mut Vec<Check>, reason: Reason) {
    if checks.last().is_none_or(|last| last.result != Outcome::Fail) {
        let (name, object) = (reason.row().name.to_owned(), reason.row().meaning.to_owned());
        checks.push(Check { name, result: Outcome::Fail, object });
    }
}

/// The ICMP error that goes with a drop.
fn told(drop: &Drop, packet: &[u8], inner: &Inner) -> Option<String> {
    let kind = drop.reason.row().icmp;
    let message = icmp::error(kind, packet, inner, drop.mtu)?;
    let [number, code, _, _, mtu @ ..] = message.bytes.first_chunk::<8>()?;
    let version = if message.dst.is_ipv4() { "ICMP" } else { "ICMPv6" };
    let mtu = match kind {
        Icmp::TooBig | Icmp::TooBigForIpv6 => format!(" mtu {}", u32::from_be_bytes(*mtu)),
        _ => String::new(),
    };
    Some(format!("{version} {number}/{code} {}{mtu} to {}", kind.name(), message.dst))
}

/// The objects that had a part in it.
struct Found<'a> {
    tables: &'a Snapshot,
    device: &'a Device,
    packet: &'a [u8],
    inner: Option<Inner>,
    policy: Option<Arc<Policy>>,
    sa: Option<Arc<Sa>>,
    route: Option<Route>,
    decision: Option<&'a Decision>,
}

impl<'a> Found<'a> {
    fn new(tables: &'a Snapshot, device: &'a Device, packet: &'a [u8], judged: &'a Judged) -> Self {
        let decision = judged.decision.as_ref();
        let drop = judged.result.as_ref().err();
        let policy = decision.map(|d| &d.policy).or(drop.and_then(|d| d.policy.as_ref())).cloned();
        let sa = decision.map(|d| &d.sa).or(drop.and_then(|d| d.sa.as_ref())).cloned();
        let route = sa.as_ref().and_then(|sa| *tables.routes.find(&route_key(sa))?);
        Self { tables, device, packet, inner: judged.inner, policy, sa, route, decision }
    }

    /// Local and remote, of the SA if there is one.
    fn ends(&self) -> (IpAddr, IpAddr) {
        let ends = &self.device.spec;
        self.sa.as_ref().map_or((ends.local, ends.remote), |sa| (sa.spec.src, sa.spec.dst))
    }

    fn template(&self) -> Option<&Template> {
        self.policy.as_ref()?.spec.templates.first()
    }

    /// What a check looked at, in words.
    fn object(&self, check: &str, cx: &Context<'_>) -> Option<String> {
        let device = &self.device.spec;
        match check {
            "packet" => Some(subject::line(self.inner.as_ref(), self.packet.len())),
            "device" => {
                let known_by = subject::device(device, ("okey", device.okey));
                let disabled = match self.device.is_xfrm() {
                    true => String::new(),
                    false => format!(", disable_xfrm {}", u8::from(self.device.disable_xfrm)),
                };
                Some(format!("{} {known_by}{disabled}", device.name))
            }
            "unmarked policy" => Some(match &self.policy {
                Some(policy) => command::policy_line(&policy.spec),
                None => {
                    "none with dir out matches the packet without a mark, and the default is block".to_owned()
                }
            }),
            "policy" => Some(match &self.policy {
                Some(policy) => command::policy_line(&policy.spec),
                None => format!(
                    "none of {} with dir out matches the packet and {}",
                    self.tables.policies.count(Direction::Out),
                    subject::key(self.device, Direction::Out)
                ),
            }),
            "template" => Some(match self.template() {
                Some(t) => command::template(t),
                None => "none: the policy encrypts nothing".to_owned(),
            }),
            "sa" => Some(match (&self.sa, self.template()) {
                (Some(sa), _) => command::state_line(&sa.spec),
                (None, Some(t)) => format!("no valid one for {}", command::template(t)),
                (None, None) => return None,
            }),
            _ => self.behind_the_sa(check, self.sa.as_ref()?, cx),
        }
    }

    fn behind_the_sa(&self, check: &str, sa: &Sa, cx: &Context<'_>) -> Option<String> {
        let (spec, seen) = (&sa.spec, SeenSa::of(sa));
        Some(match check {
            "direction" => command::direction(spec.dir).to_owned(),
            "route" => match self.route {
                Some(r) => {
                    format!("{} from {} dev {} mtu {}", spec.dst, spec.src, (cx.ifname)(r.ifindex), r.mtu)
                }
                None => format!("none to {} from {}", spec.dst, spec.src),
            },
            "mode" => spec.mode.name().to_owned(),
            "endpoints" if self.device.is_xfrm() => {
                format!("{} to {}, the device has none", spec.src, spec.dst)
            }
            "endpoints" => format!(
                "{} to {}, the device's are {} to {}",
                spec.src, spec.dst, self.device.spec.local, self.device.spec.remote
            ),
            "loop" => match spec.mode {
                Mode::Transport => {
                    format!("there is no outer header: the packet leaves by {}", self.device.spec.name)
                }
                _ => format!("the outer packet leaves by {}", (cx.ifname)(self.route?.ifindex)),
            },
            "own esp" => "an ESP packet of this tunnel may not enter it again".to_owned(),
            "size" => {
                let df = if self.inner?.df { "may not be fragmented" } else { "may be fragmented" };
                format!("{} bytes, {df}; {}", self.packet.len(), self.ledger()?)
            }
            "lifetime" => seen.used(),
            "sequence" => format!("last sent {}, {} left", seen.oseq, sa.run.out.available()),
            "seal" => format!("{} bytes of padding for TFC at most", self.decision?.tfc_len),
            _ => return None,
        })
    }

    fn ledger(&self) -> Option<Ledger> {
        let (sa, route) = (self.sa.as_ref()?, self.route?);
        let overhead = sa.crypter.overhead();
        let outer = OuterHeader::len(sa.spec.src, sa.spec.encap.is_some()) as u32;
        let (esp, icv) = ((8 + overhead.iv) as u32, overhead.icv as u32);
        let room = route.mtu.saturating_sub(outer);
        let fits = overhead.largest_inner(room as usize) as u32;
        let trailer = room.saturating_sub(esp + icv + fits);
        let largest = fits.min(self.device.mtu);
        Some(Ledger { path: route.mtu, outer, esp, icv, trailer, device: self.device.mtu, largest })
    }

    fn seen(&self, cx: &Context<'_>) -> Seen {
        Seen {
            sa: self.sa.as_ref().map(|sa| SeenSa::of(sa)),
            route: self.route.map(|r| SeenRoute { dev: (cx.ifname)(r.ifindex), mtu: r.mtu }),
            mtu: self.ledger(),
        }
    }

    fn sent(&self, len: usize, cx: &Context<'_>) -> String {
        let Some(decision) = self.decision else { return String::new() };
        let (spi, dev, mtu) = (decision.sa.spec.spi, (cx.ifname)(decision.route.ifindex), decision.route.mtu);
        let before = match decision.stage {
            Stage::Host => ", before it reaches the device, which does not count it",
            Stage::Device => "",
        };
        let pieces = match len > mtu as usize {
            true => ", in fragments",
            false => "",
        };
        format!("Sent by SA {spi} in an outer packet of {len} bytes by {dev}{pieces}{before}.")
    }
}

impl std::fmt::Display for Ledger {
    /// `at most 1446: path 1500, less outer header 20, …; the device's MTU is 1480`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, outer, esp, icv, trailer, device, largest } = self;
        write!(
            f,
            "at most {largest}: path {path} less outer header {outer}, ESP and IV {esp}, ICV {icv}, trailer \
             {trailer}; device {device}"
        )
    }
}
