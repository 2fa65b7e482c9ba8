//! A kernel VTI and uvti talk to each other, with every suite, bare and in UDP.
//!
//! The first group has the kernel at both ends. It shows that the traffic, the rules for the wire and the
//! counters are the kernel's own; the second puts uvti in place of one end, and changes nothing else.

use crate::esp::Suite;
use crate::gateway::Engine;
use crate::guest::{Results, Setup};
use crate::outcome::Outcome;
use crate::sys::Way;
use crate::traffic::{self, Datagrams};
use crate::tunnel::{LEFT, NATT, Plan, RIGHT, SPI_LEFT, SPI_RIGHT, Tunnel};
use crate::wire::{Stream, check_stream};
use anyhow::{Context, Result};

/// Bytes of each TCP transfer: an emulated machine without AES instructions does about 1 MiB a second.
const TCP_BYTES: usize = 256 << 10;

/// The kernel at both ends.
pub fn kernel_with_kernel(setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    run(setup, results, &Engine::Kernel)
}

/// uvti at the left end.
pub fn kernel_with_uvti(setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    run(setup, results, &Engine::Uvti { program: setup.uvti.clone(), workers: 1 })
}

fn run(setup: &Setup, results: &mut Results<'_>, left: &Engine) -> Result<()> {
    for (name, suite, plan) in plans(left) {
        if setup.wants(&name) {
            results.push(&Outcome::of(&name, |failures| case(suite, &plan, left, failures)))?;
        }
    }
    Ok(())
}

fn plans(left: &Engine) -> Vec<(String, Suite, Plan)> {
    let plan = |suite: Suite| Plan::bare(suite.keys().map(|key| key.ip_words()));
    let first = Suite::Gcm128;
    let mut plans = Vec::new();
    for suite in Suite::ALL {
        for natt in [false, true] {
            plans.push((suite, Plan { natt, ..plan(suite) }));
        }
    }
    plans.extend([false, true].map(|natt| (first, Plan { natt, v6: true, ..plan(first) })));
    // A kernel VTI does not survive this policy; uvti's sockets have one of their own.
    if *left != Engine::Kernel {
        let unmarked = |natt| Plan { natt, unmarked_policy: true, ..plan(first) };
        plans.extend([false, true].map(|natt| (first, unmarked(natt))));
    }
    let name = |suite: Suite, plan: &Plan| {
        let carriage = if plan.natt { "udp" } else { "raw" };
        let inner = if plan.v6 { "-6in4" } else { "" };
        let policy = if plan.unmarked_policy { "-unmarked-policy" } else { "" };
        format!("{}-{}-{carriage}{inner}{policy}", left.name(), suite.name())
    };
    plans.into_iter().map(|(suite, plan)| (name(suite, &plan), suite, plan)).collect()
}

fn case(suite: Suite, plan: &Plan, left: &Engine, failures: &mut Vec<String>) -> Result<String> {
    let [left_key, right_key] = suite.keys();
    let tunnel = Tunnel::build(plan, left)?;
    exchange(&tunnel)?;
    let (left_link, right_link) = tunnel.compare_counters(failures)?;
    let frames = tunnel.capture.drain()?;
    let ports = plan.natt.then_some((NATT, NATT));
    let packets = |link: &crate::gateway::Counters| link.get("tx_packets").copied().unwrap_or(0);
    for (side, stream) in [
        (
            "left",
            Stream {
                way: Way::In,
                src: LEFT,
                dst: RIGHT,
                ports,
                spi: SPI_LEFT,
                key: &left_key,
                packets: packets(&left_link),
            },
        ),
        (
            "right",
            Stream {
                way: Way::Out,
                src: RIGHT,
                dst: LEFT,
                ports,
                spi: SPI_RIGHT,
                key: &right_key,
                packets: packets(&right_link),
            },
        ),
    ] {
        failures.extend(
            check_stream(&frames, &stream).into_iter().map(|wrong| format!("{side} on the wire: {wrong}")),
        );
    }
    tunnel.left.stop().context("left")?;
    tunnel.right.stop().context("right")?;
    Ok(format!("{} packets sent, {} received", packets(&left_link), packets(&right_link)))
}

/// Ping, 1000 datagrams (half of them with DF, half with a TOS and larger) and a TCP transfer, both ways.
fn exchange(tunnel: &Tunnel) -> Result<()> {
    let (left, right) = (tunnel.left_end(), tunnel.right_end());
    for (from, to, port) in [(&left, &right, 5000), (&right, &left, 6000)] {
        traffic::ping(from, to, 5)?;
        traffic::udp(from, to, &Datagrams { count: 500, size: 101, tos: 0, df: true, port })?;
        traffic::udp(from, to, &Datagrams { count: 500, size: 1200, tos: 0xb9, df: false, port: port + 1 })?;
        traffic::tcp(from, to, port, TCP_BYTES)?;
    }
    Ok(())
}
