//! Process 1 of a guest.

use crate::gateway::Engine;
use crate::outcome::Outcome;
use crate::uml::{END, MODULES, RESULTS};
use crate::{drops, interop, order};
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules a VTI between two namespaces needs, uvti's TUN among them.
const NEEDED: &[&str] = &[
    "af_packet",
    "xfrm_user",
    "esp4",
    "ip_vti",
    "veth",
    "tun",
    "gcm",
    "ctr",
    "seqiv",
    "ghash-generic",
    "authenc",
    "cbc",
    "echainiv",
    "hmac",
    "sha512_generic",
    "chacha20poly1305",
    "chacha_generic",
    "poly1305_generic",
    "xfrm4_tunnel",
    "ipv6",
    "esp6",
    "ip6_vti",
    "drbg",
    "jitterentropy_rng",
];

/// Where a case may write. A tmpfs, as nothing else in the guest can be written.
pub const SCRATCH: &str = "/run";

/// What a group's cases get to know of their surroundings.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program under test.
    pub uvti: PathBuf,
    /// Run only the cases whose name contains this.
    pub only: String,
}

impl Setup {
    /// Whether the case is to be run.
    pub fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }
}

/// Sets the guest up, runs the group it was booted for, and switches it off.
pub fn main() {
    if std::process::id() != 1 {
        eprintln!("uvti-guest is process 1 of the guests that the tests boot; run `tests/run`");
        std::process::exit(2);
    }
    if let Err(error) = serve() {
        println!("uvti-guest: {error:#}");
    }
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    println!("uvti-guest: cannot switch off: {error:?}");
}

fn serve() -> Result<()> {
    mount_all()?;
    load_modules()?;
    // Scenarios provoke ICMP errors by the dozen; the limits on them are not what is tested.
    for name in ["icmp_msgs_per_sec", "icmp_msgs_burst"] {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), "100000")?;
    }
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;

    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let setup = Setup {
        uvti: PathBuf::from(variable("UVTI_PROGRAM")?),
        only: std::env::var("UVTI_ONLY").unwrap_or_default(),
    };
    let mut results = Results { file: File::create(Path::new(SCRATCH).join("out").join(RESULTS))? };
    let group = variable("UVTI_GROUP")?;
    // A panic of a case must not be a panic of the kernel.
    let ran = std::thread::scope(|scope| {
        scope
            .spawn(|| run_group(&group, &setup, &mut results))
            .join()
            .unwrap_or_else(|_| bail!("the group panicked"))
    });
    ran.and_then(|()| Ok(writeln!(results.file, "{END}")?))
}

fn run_group(group: &str, setup: &Setup, results: &mut Results) -> Result<()> {
    match group {
        "interop-kernel" => interop::kernel_with_kernel(setup, results),
        "interop-uvti" => interop::kernel_with_uvti(setup, results),
        "order-kernel" => order::run(setup, results, &[Engine::Kernel]),
        "order-uvti" => {
            order::run(setup, results, &[Engine::Uvti { program: setup.uvti.clone(), workers: 2 }])
        }
        "drops-kernel" => drops::kernel(setup, results),
        "drops-uvti" => drops::kernel_and_uvti(setup, results),
        "views" => drops::views::run(setup, results),
        unknown => bail!("there is no group {unknown}"),
    }
}

/// Where outcomes go, each as soon as it is known.
#[derive(Debug)]
pub struct Results {
    file: File,
}

impl Results {
    /// Writes one outcome.
    pub fn push(&mut self, outcome: &Outcome) -> Result<()> {
        println!("{} {} ms {} {:?}", outcome.case, outcome.millis, outcome.seen, outcome.failures);
        Ok(writeln!(self.file, "{}", serde_json::to_string(outcome)?)?)
    }
}

fn mount_all() -> Result<()> {
    mount_one("proc", "/proc", "proc", "")?;
    mount_one("sysfs", "/sys", "sysfs", "")?;
    mount_one("tmpfs", SCRATCH, "tmpfs", "")?;
    // A kernel may have mounted it itself; the host's /dev may lack the TUN, or show it to root only.
    let mounted = fs::read_to_string("/proc/mounts")?;
    if !mounted.lines().any(|line| line.split(' ').nth(1) == Some("/dev")) {
        mount_one("devtmpfs", "/dev", "devtmpfs", "")?;
    }
    let output = Path::new(SCRATCH).join("out");
    fs::create_dir(&output)?;
    let host_folder = std::env::var("UVTI_OUTPUT").context("UVTI_OUTPUT is not set")?;
    mount_one("none", &output.display().to_string(), "hostfs", &host_folder)
}

fn mount_one(source: &str, target: &str, kind: &str, data: &str) -> Result<()> {
    let data = CString::new(data)?;
    mount(source, target, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("cannot mount {kind} on {target}"))
}

/// Loads the modules from where Debian keeps them, and makes the TUN's device node.
fn load_modules() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let root = Path::new(SCRATCH).join("modules");
    let folder = root.join("lib/modules");
    fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(Path::new(MODULES).join(release.trim()), folder.join(release.trim()))?;
    // What the kernel finds missing later (algorithms, mostly) it loads by this program.
    let loader = Path::new(SCRATCH).join("modprobe");
    fs::write(&loader, format!("#!/bin/sh\nexec /sbin/modprobe -d {} \"$@\"\n", root.display()))?;
    fs::set_permissions(&loader, fs::Permissions::from_mode(0o755))?;
    fs::write("/proc/sys/kernel/modprobe", loader.display().to_string())?;
    let output = Command::new("modprobe").arg("-d").arg(&root).arg("-a").args(NEEDED).output();
    let output = output.context("cannot run modprobe")?;
    // A kernel may have some of them built in: what is really missing shows in the cases.
    print!("{}", String::from_utf8_lossy(&output.stderr));
    if !Path::new("/dev/net/tun").exists() {
        fs::create_dir_all("/dev/net")?;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let device = rustix::fs::makedev(10, 200);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, "/dev/net/tun", kind, mode, device)
            .context("no /dev/net/tun")?;
    }
    Ok(())
}
