//! `ip xfrm state`.

use super::fields::{Id, flags, limit, mode, unspecified};
use super::selector::Written;
use super::{Asker, Change, Command, Names, unknown_verb};
use crate::ip::words::{Fail, Words, begins, number};
use uvti_core::tables::{Errno, Op, Refusal, StateMatch};
use uvti_core::xfrm::{
    AlgAead, AlgAuth, AlgEnc, Algorithms, Encap, EncapKind, ExtraFlags, Family, Key, MAX_REPLAY_WINDOW, Mark,
    Mode, Proto, SaDirection, SaId, Spi, StateFlags, StateSpec,
};

pub(super) fn parse(words: &[String], family: Option<Family>, names: &dyn Names) -> Result<Command, Fail> {
    let Some(verb) = words.first() else {
        return Ok(Command::StateList { which: StateMatch::default(), nokeys: false });
    };
    let mut rest = Words::new(words);
    rest.next();
    let is = |whole: &str| begins(verb, whole);
    if is("add") {
        let spec = Builder::new(family).build(&mut rest, names)?;
        Ok(Change::one(Op::StateAdd(Box::new(spec)), Asker::Netlink))
    } else if is("update") {
        let spec = Builder::new(family).build(&mut rest, names)?;
        Ok(Change::one(Op::StateUpdate(Box::new(spec)), Asker::Netlink))
    } else if is("allocspi") {
        super::allocspi::parse(&mut rest, family)
    } else if is("delete") {
        Ok(Change::one(Op::StateDel(id(&mut rest, family)?), Asker::Netlink))
    } else if is("deleteall") || is("delall") {
        Ok(Command::StateDeleteAll(matching(&mut rest, family)?.0))
    } else if is("list") || is("show") || is("lst") {
        let (which, nokeys) = matching(&mut rest, family)?;
        Ok(Command::StateList { which, nokeys })
    } else if is("get") {
        Ok(Command::StateGet(id(&mut rest, family)?))
    } else if is("flush") {
        flush(&mut rest)
    } else if is("count") {
        Ok(Command::StateCount)
    } else if is("help") {
        Err(Fail::usage(USAGE, Some(0)))
    } else {
        Err(unknown_verb(verb, "xfrm state", "."))
    }
}

fn flush(words: &mut Words<'_>) -> Result<Command, Fail> {
    let mut proto = Proto::Any;
    while let Some(word) = words.next() {
        match word {
            "proto" => proto = super::fields::proto(words)?,
            _ => return Err(words.wrong("unknown")),
        }
    }
    Ok(Change::one(Op::StateFlush(proto), Asker::Netlink))
}

/// The ID of `get` and `delete`.
fn id(words: &mut Words<'_>, family: Option<Family>) -> Result<SaId, Fail> {
    let mut id: Option<Id> = None;
    let mut mark = Mark::default();
    while words.peek().is_some() {
        if words.take("mark") {
            mark = words.mark()?;
        } else {
            one_id(words, &mut id, family)?;
        }
    }
    let Some(id) = id else { return Err(Fail::refused(Refusal::errno(Errno::Invalid))) };
    let (_, dst) = id.addresses(id.family().or(family).unwrap_or(Family::V4));
    Ok(SaId { dst, spi: id.spi.unwrap_or_default(), proto: id.proto.unwrap_or_default(), mark })
}

/// Takes the one ID that a command may have. What is no word of an ID where one is looked for is no word at all.
pub(super) fn one_id(words: &mut Words<'_>, id: &mut Option<Id>, family: Option<Family>) -> Result<(), Fail> {
    if id.is_some() {
        // `bogus`, or a second ID: kept as measured, an ID's words must stand together.
        words.next();
        return Err(words.wrong("unknown"));
    }
    let mut new = Id::default();
    new.take(words, family)?;
    if new.proto.is_none() {
        return Err(Fail::usage("Error: argument \"XFRM-PROTO\" is required\n", None));
    }
    *id = Some(new);
    Ok(())
}

