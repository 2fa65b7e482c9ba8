//! Process 1 of a User-Mode Linux guest: sets it up, lets it do its work, switches it off. The host's side is
//! [`crate::uml`].

use crate::uml::{END, OUTPUT, RESULTS};
use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's package user-mode-linux keeps its modules.
const MODULES: &str = "/usr/lib/uml/modules";

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
    "authencesn",
    "cbc",
    "ecb",
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
    "ah4",
    "sch_tbf",
    "sch_netem",
    "drbg",
    "jitterentropy_rng",
];

/// Where one may write: a tmpfs, as nothing else in the guest can be written.
pub(crate) const SCRATCH: &str = "/run";

/// Where the results of a guest go, each as soon as it is known.
#[derive(Debug)]
pub struct Results {
    file: File,
}

impl Results {
    /// Writes one result, a line.
    pub fn push(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.file, "{line}")?)
    }
}

/// Sets the guest up, does `work` in it, and switches it off. An error shows on the guest's console, and by the
/// missing end of the results.
pub fn serve(work: impl FnOnce(&mut Results) -> Result<()> + Send) {
    if let Err(error) = try_serve(work) {
        println!("uvti: {error:#}");
    }
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    println!("uvti: cannot switch the guest off: {error:?}");
}

fn try_serve(work: impl FnOnce(&mut Results) -> Result<()> + Send) -> Result<()> {
    ensure!(std::process::id() == 1, "not process 1 of a guest");
    mount_all()?;
    load_modules()?;
    // Scenarios provoke ICMP errors by the dozen; the limits on them are not what is tested.
    for name in ["icmp_msgs_per_sec", "icmp_msgs_burst"] {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), "100000")?;
    }
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1")?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    let mut results = Results { file: File::create(output().join(RESULTS))? };
    // A panic of the work must not be a panic of the kernel.
    let done = std::thread::scope(|scope| {
        let results = &mut results;
        scope.spawn(move || work(results)).join().unwrap_or_else(|_| bail!("the guest's work panicked"))
    });
    done.and_then(|()| results.push(END))
}

/// The host's folder of this guest.
pub(crate) fn output() -> PathBuf {
    Path::new(SCRATCH).join("out")
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
    fs::create_dir(output())?;
    let host_folder = std::env::var(OUTPUT).with_context(|| format!("{OUTPUT} is not set"))?;
    mount_one("none", &output().display().to_string(), "hostfs", &host_folder)
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
    // A kernel may have some of them built in: what is really missing shows later.
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
