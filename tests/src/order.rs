//! An SA leaves in sequence order, whatever the number of workers: a peer with a window of 32 drops nothing.

use crate::capture::EspPacket;
use crate::esp::Suite;
use crate::gateway::Engine;
use crate::guest::{Results, Setup};
use crate::outcome::Outcome;
use crate::sys::Way;
use crate::traffic::{self, Datagrams};
use crate::tunnel::{Plan, SPI_LEFT, Tunnel};
use anyhow::{Context, Result};

/// Flows of each kind.
const FLOWS: u16 = 4;
/// The peer's replay window, as labs have it.
const WINDOW: u32 = 32;

/// The kernel with itself, which shows that the traffic can be carried in order, and uvti with two workers.
pub fn run(setup: &Setup, results: &mut Results<'_>, engines: &[Engine]) -> Result<()> {
    for engine in engines {
        let name = format!("order-{}", engine.name());
        if setup.wants(&name) {
            results.push(&Outcome::of(&name, |failures| case(engine, failures)))?;
        }
    }
    Ok(())
}

fn case(engine: &Engine, failures: &mut Vec<String>) -> Result<String> {
    let plan = Plan { window: WINDOW, ..Plan::bare(Suite::Gcm128.keys().map(|key| key.ip_words())) };
    let tunnel = Tunnel::build(&plan, engine)?;
    flows(&tunnel)?;
    tunnel.compare_counters(failures)?;
    let sequences: Vec<u32> = tunnel
        .capture
        .drain()?
        .iter()
        .filter(|frame| frame.way == Way::In)
        .filter_map(EspPacket::parse)
        .filter(|packet| packet.spi() == SPI_LEFT)
        .map(|packet| packet.sequence())
        .collect();
    let late = furthest_behind(&sequences);
    if sequences.is_empty() || late >= WINDOW {
        failures.push(format!("of {} packets one was {late} behind the newest", sequences.len()));
    }
    tunnel.left.stop()?;
    Ok(format!("{} packets, {late} behind at most", sequences.len()))
}

/// Half the flows are UDP, half TCP, all at once, from left to right.
fn flows(tunnel: &Tunnel) -> Result<()> {
    let (left, right) = (&tunnel.left_end(), &tunnel.right_end());
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for flow in 0..FLOWS {
            running.push(scope.spawn(move || {
                let run = Datagrams { count: 500, size: 200, tos: 0, df: true, port: 5000 + flow };
                traffic::udp(left, right, &run)
            }));
            running.push(scope.spawn(move || traffic::tcp(left, right, 7000 + flow, 128 << 10)));
        }
        running.into_iter().try_for_each(|flow| flow.join().expect("traffic does not panic"))
    })
    .context("8 flows")
}

/// By how much the latest packet was behind the highest sequence number before it.
fn furthest_behind(sequences: &[u32]) -> u32 {
    let mut highest = 0;
    let mut furthest = 0;
    for &sequence in sequences {
        highest = highest.max(sequence);
        furthest = furthest.max(highest - sequence);
    }
    furthest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_measured_from_the_highest() {
        assert_eq!(furthest_behind(&[1, 2, 3]), 0);
        assert_eq!(furthest_behind(&[40, 2, 41, 9]), 38);
        assert_eq!(furthest_behind(&[]), 0);
    }
}
