//! Finds the highest rate at which nothing is lost between two dataplanes, then rekeys a thousand times at more than half
//! of it: every packet must arrive, once. `benches/rekey` builds the tunnel.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use uvti::client::Client;
use uvti::protocol::Namespace;
use uvti_core::tables::Op;
use uvti_core::xfrm::{AlgAead, Algorithms, Key, Spi, StateSpec};

/// Rekeys a tunnel between two dataplanes under traffic.
#[derive(Debug, Parser)]
struct Args {
    /// The sender's network namespace and inner address.
    #[arg(long, num_args = 2, value_names = ["NS", "ADDR"])]
    from: Vec<String>,
    /// The receiver's.
    #[arg(long, num_args = 2, value_names = ["NS", "ADDR"])]
    to: Vec<String>,
    /// Outer addresses of both.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"])]
    outer: Vec<IpAddr>,
    /// How many rekeys.
    #[arg(long, default_value_t = 1000)]
    rekeys: u32,
    /// Rate of the packets meanwhile, in percent of the one without drops.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(50..=100))]
    percent: u64,
}

/// Length of an inner packet's payload, bytes.
const SIZE: usize = 100;
/// How long a rate must hold without a loss.
const TRIAL: Duration = Duration::from_secs(2);
/// The least time between two rekeys.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the last packets may be under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// Receive buffer asked for, bytes.
const BUFFER: usize = 64 << 20;
const PORT: u16 = 5000;

fn main() -> Result<()> {
    let args = Args::parse();
    let tunnel = Tunnel::open(&args)?;
    let best = tunnel.rate_without_drops()?;
    println!("no-drop rate: {best} packets/s of {SIZE} bytes in UDP, {} s without a loss", TRIAL.as_secs());
    let rate = best * args.percent / 100;
    let mut ends = Ends::connect(&args)?;
    let run = tunnel.run(rate, |stream| ends.rekey_often(args.rekeys, stream))?;
    let share = run.rate() * 100.0 / best as f64;
    println!(
        "{} rekeys in {:.1} s at {:.0} packets/s, {share:.0} % of it: {} packets sent, {} lost, {} twice",
        args.rekeys,
        run.took.as_secs_f64(),
        run.rate(),
        run.sent,
        run.lost,
        run.twice
    );
    ensure!(run.lost == 0 && run.twice == 0, "not every packet arrived once");
    ensure!(share >= 50.0, "the sender did not reach half of the no-drop rate");
    Ok(())
}

/// The inner sockets, from end to end.
struct Tunnel {
    sender: UdpSocket,
    receiver: UdpSocket,
}

/// Numbered packets on their way.
#[derive(Default)]
struct Stream {
    sent: AtomicU64,
    /// All packets below this number have come.
    arrived: AtomicU64,
    stop: AtomicBool,
    drained: AtomicBool,
}

/// What became of them.
struct Run {
    took: Duration,
    sent: u64,
    lost: u64,
    twice: u64,
}

impl Run {
    /// Packets a second.
    fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }
}

impl Tunnel {
    fn open(args: &Args) -> Result<Self> {
        let [from, to] = [&args.from, &args.to].map(|end| (end[0].as_str(), end[1].as_str()));
        let target = SocketAddr::new(to.1.parse()?, PORT);
        let receiver = inside(to.0, move || Ok(UdpSocket::bind(target)?))?;
        set_socket_recv_buffer_size_force(&receiver, BUFFER)?;
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let source = SocketAddr::new(from.1.parse()?, 0);
        let sender = inside(from.0, move || Ok(UdpSocket::bind(source)?))?;
        sender.connect(target)?;
        Ok(Self { sender, receiver })
    }

    /// By doubling, then by halving the step until it is a sixteenth. A rate must hold twice.
    fn rate_without_drops(&self) -> Result<u64> {
        let holds = |rate: u64| -> Result<bool> {
            for _ in 0..2 {
                let run = self.run(rate, |_| {
                    thread::sleep(TRIAL);
                    Ok(())
                })?;
                ensure!(run.twice == 0, "packets arrived twice");
                // A sender that cannot keep up has not tried the rate.
                if run.lost > 0 || run.rate() < rate as f64 * 0.95 {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let mut good = 0;
        let mut step = 4000;
        while holds(good + step)? {
            good += step;
            step = good;
        }
        ensure!(good > 0, "packets are lost already at {step} a second");
        for _ in 0..3 {
            step /= 2;
            if holds(good + step)? {
                good += step;
            }
        }
        Ok(good)
    }

    /// Sends at a rate until `work` is done, and waits for what is under way.
    fn run(&self, rate: u64, work: impl FnOnce(&Stream) -> Result<()>) -> Result<Run> {
        let stream = Stream::default();
        let begun = Instant::now();
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(rate, &stream));
            let receiving = scope.spawn(|| self.receive(&stream));
            let worked = work(&stream);
            let took = begun.elapsed();
            stream.stop.store(true, SeqCst);
            let sent = sending.join().map_err(|_| anyhow::anyhow!("the sender failed"))?;
            let last = Instant::now();
            while stream.arrived.load(SeqCst) < stream.sent.load(SeqCst) && last.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
            stream.drained.store(true, SeqCst);
            let (seen, twice) = receiving.join().map_err(|_| anyhow::anyhow!("the receiver failed"))??;
            sent?;
            let sent = stream.sent.load(SeqCst);
            let run = Run { took, sent, lost: sent - seen, twice };
            worked
                .with_context(|| format!("of {sent} packets {} were lost, {twice} came twice", run.lost))?;
            Ok(run)
        })
    }

