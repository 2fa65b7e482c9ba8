//! What a test needs of the machine, and what happens where it is missing.
//!
//! A machine without it skips the test and says so on the screen. With `UVTI_TEST_REQUIRE=netns,uml,tshark,strongswan` (as
//! `tests/run` and CI set it) a missing need is a failure instead, so that nothing is skipped unseen.

use crate::{netns::Namespace, strongswan, uml};
use std::io::Write;
use std::process::Command;

/// Something a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to create network namespaces, and `ip`.
    Netns,
    /// User-Mode Linux and its modules.
    Uml,
    /// `tshark`, which reads captures.
    Tshark,
    /// strongSwan: an IKE daemon with its own ESP.
    Strongswan,
}

impl Need {
    /// Its name in `UVTI_TEST_REQUIRE`.
    pub fn name(self) -> &'static str {
        match self {
            Need::Netns => "netns",
            Need::Uml => "uml",
            Need::Tshark => "tshark",
            Need::Strongswan => "strongswan",
        }
    }

    /// Why the machine does not have it.
    pub fn missing(self) -> Option<String> {
        match self {
            Need::Netns => match Namespace::new().and_then(|ns| ns.ip(&["link set lo up"])) {
                Ok(()) => None,
                Err(error) => Some(format!("run as root, with iproute2 installed: {error:#}")),
            },
            Need::Uml => uml::missing(),
            Need::Strongswan => strongswan::missing(),
            Need::Tshark => match Command::new("tshark").arg("--version").output() {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(format!("tshark ends with {}", output.status)),
                Err(error) => Some(format!("install tshark: {error}")),
            },
        }
    }
}

/// Whether `test` can run here. Says why not; panics when the need is required.
pub fn have(test: &str, need: Need) -> bool {
    let Some(why) = need.missing() else { return true };
    let message = format!("{test}: needs {} ({why})", need.name());
    let required = std::env::var("UVTI_TEST_REQUIRE").unwrap_or_default();
    assert!(!is_required(&required, need), "UVTI_TEST_REQUIRE={required}: {message}");
    say(&format!("skipped: {message}"));
    false
}

fn is_required(required: &str, need: Need) -> bool {
    required.split(',').any(|name| name.trim() == need.name())
}

/// Prints a line on the screen, also where the test runner captures the output.
pub fn say(line: &str) {
    let screen = std::fs::OpenOptions::new().append(true).open("/dev/stderr");
    let written = screen.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if written.is_err() {
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_a_list() {
        assert!(is_required("netns,uml", Need::Uml));
        assert!(is_required(" netns , uml", Need::Netns));
        assert!(!is_required("netns", Need::Uml));
        assert!(!is_required("", Need::Netns));
    }
}
