//! What stands behind `type xfrm` in `ip link`.

use super::Names;
use crate::ip::words::{Fail, Words, begins, number};
use uvti_core::device::LinkSpec;
use uvti_core::tables::{Errno, Refusal};

pub(super) const USAGE: &str = "Usage: ... xfrm dev [ PHYS_DEV ] [ if_id IF-ID ]\n\t\t[ external ]\n\n\
                                Where: IF-ID := { 0x1..0xffffffff }\n";

/// `[dev PHYS] if_id N`
pub(super) fn options(words: &mut Words<'_>, spec: &mut LinkSpec, names: &dyn Names) -> Result<(), Fail> {
    let (mut dev, mut if_id) = (None, None);
    while let Some(word) = words.next() {
        let is = |whole| !word.is_empty() && begins(word, whole);
        if is("dev") {
            let name = words.need()?;
            if !names.device(name) {
                return Err(words.say(format!("Cannot find device \"{name}\"\n"), 255));
            }
            dev = Some(name.to_owned());
        } else if is("if_id") {
            let id = number::<u32>(words.need()?).filter(|id| *id != 0);
            if_id = Some(id.ok_or_else(|| words.wrong("if_id value is invalid"))?);
        } else if is("external") {
            return Err(words.unsupported());
        } else {
            return Err(words.say(USAGE.to_owned(), 1));
        }
    }
    spec.if_id = match (if_id, &dev) {
        (Some(if_id), _) => if_id,
        (None, Some(_)) => return Err(words.say("Error: argument \"IF_ID\" is required\n".to_owned(), 255)),
        (None, None) => {
            return Err(Fail::refused(Refusal::message(Errno::Invalid, "if_id must be non zero")));
        }
    };
    spec.dev = dev;
    Ok(())
}