/// The filter of `list` and `deleteall`.
fn matching(words: &mut Words<'_>, family: Option<Family>) -> Result<(StateMatch, bool), Fail> {
    let mut which = StateMatch::default();
    let mut nokeys = false;
    while let Some(word) = words.peek() {
        match word {
            "nokeys" => {
                words.next();
                nokeys = true;
            }
            "mode" => {
                words.next();
                which.mode = Some(mode(words)?);
            }
            "reqid" => {
                words.next();
                which.reqid = Some(words.number("REQID value is invalid")?);
            }
            "flag" => {
                words.next();
                which.flags = Some(StateFlags(flags(words, FLAGS, "FLAG")?));
            }
            _ => {
                let mut id = Id::default();
                if !id.take(words, family)? {
                    words.next();
                    return Err(words.wrong("unknown"));
                }
                which = StateMatch { src: id.src, dst: id.dst, proto: id.proto, spi: id.spi, ..which };
            }
        }
    }
    Ok((which, nokeys))
}

/// FLAG names. kernel: include/uapi/linux/xfrm.h XFRM_STATE_*
pub(crate) const FLAGS: &[(&str, u8)] = &[
    ("noecn", StateFlags::NOECN),
    ("decap-dscp", StateFlags::DECAP_DSCP),
    ("nopmtudisc", StateFlags::NOPMTUDISC),
    ("wildrecv", StateFlags::WILDRECV),
    ("icmp", StateFlags::ICMP),
    ("af-unspec", StateFlags::AF_UNSPEC),
    ("align4", StateFlags::ALIGN4),
    ("esn", StateFlags::ESN),
];

/// EXTRA-FLAG names. kernel: include/uapi/linux/xfrm.h XFRM_SA_XFLAG_*
pub(crate) const EXTRA_FLAGS: &[(&str, u32)] =
    &[("dont-encap-dscp", ExtraFlags::DONT_ENCAP_DSCP), ("oseq-may-wrap", ExtraFlags::OSEQ_MAY_WRAP)];

/// A state on its way from words to a [`StateSpec`].
struct Builder {
    family: Option<Family>,
    id: Option<Id>,
    spec: StateSpec,
    sel: Option<Written>,
    comp: bool,
}

impl Builder {
    fn new(family: Option<Family>) -> Self {
        let any = unspecified(Family::V4);
        let spec =
            StateSpec { mode: Mode::Transport, ..StateSpec::tunnel(any, any, Spi(0), Algorithms::default()) };
        Self { family, id: None, spec, sel: None, comp: false }
    }

    fn build(mut self, words: &mut Words<'_>, names: &dyn Names) -> Result<StateSpec, Fail> {
        while let Some(word) = words.peek() {
            if self.keyword(word, words, names)? {
                continue;
            }
            one_id(words, &mut self.id, self.family)?;
        }
        self.finish()
    }

    /// Takes `word` and its arguments if it is a keyword.
    fn keyword(&mut self, word: &str, words: &mut Words<'_>, names: &dyn Names) -> Result<bool, Fail> {
        // An ID may begin with any of its words; they are none of these.
        let mut ahead = words.clone();
        ahead.next();
        let spec = &mut self.spec;
        match word {
            "mode" => spec.mode = mode(&mut ahead)?,
            "mark" => spec.mark = ahead.mark()?,
            "reqid" => spec.reqid = ahead.number("REQID value is invalid")?,
            "seq" => spec.seq = ahead.number("SEQ value is invalid")?,
            "replay-window" => spec.replay_window = after(&mut ahead, word)?,
            "replay-seq" => spec.replay.seq = after(&mut ahead, word)?,
            "replay-seq-hi" => spec.replay.seq_hi = after(&mut ahead, word)?,
            "replay-oseq" => spec.replay.oseq = after(&mut ahead, word)?,
            "replay-oseq-hi" => spec.replay.oseq_hi = after(&mut ahead, word)?,
            "flag" => spec.flags = StateFlags(flags(&mut ahead, FLAGS, "FLAG")?),
            "extra-flag" => spec.extra_flags = ExtraFlags(flags(&mut ahead, EXTRA_FLAGS, "EXTRA-FLAG")?),
            "sel" => {
                if ahead.peek().is_none() {
                    ahead.need()?;
                }
                self.sel = Some(Written::take(&mut ahead, self.family, names)?.unwrap_or_default());
            }
            "limit" => limit(&mut ahead, &mut spec.limits)?,
            "encap" => spec.encap = Some(encap(&mut ahead)?),
            "output-mark" => spec.output_mark = output_mark(&mut ahead)?,
            "if_id" => spec.if_id = after(&mut ahead, word)?,
            "tfcpad" => spec.tfcpad = after(&mut ahead, word)?,
            "dir" => spec.dir = Some(direction(&mut ahead)?),
            "coa" if self.id.and_then(|id| id.proto) == Some(Proto::Esp) => {
                return Err(ahead.say("\"coa\" is invalid with XFRM-PROTO value \"esp\"\n".to_owned(), 1));
            }
            "coa" | "ctx" | "offload" | "pcpu-num" => return Err(ahead.unsupported()),
            _ if ["aead", "enc", "auth-trunc", "auth", "comp"].contains(&word) => {
                self.algorithm(word, &mut ahead)?
            }
            _ => return Ok(false),
        }
        *words = ahead;
        Ok(true)
    }

