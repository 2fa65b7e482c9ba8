//! What the tests of all crates share: they run as far as the machine allows, and say so when it does not.

use crate::host::netns::Netns;
use std::io;

/// Whether tests that need network namespaces and `/dev/net/tun` can run here.
///
/// If not, prints `skipped: NAME: needs …`, or panics when `UVTI_TEST_REQUIRE` contains `netns`: a CI that is
/// meant to run them must not pass by skipping.
pub fn require_netns(name: &str) -> bool {
    match probe() {
        Ok(()) => true,
        Err(error) => {
            skip(name, "netns", &format!("root (network namespaces and /dev/net/tun): {error}"));
            false
        }
    }
}

/// Says that test `name` is skipped because it needs `what`; panics if `UVTI_TEST_REQUIRE` contains `feature`.
pub fn skip(name: &str, feature: &str, what: &str) {
    let required = std::env::var("UVTI_TEST_REQUIRE").unwrap_or_default();
    if required.split([',', ' ']).any(|f| f == feature) {
        panic!("{name}: UVTI_TEST_REQUIRE has {feature}, but the test needs {what}");
    }
    println!("skipped: {name}: needs {what}");
}

fn probe() -> io::Result<()> {
    Netns::new()?;
    std::fs::File::options().read(true).write(true).open("/dev/net/tun")?;
    Ok(())
}
