//! `uvti run --state-dir`: a dataplane that was killed goes on where it was.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;
use uvti_tests::esp::Suite;
use uvti_tests::gateway::{Engine, Gateway};
use uvti_tests::path::{self, INNER, Path, Plan};
use uvti_tests::require::{Need, have};
use uvti_tests::traffic::{self, End};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

/// Kills the left gateway and starts it again with the same batch; then one ping. What the right one refuses as old.
fn refused_after_a_kill(flags: &[&str]) -> u64 {
    let algorithms = Suite::Gcm128.keys().map(|key| key.ip_words());
    let plan = Plan { words: "replay-window 32", flags, ..Plan::bare(algorithms, 1500) };
    let mut path = Path::build(&plan, PathBuf::from(UVTI), |_| Ok(())).unwrap();
    let ping = |path: &Path, count| {
        let [left, right] = [&path.left, &path.right].map(|gateway| gateway.namespace.clone());
        let end = |namespace, i: usize| End { namespace, address: INNER[i].into() };
        traffic::ping(&end(&left, 0), &end(&right, 1), count)
    };
    ping(&path, 50).unwrap();
    let (namespace, engine) =
        (path.left.namespace.clone(), Engine::Uvti { program: PathBuf::from(UVTI), workers: 1 });
    path.left.kill();
    // The device stayed, and its address.
    let lines: Vec<_> =
        path::lines(&plan, 0).iter().map(|line| line.replace("addr add", "addr replace")).collect();
    path.left = Gateway::start_with(namespace, engine, &lines, flags).unwrap();
    if !flags.is_empty() {
        ping(&path, 5).unwrap();
        let states = path.left.ask(&["xfrm", "state", "list"]).unwrap();
        // Of a million reserved numbers 50 were used, and then five.
        assert!(states.contains("oseq 0x100005,"), "{states}");
    } else {
        let send = || Ok(UdpSocket::bind((INNER[0], 0))?.send_to(&[0], (INNER[1], 9))?);
        path.left.namespace.run(send).unwrap();
    }
    let wanted = u64::from(flags.is_empty());
    wait::until(Duration::from_secs(10), || Some(refused(&path)).filter(|n| *n == wanted))
        .unwrap_or(refused(&path))
}

/// What the right gateway refused as received before.
fn refused(path: &Path) -> u64 {
    let stat: serde_json::Value = serde_json::from_str(&path.right.uvti(&["stat", "-j"]).unwrap()).unwrap();
    let drops = stat["devices"].as_array().unwrap().iter().filter_map(|d| d["drops"].as_array()).flatten();
    let replays = drops.filter(|d| d[0].as_str().is_some_and(|reason| reason.starts_with("rx_replay")));
    replays.filter_map(|d| d[1].as_u64()).sum()
}

#[test]
fn a_killed_dataplane_goes_on_where_it_was() {
    if !have("a_killed_dataplane_goes_on_where_it_was", Need::Netns) {
        return;
    }
    let folder = std::env::temp_dir().join(format!("uvti-state-dir-{}", std::process::id()));
    let refused = refused_after_a_kill(&["--state-dir", folder.to_str().unwrap()]);
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(refused, 0);
    assert_eq!(refused_after_a_kill(&[]), 1, "without it numbers start at 1 again");
}