    /// `enc`, `auth`, `auth-trunc`, `aead`, `comp`, each at most once, and an AEAD alone.
    fn algorithm(&mut self, kind: &str, words: &mut Words<'_>) -> Result<(), Fail> {
        let algs = &mut self.spec.algs;
        let taken = match kind {
            "aead" => algs.aead.is_some() || algs.enc.is_some() || algs.auth.is_some(),
            "enc" => algs.aead.is_some() || algs.enc.is_some(),
            "comp" => self.comp,
            _ => algs.aead.is_some() || algs.auth.is_some(),
        };
        if taken {
            return Err(words.duplicate("ALGO-TYPE"));
        }
        let name = words.required("ALGO-NAME")?.to_owned();
        // kernel: include/uapi/linux/xfrm.h: alg_name[64], ended by a zero
        if name.len() > 63 {
            return Err(words.wrong("ALGO-NAME value is too long"));
        }
        if kind == "comp" {
            self.comp = true;
            return Ok(());
        }
        let key = key(words)?;
        match kind {
            "aead" => algs.aead = Some(AlgAead { name, key, icv_bits: bits(words, "ALGO-ICV-LEN")? }),
            "enc" => algs.enc = Some(AlgEnc { name, key }),
            "auth" => algs.auth = Some(AlgAuth { name, key, trunc_bits: None }),
            _ => algs.auth = Some(AlgAuth { name, key, trunc_bits: Some(bits(words, "ALGO-TRUNC-LEN")?) }),
        }
        Ok(())
    }

    fn finish(self) -> Result<StateSpec, Fail> {
        let Some(id) = self.id else { return Err(Fail::plain("Not enough information: ID is required\n")) };
        let mut spec = self.spec;
        let family = id.family().or(self.family).unwrap_or(Family::V4);
        (spec.src, spec.dst) = id.addresses(family);
        spec.proto = id.proto.unwrap_or_default();
        spec.spi = id.spi.unwrap_or_default();
        spec.sel = self.sel.map(|written| {
            let both = written.family().is_none() && spec.flags.has(StateFlags::AF_UNSPEC);
            let mut sel = written.selector(family);
            if both {
                sel.family = None;
            }
            sel
        });
        check_replay(&spec)?;
        check_algorithms(&spec, self.comp)?;
        Ok(spec)
    }
}

fn check_replay(spec: &StateSpec) -> Result<(), Fail> {
    let outbound = spec.dir == Some(SaDirection::Out);
    if spec.flags.has(StateFlags::ESN) && spec.replay_window == 0 && !outbound {
        return Err(Fail::usage("Error: esn flag set without replay-window.\n", None));
    }
    if spec.replay_window > MAX_REPLAY_WINDOW {
        let text = format!(
            "Error: replay-window ({}) > XFRMA_REPLAY_ESN_MAX ({MAX_REPLAY_WINDOW}).\n",
            spec.replay_window
        );
        return Err(Fail::usage(text, None));
    }
    Ok(())
}

fn check_algorithms(spec: &StateSpec, comp: bool) -> Result<(), Fail> {
    let Algorithms { aead, enc, auth } = &spec.algs;
    let name = spec.proto.name();
    let text = match spec.proto {
        Proto::Esp if comp => {
            format!("ALGO-TYPE value \"comp\" is invalid with XFRM-PROTO value \"{name}\"\n")
        }
        Proto::Esp if enc.is_none() && aead.is_none() => {
            format!("ALGO-TYPE value \"enc\" or \"aead\" is required with XFRM-PROTO value \"{name}\"\n")
        }
        Proto::Ah if comp || enc.is_some() || aead.is_some() => format!(
            "ALGO-TYPE values \"enc\", \"aead\", and \"comp\" are invalid with XFRM-PROTO value \"{name}\"\n"
        ),
        Proto::Ah if auth.is_none() => {
            format!(
                "ALGO-TYPE value \"auth\" or \"auth-trunc\" is required with XFRM-PROTO value \"{name}\"\n"
            )
        }
        Proto::Comp if !comp => {
            format!("ALGO-TYPE value \"comp\" is required with XFRM-PROTO value \"{name}\"\n")
        }
        Proto::Comp | Proto::Route2 | Proto::Hao => {
            format!("uvti: \"proto {name}\": not supported in userspace\n")
        }
        _ => return Ok(()),
    };
    Err(Fail::plain(text))
}

