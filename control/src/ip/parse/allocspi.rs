//! `ip xfrm state allocspi`.

use super::Command;
use super::fields::{Id, mode, unspecified};
use super::state::one_id;
use crate::ip::words::{Fail, Words};
use uvti_core::xfrm::{Algorithms, Family, Mode, Spi, StateSpec};

/// Where a free SPI is looked for when no range is given.
const RANGE: (u32, u32) = (0x100, 0x0fff_ffff);

pub(super) fn parse(words: &mut Words<'_>, family: Option<Family>) -> Result<Command, Fail> {
    let any = unspecified(Family::V4);
    let mut spec =
        StateSpec { mode: Mode::Transport, ..StateSpec::tunnel(any, any, Spi(0), Algorithms::default()) };
    let mut id: Option<Id> = None;
    let (mut min, mut max) = (None, None);
    while let Some(word) = words.peek() {
        let mut ahead = words.clone();
        ahead.next();
        match word {
            "mode" => spec.mode = mode(&mut ahead)?,
            "mark" => spec.mark = ahead.mark()?,
            "reqid" => spec.reqid = ahead.number("REQID value is invalid")?,
            "seq" => spec.seq = ahead.number("SEQ value is invalid")?,
            "min" => end(&mut ahead, word, &mut min)?,
            "max" => end(&mut ahead, word, &mut max)?,
            "dir" | "pcpu-num" => return Err(ahead.unsupported()),
            _ => {
                one_id(words, &mut id, family)?;
                continue;
            }
        }
        *words = ahead;
    }
    let Some(id) = id else { return Err(Fail::plain("Not enough information: ID is required\n")) };
    if id.spi.is_some_and(|spi| spi.0 != 0) {
        return Err(Fail::plain("\"spi\" is invalid\n"));
    }
    (spec.src, spec.dst) = id.addresses(id.family().or(family).unwrap_or(Family::V4));
    spec.proto = id.proto.unwrap_or_default();
    Ok(Command::StateAlloc { spec: Box::new(spec), range: range(min, max)? })
}

/// One end of the range.
fn end(words: &mut Words<'_>, keyword: &str, value: &mut Option<u32>) -> Result<(), Fail> {
    if value.is_some() {
        return Err(words.duplicate(keyword));
    }
    *value = Some(words.number(&format!("value after \"{keyword}\" is invalid"))?);
    Ok(())
}

fn range(min: Option<u32>, max: Option<u32>) -> Result<(u32, u32), Fail> {
    match (min, max) {
        (None, None) => Ok(RANGE),
        (Some(_), None) => Err(Fail::plain("\"max\" is missing\n")),
        (None, Some(_)) => Err(Fail::plain("\"min\" is missing\n")),
        (Some(min), Some(max)) if min > max => {
            Err(Fail::plain("value after \"min\" is larger than value after \"max\"\n"))
        }
        (Some(min), Some(max)) => Ok((min, max)),
    }
}