    fn send(&self, rate: u64, stream: &Stream) -> Result<()> {
        let begun = Instant::now();
        let mut packet = [0x5a; SIZE];
        let mut sent = 0;
        while !stream.stop.load(SeqCst) {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            if sent >= due {
                thread::sleep(Duration::from_micros(50));
                continue;
            }
            packet[..8].copy_from_slice(&sent.to_be_bytes());
            sent += 1;
            // Counted first: what is on its way by the old SA must be among those that a rekey waits for.
            stream.sent.store(sent, SeqCst);
            self.sender.send(&packet).context("cannot send")?;
        }
        Ok(())
    }

    /// How many came, and how many of them again.
    fn receive(&self, stream: &Stream) -> Result<(u64, u64)> {
        let (mut seen, mut count, mut twice) = (Vec::new(), 0, 0);
        let mut arrived = 0;
        let mut buffer = [0; SIZE];
        while !stream.drained.load(SeqCst) {
            match self.receiver.recv(&mut buffer) {
                Ok(SIZE) => {}
                Ok(length) => bail!("a packet of {length} bytes"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            let mut number = [0; 8];
            number.copy_from_slice(&buffer[..8]);
            let number = u64::from_be_bytes(number) as usize;
            seen.resize(seen.len().max(number + 1), false);
            match std::mem::replace(&mut seen[number], true) {
                true => twice += 1,
                false => count += 1,
            }
            while seen.get(arrived) == Some(&true) {
                arrived += 1;
            }
            stream.arrived.store(arrived as u64, SeqCst);
        }
        Ok((count, twice))
    }
}

/// Both dataplanes.
struct Ends {
    from: Client,
    to: Client,
    outer: [IpAddr; 2],
}

impl Ends {
    fn connect(args: &Args) -> Result<Self> {
        let client = |ns: &str| Client::connect(None, &Namespace::Named(ns.to_owned()));
        Ok(Self {
            from: client(&args.from[0])?,
            to: client(&args.to[0])?,
            outer: [args.outer[0], args.outer[1]],
        })
    }

    fn rekey_often(&mut self, count: u32, stream: &Stream) -> Result<()> {
        for n in 1..=count {
            let begun = Instant::now();
            self.rekey(n, stream).with_context(|| format!("rekey {n}"))?;
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    /// First the receiver knows the new SA, then the sender has it alone; the receiver gives the old one up when nothing
    /// is under way by it.
    fn rekey(&mut self, n: u32, stream: &Stream) -> Result<()> {
        let (old, new) = (self.generation(n - 1), self.generation(n));
        self.to.apply(vec![Op::StateAdd(Box::new(new.clone()))])??;
        self.from.apply(vec![Op::StateAdd(Box::new(new)), Op::StateDel(old.id())])??;
        let before = stream.sent.load(SeqCst);
        let begun = Instant::now();
        while stream.arrived.load(SeqCst) < before {
            ensure!(begun.elapsed() < PATIENCE, "what the old SA carried does not arrive");
            thread::sleep(Duration::from_micros(100));
        }
        self.to.apply(vec![Op::StateDel(old.id())])??;
        Ok(())
    }

    /// The SA of a generation, with an SPI and a key of its own; the first is that of `benches/rekey`.
    fn generation(&self, n: u32) -> StateSpec {
        let mut key = vec![0; 20];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let aead = AlgAead { name: "rfc4106(gcm(aes))".to_owned(), key: Key::new(key), icv_bits: 128 };
        let algs = Algorithms { aead: Some(aead), ..Algorithms::default() };
        let [from, to] = self.outer;
        StateSpec { reqid: 1, replay_window: 64, ..StateSpec::tunnel(from, to, Spi(0x1000 + n), algs) }
    }
}

/// Does something on a thread in a namespace.
fn inside<T: Send>(ns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(Path::new("/run/netns").join(ns)).with_context(|| format!("no namespace {ns}"))?;
    let entered = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|_| bail!("the work in {ns} failed")))
}