fn after<T: TryFrom<u64>>(words: &mut Words<'_>, keyword: &str) -> Result<T, Fail> {
    words.number(&format!("value after \"{keyword}\" is invalid"))
}

fn output_mark(words: &mut Words<'_>) -> Result<Mark, Fail> {
    let value = after(words, "output-mark")?;
    let mask = if words.take("mask") { words.number("mask value is invalid\n")? } else { u32::MAX };
    Ok(Mark { value, mask })
}

fn direction(words: &mut Words<'_>) -> Result<SaDirection, Fail> {
    match words.need()? {
        "in" => Ok(SaDirection::In),
        "out" => Ok(SaDirection::Out),
        _ => Err(words.wrong("value after \"dir\" is invalid")),
    }
}

fn encap(words: &mut Words<'_>) -> Result<Encap, Fail> {
    let word = words.need()?;
    let kind = [EncapKind::EspInUdp, EncapKind::EspInUdpNonIke, EncapKind::EspInTcp]
        .into_iter()
        .find(|k| k.name() == word)
        .ok_or_else(|| words.wrong("ENCAP-TYPE value is invalid"))?;
    let sport = words.number("SPORT value after \"encap\" is invalid")?;
    let dport = words.number("DPORT value after \"encap\" is invalid")?;
    let word = words.need()?;
    let original = crate::ip::words::address(word, None).ok_or_else(|| {
        words.say(format!("Error: any valid address is expected rather than \"{word}\".\n"), 1)
    })?;
    Ok(Encap { kind, sport, dport, original })
}

fn bits(words: &mut Words<'_>, what: &str) -> Result<u32, Fail> {
    let word = words.required(what)?;
    number(word).ok_or_else(|| words.wrong(&format!("{what} value is invalid")))
}

/// `0xHEX`, where an odd number of digits gets a 0 in front, or the bytes of the word.
fn key(words: &mut Words<'_>) -> Result<Key, Fail> {
    let word = words.required("ALGO-KEYMAT")?;
    let bytes = match word.strip_prefix("0x") {
        Some(hex) => hex_bytes(hex).ok_or_else(|| words.wrong("ALGO-KEYMAT value is invalid"))?,
        None => word.as_bytes().to_vec(),
    };
    if bytes.len() > Key::MAX {
        return Err(words.wrong("\"ALGO-KEYMAT\" makes buffer overflow\n"));
    }
    Ok(Key::new(bytes))
}

fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    Some(odd.iter().copied().chain(pairs.chunks_exact(2).map(|p| p[0] << 4 | p[1])).collect())
}

const USAGE: &str = "\
Usage: ip xfrm state { add | update } ID [ ALGO-LIST ] [ mode MODE ]
        [ mark MARK [ mask MASK ] ] [ reqid REQID ] [ seq SEQ ]
        [ replay-window SIZE ] [ replay-seq SEQ ] [ replay-oseq SEQ ]
        [ replay-seq-hi SEQ ] [ replay-oseq-hi SEQ ]
        [ flag FLAG-LIST ] [ sel SELECTOR ] [ LIMIT-LIST ] [ encap ENCAP ]
        [ extra-flag EXTRA-FLAG-LIST ] [ output-mark OUTPUT-MARK [ mask MASK ] ]
        [ if_id IF_ID ] [ tfcpad LENGTH ] [ dir DIR ]
Usage: ip xfrm state allocspi ID [ mode MODE ] [ mark MARK [ mask MASK ] ]
        [ reqid REQID ] [ seq SEQ ] [ min SPI max SPI ]
Usage: ip xfrm state { delete | get } ID [ mark MARK [ mask MASK ] ]
Usage: ip xfrm state deleteall [ ID ] [ mode MODE ] [ reqid REQID ]
        [ flag FLAG-LIST ]
Usage: ip xfrm state list [ nokeys ] [ ID ] [ mode MODE ] [ reqid REQID ]
        [ flag FLAG-LIST ]
Usage: ip xfrm state flush [ proto XFRM-PROTO ]
Usage: ip xfrm state count
";
