//! strongSwan's IKE daemon in a namespace, with its own ESP in userspace (kernel-libipsec).

use crate::netns::Namespace;
use crate::wait;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The programs and plugins that must be there.
const PARTS: [&str; 4] = [
    "/usr/sbin/charon-systemd",
    "/usr/sbin/swanctl",
    "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so",
    "/usr/lib/ipsec/plugins/libstrongswan-openssl.so",
];

/// What of it the machine lacks.
pub fn missing() -> Option<String> {
    let gone: Vec<_> = PARTS.iter().filter(|part| !Path::new(part).exists()).collect();
    (!gone.is_empty()).then(|| {
        format!("install charon-systemd, strongswan-swanctl, libcharon-extra-plugins, libstrongswan-standard-plugins: no {gone:?}")
    })
}

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Outer address.
    pub outer: Ipv4Addr,
    /// The net behind it.
    pub net: &'static str,
}

/// A running daemon. It is killed when this goes.
#[derive(Debug)]
pub struct Daemon {
    namespace: Namespace,
    folder: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts one in `folder`, which is new, with a connection from `own` to `other` whose SAs have these algorithms.
    pub fn start(
        namespace: &Namespace,
        folder: &Path,
        [own, other]: [Side; 2],
        algorithms: &str,
    ) -> Result<Daemon> {
        fs::create_dir_all(folder)?;
        let name = folder.to_str().context("the folder's name is not text")?;
        let socket = format!("plugins {{ vici {{ socket = unix://{name}/vici\n }} }}");
        fs::write(
            folder.join("strongswan.conf"),
            format!(
                "charon-systemd {{\n load = random nonce aes sha1 sha2 hmac kdf gcm openssl socket-default vici \
                 kernel-libipsec kernel-netlink\n filelog {{ log {{ path = {name}/log\n default = 1\n chd = 4\n \
                 ike_name = yes\n flush_line = yes\n }} }}\n journal {{ default = -1\n }}\n {socket}\n}}\n\
                 swanctl {{\n {socket}\n}}\n"
            ),
        )?;
        let connection = format!(
            "connections {{ t {{ version = 2\n local_addrs = {0}\n remote_addrs = {1}\n \
             proposals = aes128-sha256-ecp256\n local {{ auth = psk\n id = {0}\n }}\n remote {{ auth = psk\n id = {1}\n }}\n \
             children {{ c {{ local_ts = {2}\n remote_ts = {3}\n esp_proposals = {algorithms}\n }} }} }} }}\n\
             secrets {{ ike-1 {{ secret = for a test alone\n }} }}\n",
            own.outer, other.outer, own.net, other.net
        );
        fs::write(folder.join("swanctl.conf"), connection)?;
        let child = namespace.run(|| {
            Command::new(PARTS[0])
                .env("STRONGSWAN_CONF", folder.join("strongswan.conf"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start charon-systemd")
        })?;
        let daemon = Daemon { namespace: namespace.clone(), folder: folder.to_owned(), child };
        let ready =
            wait::until(Duration::from_secs(20), || UnixStream::connect(daemon.folder.join("vici")).ok());
        ready.with_context(|| format!("charon does not serve: {}", daemon.log()))?;
        let file = folder.join("swanctl.conf");
        daemon.swanctl(&["--load-all", "--file", file.to_str().unwrap_or_default()])?;
        Ok(daemon)
    }

    /// Negotiates the connection.
    pub fn initiate(&self) -> Result<()> {
        self.swanctl(&["--initiate", "--child", "c", "--timeout", "20"])
    }

    /// Negotiates its ESP SAs anew.
    pub fn rekey(&self) -> Result<()> {
        let established = || self.log().matches("outbound CHILD_SA").count();
        let before = established();
        self.swanctl(&["--rekey", "--child", "c"])?;
        let done = wait::until(Duration::from_secs(20), || (established() > before).then_some(()));
        done.with_context(|| format!("no rekey: {}", self.log()))
    }

    /// Where its log is.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn swanctl(&self, words: &[&str]) -> Result<()> {
        let output = self.namespace.run(|| {
            Ok(Command::new(PARTS[1])
                .env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"))
                .args(words)
                .args(["--uri", &format!("unix://{}/vici", self.folder.display())])
                .stdin(Stdio::null())
                .output()?)
        })?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "swanctl {words:?}: {}\n{said}\n{}", output.status, self.log());
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
