//! Where keys are and where they are not, and what `uvti run` may still do once it has started.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::wait::until;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const LIMIT: Duration = Duration::from_secs(20);

/// A namespace with a leg to nowhere, a folder, and a dataplane whose log is in it.
struct Lab {
    namespace: Namespace,
    folder: PathBuf,
    uvti: Child,
}

impl Lab {
    fn start(test: &str, command: impl FnOnce(&Path) -> Command) -> Option<Lab> {
        if !have(test, Need::Netns) {
            return None;
        }
        let namespace = Namespace::new().unwrap();
        namespace.ip(&["link set lo up", "link add w0 type veth peer name w1"]).unwrap();
        namespace.ip(&["link set w1 up", "link set w0 up", "addr add 198.51.100.1/24 dev w0"]).unwrap();
        namespace.ip(&["neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev w0"]).unwrap();
        let folder = std::env::temp_dir().join(format!("uvti-{test}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = command(&folder);
        command.current_dir(&folder).stdout(Stdio::piped()).stderr(log);
        let mut uvti = namespace.run(|| Ok(command.spawn()?)).unwrap();
        let mut line = String::new();
        BufReader::new(uvti.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let lab = Lab { namespace, folder, uvti };
        assert_eq!(line, "ready\n", "{}", lab.log());
        Some(lab)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    fn ask(&self, command: &mut Command) -> Output {
        self.namespace.run(|| Ok(command.output()?)).unwrap()
    }

    /// Runs a line of `uvti`, which must succeed.
    fn uvti(&self, line: &str) -> String {
        let output = self.ask(Command::new(UVTI).args(line.split_whitespace()));
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How often `needle` is in what the dataplane's memory has that can be written.
    fn in_memory(&self, needle: &[u8]) -> usize {
        let pid = self.uvti.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let mut bytes = vec![0; (address(end) - address(start)) as usize];
            memory.seek(SeekFrom::Start(address(start))).unwrap();
            if memory.read_exact(&mut bytes).is_ok() {
                found += memchr::memmem::find_iter(&bytes, needle).count();
            }
        }
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.uvti.kill();
        let _ = self.uvti.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn plain(_: &Path) -> Command {
    let mut command = Command::new(UVTI);
    // With a flag that is worth a line in the log.
    command.args(["run", "--workers", "2", "--allow-inject"]).env("RUST_LOG", "trace");
    command
}

/// Sixteen bytes and the salt, in the forms in which a key may be met: bytes, a command's digits, a message's numbers.
struct Secret([u8; 20]);

impl Secret {
    fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn forms(&self) -> [Vec<u8>; 3] {
        let numbers: Vec<String> = self.0[..16].iter().map(u8::to_string).collect();
        [self.0[..16].to_vec(), self.hex().as_bytes()[..32].to_vec(), numbers.join(",").into_bytes()]
    }
}

#[test]
fn a_deleted_key_is_nowhere_in_memory_and_no_key_is_ever_in_the_log() {
    let test = "a_deleted_key_is_nowhere_in_memory_and_no_key_is_ever_in_the_log";
    let Some(lab) = Lab::start(test, plain) else { return };
    let secrets = [3u8, 5, 7]
        .map(|step| Secret(std::array::from_fn(|i| 0x91u8.wrapping_add((i as u8).wrapping_mul(step * 17)))));
    lab.uvti("ip link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1");
    lab.uvti("ip addr add 10.9.0.1/24 dev vti0");
    lab.uvti("ip link set vti0 up");
    lab.uvti(
        "ip xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp mode tunnel",
    );
    let algorithms = [
        |s: &Secret| format!("aead rfc4106(gcm(aes)) 0x{} 128", s.hex()),
        |s: &Secret| format!("enc cbc(aes) 0x{} auth hmac(sha256) 0x{}", &s.hex()[..32], s.hex()),
        |s: &Secret| format!("enc rfc3686(ctr(aes)) 0x{} auth hmac(sha1) 0x{}", s.hex(), s.hex()),
    ];
    let id = "src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100";
    let socket = lab.namespace.run(|| Ok(UdpSocket::bind("10.9.0.1:0")?)).unwrap();
    for (number, (secret, algorithm)) in secrets.iter().zip(algorithms).enumerate() {
        lab.uvti(&format!("ip xfrm state add {id} mode tunnel {}", algorithm(secret)));
        let sent = || {
            let _ = socket.send_to(b"x", "10.9.0.2:9");
            let state = lab.uvti("ip -s xfrm state list nokeys");
            (!state.contains(" 0(packets)")).then_some(())
        };
        assert!(until(LIMIT, sent).is_some(), "{number}: {}\n{}", lab.uvti("stat"), lab.log());
        assert!(lab.uvti("ip xfrm state").contains(&secret.hex()[..32]));
        assert!(lab.in_memory(&secret.forms()[0]) > 0, "{number}: the test looks where keys are");
        // Wrong ones, for the complaints.
        for wrong in [
            format!("ip xfrm state add {id} mode tunnel {}", algorithm(secret)),
            format!("ip xfrm state add {id} mode tunnel aead rfc4106(gcm(aes)) 0x{} 77", secret.hex()),
            format!("ip xfrm state add {id} mode tunnel enc bogus 0x{}", secret.hex()),
        ] {
            assert!(!lab.ask(Command::new(UVTI).args(wrong.split_whitespace())).status.success());
        }
        lab.uvti(&format!("ip xfrm state delete {id}"));
        // The workers let go of the old tables with their next burst.
        let gone = || {
            let _ = socket.send_to(b"x", "10.9.0.2:9");
            let left = secret.forms().map(|form| lab.in_memory(&form));
            (left == [0; 3]).then_some(())
        };
        let left = secret.forms().map(|form| lab.in_memory(&form));
        assert!(until(LIMIT, gone).is_some(), "{number}: {left:?} copies are left");
    }
    let log = lab.log();
    assert!(log.contains("--allow-inject"), "the log is on: {log}");
    for form in secrets.iter().flat_map(Secret::forms) {
        assert!(memchr::memmem::find(log.as_bytes(), &form).is_none(), "{log}");
    }
}

#[test]
fn there_is_no_core_dump() {
    let Some(lab) = Lab::start("there_is_no_core_dump", plain) else { return };
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", lab.uvti.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // A pipe in core_pattern does not heed the limit: the process is not dumpable either, and so its memory is closed to
    // those who have its user and its rights.
    let like_uvti = |program: &str, argument: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-all,+net_admin,+net_raw,+net_bind_service"]);
        command.args([program, argument]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let maps = |pid: u32| like_uvti("cat", &format!("/proc/{pid}/maps")).output().unwrap().status.success();
    let mut other = like_uvti("sleep", "1000").spawn().unwrap();
    let readable = until(LIMIT, || maps(other.id()).then_some(()));
    let _ = (other.kill(), other.wait());
    assert!(readable.is_some(), "of another process it can be read");
    assert!(!maps(lab.uvti.id()));
}

#[test]
fn a_started_dataplane_has_the_rights_that_it_needs_and_no_others() {
    let test = "a_started_dataplane_has_the_rights_that_it_needs_and_no_others";
    let Some(lab) = Lab::start(test, plain) else { return };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", lab.uvti.id())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        let bits = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW.
        assert_eq!(
            (bits("CapPrm"), bits("CapEff")),
            (1 << 10 | 1 << 12 | 1 << 13, bits("CapPrm")),
            "{status}"
        );
        assert_eq!((bits("CapInh"), bits("CapAmb"), field("NoNewPrivs").as_str()), (0, 0, "1"), "{status}");
        threads += 1;
    }
    assert!(threads > 4, "workers, upkeep, sockets: {threads}");
    // And what it needs it can: devices, sockets of low ports, sysctls.
    lab.uvti("ip link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1");
    lab.uvti(
        "ip xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 1 mode tunnel encap espinudp 500 500 0.0.0.0 \
         aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128",
    );
    lab.uvti("sysctl net.core.xfrm_larval_drop=0");
    assert_eq!(lab.uvti("sysctl -n net.core.xfrm_larval_drop"), "0\n");
    lab.uvti("ip link del vti0");
}

#[test]
fn the_group_may_look_on_without_keys_and_change_nothing() {
    // With an /etc/group of its own, in which the group exists.
    const GID: u32 = 54321;
    let command = |folder: &Path| {
        std::fs::write(folder.join("group"), format!("root:x:0:\nuvti:x:{GID}:\n")).unwrap();
        std::fs::copy(UVTI, folder.join("uvti")).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount --bind group /etc/group && exec \"$0\" --control run/u.sock run";
        command.args(["--mount", "sh", "-c", script, UVTI]);
        command
    };
    let Some(lab) = Lab::start("the_group_may_look_on_without_keys_and_change_nothing", command) else {
        return;
    };
    let control = lab.folder.join("run/u.sock");
    let watched = lab.folder.join("run/u.ro.sock");
    let mode = |path: &Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.permissions().mode() & 0o777, meta.gid())
    };
    assert_eq!(mode(&control), (0o600, mode(&control).1));
    assert_eq!(mode(&watched), (0o660, GID));
    let run = |gid: Option<u32>, words: &str| {
        let mut command = Command::new(lab.folder.join("uvti"));
        command.arg("--control").arg(&control).args(words.split_whitespace());
        if let Some(gid) = gid {
            command.uid(54322).gid(gid);
        }
        let output = lab.ask(&mut command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let key = "000102030405060708090a0b0c0d0e0f10111213";
    let state = format!(
        "ip xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 1 mode tunnel aead rfc4106(gcm(aes)) 0x{key} 128"
    );
    assert_eq!(run(None, &state), (true, String::new()));

    let (fine, said) = run(Some(GID), "ip xfrm state");
    assert!(fine && said.contains("aead rfc4106(gcm(aes)) <<Keys hidden>> 128"), "{said}");
    for question in ["stat", "check", "xfrm_stat", "stat --by sa", "drops", "ip xfrm policy", "mtu"] {
        let (fine, said) = run(Some(GID), question);
        assert!(fine, "{question}: {said}");
    }
    let changes = [
        "ip xfrm state flush",
        "ip xfrm policy flush",
        "ip link add vti0 type vti local 198.51.100.1 remote 198.51.100.2",
        "sysctl net.core.xfrm_larval_drop=0",
        "ip xfrm monitor acquire",
    ];
    for change in changes {
        let (fine, said) = run(Some(GID), change);
        assert!(!fine && said.contains("refused: this is the read-only control socket"), "{change}: {said}");
    }
    let (fine, said) = run(Some(GID), &format!("reload {}", lab.folder.join("group").display()));
    assert!(!fine && said.contains("`reload`: refused"), "{said}");
    let (fine, said) = run(Some(GID), "save");
    assert!(!fine && said.contains("tells no keys"), "{said}");
    // Others do not even look.
    let (fine, said) = run(Some(54323), "stat");
    assert!(!fine && said.contains("permission denied"), "{said}");
    assert!(run(None, "ip xfrm state").1.contains(key), "nothing was changed");
}
