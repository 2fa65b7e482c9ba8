//! `uvti run` and `uvti reload`.

use crate::client::Client;
use crate::ip::{batch, difference};
use crate::metrics::Exporter;
use crate::notify::notify;
use crate::privilege;
use crate::protocol::{Namespace, Request, Response};
use crate::server::{self, Dataplane, Server};
use crate::service::{Running, Service};
use crate::stack;
use anyhow::{Context, bail};
use clap::ValueEnum;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use uvti_core::packet::tos::EcnRule;
use uvti_core::tables::{Op, Unmarked};
use uvti_dataplane::account::{DEFAULT_RECORDS, DEFAULT_ROWS};
use uvti_dataplane::engine::{Backend, Config, Engine, SystemHost};
use uvti_dataplane::host::netlink::Events;
use uvti_dataplane::host::pmtu::Listener;
use uvti_dataplane::inject::{Hooks, Injector};
use uvti_dataplane::io::Underlay;
use uvti_dataplane::io::tun::Offloads;
use uvti_dataplane::io::underlay::{PortUse, SendPorts, SocketUnderlay};
use uvti_dataplane::journal::Journal;
use uvti_dataplane::worker::tamper::Tamper;

/// How the dataplane runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration at start: a file of `ip` lines, as for `ip -batch`. One wrong line, and nothing is applied.
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// Worker threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// How packets come from the TUN devices.
    #[arg(long, value_enum, default_value_t = Tun::Auto, env = "UVTI_TUN")]
    tun: Tun,
    /// Which offloads of the TUN devices are used, as far as the kernel has them.
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',', default_value = "tso,uso,gro")]
    offload: Vec<Offload>,
    /// How ESP without UDP is carried.
    #[arg(long, value_enum, default_value_t = Carrier::Raw)]
    underlay: Carrier,
    /// How ESP in UDP is sent.
    #[arg(long, value_enum, default_value_t = Wire::Exact)]
    wire: Wire,
    /// How ESP in UDP is received.
    #[arg(long, value_enum, default_value_t = NattPort::Own)]
    natt_port: NattPort,
    /// How congestion (ECN) passes between inner and outer headers.
    #[arg(long, value_enum, default_value_t = Ecn::Kernel)]
    ecn: Ecn,
    /// Leave the devices in place at a clean stop, with the host's routes: the host then drops what goes into them.
    #[arg(long)]
    keep_devices: bool,
    /// Where to note how far each SA's sequence numbers are, so that one with the same key goes on there after a restart.
    /// Without it they start at 1 again, and what was received before can be received again.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where an output policy without a mark encrypts or blocks.
    #[arg(long, value_enum, default_value_t = UnmarkedPolicies::Host)]
    unmarked_policies: UnmarkedPolicies,
    /// Dropped packets to keep of each reason, by each worker, for `uvti drops`; 0 keeps none.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RECORDS as u16, value_parser = clap::value_parser!(u16).range(..=1000))]
    record: u16,
    /// Rows for the SAs and policies that drops are attributed to, a worker and in all; what finds none left counts
    /// as `other`.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROWS as u32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    attribution_rows: u32,
    /// Serve counters to Prometheus at this address and port, in the dataplane's namespace, to whoever asks.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// The form of the log on standard error, which RUST_LOG filters.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Log::Text)]
    log: Log,
    /// Let `uvti inject` plant faults in this dataplane, for labs. Without it nothing of that is on a packet's way.
    #[arg(long)]
    allow_inject: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tun {
    /// With offload if the kernel can.
    Auto,
    /// With offload: many packets a system call.
    Offload,
    /// One packet a system call.
    Simple,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Offload {
    /// The host hands over TCP super-packets.
    Tso,
    /// The host hands over UDP super-packets, and takes them.
    Uso,
    /// Packets for the host are joined to super-packets, where cutting them gives the same packets.
    Gro,
    /// None of these.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Log {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UnmarkedPolicies {
    /// Before the device, which then counts nothing: as in a kernel, where the host routes the packet.
    Host,
    /// On the device, together with those that have its key as mark.
    Device,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Carrier {
    /// Raw sockets.
    Raw,
}

impl Args {
    fn backend(&self) -> Backend {
        let has = |offload| self.offload.contains(&offload) && !self.offload.contains(&Offload::None);
        let offloads = Offloads { tso: has(Offload::Tso), uso: has(Offload::Uso), gro: has(Offload::Gro) };
        match self.tun {
            Tun::Auto => Backend::Auto(offloads),
            Tun::Offload => Backend::Offload(offloads),
            Tun::Simple => Backend::Simple,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wire {
    /// To the bit as a kernel VTI sends it.
    Exact,
    /// Many packets a message (UDP_SEGMENT): they have a UDP checksum, and IP IDs that count up under DF.
    Fast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NattPort {
    /// On ports of its own; one that another process has is shared.
    Own,
    /// By copies of the ESP that arrives on ports left to an IKE daemon.
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ecn {
    /// As a kernel VTI: CE goes out as ECT(0), and CE from outside is ignored by an inner packet without ECN.
    Kernel,
    /// As RFC 6040 says: CE goes out as CE, and what comes with it, but has no ECN inside, is dropped.
    Rfc6040,
}

/// `uvti run`.
pub(crate) fn run<T: Tamper>(
    args: &Args,
    control: Option<&Path>,
    tamper: fn() -> T,
) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log {
        Log::Text => log.init(),
        Log::Json => log.json().init(),
    }
    // The only carrier yet; the flag is there so that scripts can name it.
    let Carrier::Raw = args.underlay;

    privilege::seal_memory()?;
    uvti_core::esp::self_test()
        .context("an algorithm does not give its published result: refusing to run")?;
    // Handlers first: a signal during start must not leave devices behind.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let server = match control {
        Some(path) => Server::bind(path),
        None => Server::bind_for(Namespace::Own.inode()?),
    }?;
    let onlookers = server.read_only()?;
    let folder = server.path().parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let exporter = args.metrics.map(exporter).transpose()?;
    let text = args.batch.as_deref().map(read).transpose()?;
    let events = Events::subscribe().context("cannot follow the host's routes")?;
    let listener = Listener::open().context("cannot hear ICMP: root or CAP_NET_RAW is needed")?;
    let journal = args.state_dir.as_deref().map(Journal::open).transpose()?;
    let folders: Vec<&Path> = iter::once(folder).chain(args.state_dir.as_deref()).collect();
    let (engine, injector) = privilege::confined(&folders, || start(args, tamper))?;
    match journal {
        Some(journal) => engine.keep_journal(journal),
        None => tracing::info!("no --state-dir: after a restart SAs start at sequence number 1 again"),
    }
    let service = Arc::new(Service(engine.clone(), injector, listener));
    if let (Some(file), Some(text)) = (&args.batch, &text)
        && let Err(code) = stack::erased(|| load(&service, &file.display().to_string(), text))
    {
        engine.stop();
        return Ok(code);
    }
    // The batch's lines of the system's `ip` have been run: no program will be started any more.
    drop(text);
    privilege::confine(&folders)?;
    let servers = [&server, &onlookers];
    serve(servers, exporter.as_ref(), &service, events, &mut signals, args.batch.as_deref())?;
    notify("STOPPING=1");
    engine.stop();
    Ok(ExitCode::SUCCESS)
}

fn exporter(address: SocketAddr) -> anyhow::Result<Exporter> {
    let exporter = Exporter::bind(address).with_context(|| format!("cannot serve metrics at {address}"))?;
    tracing::info!(address = %exporter.address()?, "metrics");
    Ok(exporter)
}

fn start<T: Tamper>(args: &Args, tamper: fn() -> T) -> anyhow::Result<(Arc<Engine>, Option<Injector>)> {
    let workers = args.workers.unwrap_or_else(|| {
        thread::available_parallelism().map_or(1, |n| n.get().min(usize::from(u16::MAX)) as u16)
    });
    let host = SystemHost::open(args.backend())
        .context("cannot open netlink and ICMP sockets: root or CAP_NET_ADMIN is needed")?;
    let ports = SendPorts::default();
    let open = |i| {
        // The first worker receives for all: every raw socket would get a copy.
        let underlay = SocketUnderlay::open(i == 0)?.port_use(match args.natt_port {
            NattPort::Own => PortUse::Own,
            NattPort::Shared => PortUse::Shared,
        });
        Ok(match args.wire {
            Wire::Exact => underlay,
            Wire::Fast => underlay.segmented(ports.clone()),
        })
    };
    let underlays = (0..workers)
        .map(|i| open(i).map(|u| Box::new(u) as Box<dyn Underlay>))
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot open raw sockets: root or CAP_NET_RAW is needed")?;
    let config = Config {
        workers,
        keep_devices: args.keep_devices,
        attribution_rows: args.attribution_rows as usize,
        record: usize::from(args.record),
        unmarked: match args.unmarked_policies {
            UnmarkedPolicies::Host => Unmarked::Host,
            UnmarkedPolicies::Device => Unmarked::Device,
        },
        ecn: match args.ecn {
            Ecn::Kernel => EcnRule::Kernel,
            Ecn::Rfc6040 => EcnRule::Rfc6040,
        },
    };
    let host = Box::new(host);
    if !args.allow_inject {
        return Ok((Engine::start(config, host, underlays, tamper)?, None));
    }
    tracing::warn!("--allow-inject: whoever may use the control socket may damage packets and tables");
    let mut hooks = Hooks::default();
    let underlays = underlays.into_iter().map(|underlay| hooks.underlay(underlay)).collect();
    let engine = Engine::start(config, hooks.host(host), underlays, tamper)?;
    let injector = hooks.injector(engine.clone());
    Ok((engine, Some(injector)))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Applies a batch file. Every line is checked first; then the system's lines and the devices come in their order,
/// states and policies together at the end: whoever reads the tables sees none of them or all. If a line fails, what
/// was done of uvti's own is taken back. Prints what is wrong and returns the exit code of `ip`.
fn load(service: &Service, file: &str, text: &str) -> Result<(), ExitCode> {
    let links = service.links();
    let plan = batch::plan(file, text, &Running(&links)).map_err(|errors| {
        errors.iter().for_each(|e| eprintln!("{e}"));
        ExitCode::from(1)
    })?;
    let failed = |number: usize, error: String| {
        eprintln!("{file}:{number}:1: {error}");
        undo(service);
        ExitCode::from(2)
    };
    let (mut ops, mut numbers) = (Vec::new(), Vec::new());
    for line in plan {
        match line.kind {
            batch::Kind::System(words) => system_ip(&words).map_err(|e| failed(line.number, e))?,
            batch::Kind::Owned(owned) if owned.iter().any(is_link) => {
                service.apply(&owned).map_err(|r| failed(line.number, r.to_string()))?;
            }
            batch::Kind::Owned(owned) => {
                numbers.extend(owned.iter().map(|_| line.number));
                ops.extend(owned);
            }
        }
    }
    service.apply(&ops).map_err(|r| failed(numbers.get(r.index).copied().unwrap_or(0), r.to_string()))?;
    service.refresh();
    Ok(())
}

fn is_link(op: &Op) -> bool {
    matches!(op, Op::LinkAdd(_) | Op::LinkChange(_) | Op::LinkDel { .. })
}

/// The dataplane was empty before the batch: empties it again.
fn undo(service: &Service) {
    let links = service.links();
    let ops = difference::difference((&links, &service.configured(), &service.policies()), &[]);
    if let Err(rejected) = service.apply(&ops) {
        tracing::error!(%rejected, "cannot take the batch back");
    }
}

fn system_ip(words: &[String]) -> Result<(), String> {
    match Command::new("ip").args(words).stdin(Stdio::null()).output() {
        Ok(o) if o.status.success() => Ok(()),
        Ok(o) => Err(String::from_utf8_lossy(&o.stderr).trim_end().to_owned()),
        Err(e) => Err(format!("cannot run the system's ip: {e}: is iproute2 installed?")),
    }
}

fn serve(
    servers: [&Server; 2],
    exporter: Option<&Exporter>,
    service: &Arc<Service>,
    events: Events,
    signals: &mut Signals,
    batch: Option<&Path>,
) -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    let dataplane: Arc<dyn Dataplane> = service.clone();
    thread::scope(|scope| {
        for server in servers {
            let (dataplane, stop) = (&dataplane, &stop);
            scope.spawn(move || server.run(dataplane, stop));
        }
        scope.spawn(|| upkeep(service, events));
        scope.spawn(|| listen(service));
        if let Some(exporter) = exporter {
            scope.spawn(|| exporter.run(&dataplane, &stop));
        }
        println!("ready");
        let _ = std::io::stdout().flush();
        notify("READY=1");
        for signal in signals.forever() {
            match signal {
                SIGHUP => stack::erased(|| reload_own(service, batch)),
                _ => break,
            }
        }
        stop.store(true, Ordering::Release);
        servers.iter().for_each(|server| server::wake(server.path()));
        exporter.iter().for_each(|exporter| exporter.wake());
        service.0.stop();
    });
    Ok(())
}

/// What the host changed, and what time brings.
fn upkeep(service: &Service, mut events: Events) {
    service.0.upkeep(|| match events.drain() {
        Ok(changes) => changes.any(),
        Err(error) => {
            tracing::warn!(%error, "cannot follow the host's routes");
            false
        }
    });
}

/// What routers report of the paths.
fn listen(service: &Service) {
    while !service.0.stopped() {
        if let Err(error) = service.2.wait(Duration::from_millis(200)) {
            tracing::warn!(%error, "cannot wait for reports of path MTUs");
        }
        service.hear();
    }
}

fn reload_own(service: &Service, batch: Option<&Path>) {
    let Some(file) = batch else {
        tracing::warn!("SIGHUP: started without --batch, nothing to reload");
        return;
    };
    notify("RELOADING=1");
    match read(file) {
        Ok(text) => {
            let done = service.reload(&text, &file.display().to_string());
            done.errors.iter().for_each(|e| tracing::error!("{e}"));
            tracing::info!(changes = done.changes, "reloaded");
        }
        Err(error) => tracing::error!("{error:#}"),
    }
    notify("READY=1");
}

/// `uvti reload FILE`.
pub(crate) fn reload(file: &Path, control: Option<&Path>) -> anyhow::Result<ExitCode> {
    let text = read(file)?;
    let mut client = Client::connect(control, &Namespace::Own)?;
    let request = Request::Reload { text, file: file.display().to_string() };
    let Response::Reloaded(done) = client.ask(&request)? else { bail!("unexpected answer") };
    if !done.errors.is_empty() {
        done.errors.iter().for_each(|e| eprintln!("{e}"));
        return Ok(ExitCode::from(1));
    }
    println!("{} changes", done.changes);
    Ok(ExitCode::SUCCESS)
}
