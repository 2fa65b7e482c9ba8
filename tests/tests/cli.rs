//! `uvti run` as a user meets it: start, wrong files, a second one, reload, stop, a crash and the take-over.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const LINK: &str = "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1";
const STATE: &str = "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 reqid 1 mode tunnel \
                     aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128";
const POLICY: &str =
    "xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel";

/// A namespace with one leg to nowhere, and a folder for files.
struct Lab {
    namespace: Namespace,
    folder: PathBuf,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        if !have(test, Need::Netns) {
            return None;
        }
        let namespace = Namespace::new().unwrap();
        let lines = [
            "link set lo up",
            "link add w0 type veth peer name w1",
            "link set w1 up",
            "link set w0 up",
            "addr add 198.51.100.1/24 dev w0",
        ];
        namespace.ip(&lines).unwrap();
        let folder = std::env::temp_dir().join(format!("uvti-cli-{}-{test}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Some(Self { namespace, folder })
    }

    fn file(&self, lines: &[&str]) -> String {
        let path = self.folder.join("batch");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs the program in the namespace until it ends.
    fn uvti(&self, args: &[&str]) -> Said {
        let output = self.namespace.run(|| Ok(Command::new(UVTI).args(args).output()?)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Starts a dataplane and waits until it is ready.
    fn start(&self, args: &[&str]) -> Dataplane {
        self.start_as(Command::new(UVTI), args)
    }

    fn start_as(&self, mut program: Command, args: &[&str]) -> Dataplane {
        program.arg("run").args(args).stdout(Stdio::piped());
        let spawn = || Ok(program.spawn()?);
        let mut child = self.namespace.run(spawn).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Dataplane(child)
    }

    fn has_device(&self, name: &str) -> bool {
        self.namespace.command(Path::new("ip"), &["link", "show", "dev", name], "").is_ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Dataplane(Child);

impl Dataplane {
    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// Ends it as a service manager would; returns whether it ended well.
    fn stop(mut self) -> bool {
        self.signal(rustix::process::Signal::TERM);
        self.0.wait().unwrap().success()
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_wrong_line_and_nothing_is_applied() {
    let Some(lab) = Lab::new("one_wrong_line_and_nothing_is_applied") else { return };
    let file = lab.file(&[
        LINK,
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp mode tunnel spi 0x1",
        POLICY,
    ]);
    let said = lab.uvti(&["run", "--batch", &file]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.contains(&format!("{file}:2:72: Error: argument \"spi\" is wrong: unknown")),
        "{}",
        said.err
    );
    assert!(!lab.has_device("vti0"));
    // What only shows when it is done is taken back as well.
    let file = lab.file(&[LINK, STATE, STATE]);
    let said = lab.uvti(&["run", "--batch", &file]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains(&format!("{file}:3:1: RTNETLINK answers: File exists")), "{}", said.err);
    assert!(!lab.has_device("vti0"));
}

#[test]
fn what_is_in_the_way_is_named() {
    let Some(lab) = Lab::new("what_is_in_the_way_is_named") else { return };
    let nobody = lab.uvti(&["stat"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("start `uvti run`"), "{}", nobody.err);
    lab.namespace.ip(&["link add vti0 type veth peer name other"]).unwrap();
    let said = lab.uvti(&["run", "--batch", &lab.file(&[LINK])]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("RTNETLINK answers: File exists"), "{}", said.err);
    lab.namespace.ip(&["link del vti0"]).unwrap();
    let _running = lab.start(&[]);
    let second = lab.uvti(&["run"]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains("is served by a running uvti"), "{}", second.err);
}

#[test]
fn a_reload_changes_what_differs_and_keeps_the_rest() {
    let Some(lab) = Lab::new("a_reload_changes_what_differs_and_keeps_the_rest") else { return };
    let up = ["addr add 10.9.0.1/24 dev vti0", "link set vti0 up"];
    let file = lab.file(&[&[LINK, STATE, POLICY][..], &up].concat());
    let running = lab.start(&["--workers", "2", "--batch", &file]);
    let probe = || {
        let send = || {
            let socket = std::net::UdpSocket::bind("10.9.0.1:0")?;
            socket.send_to(b"probe", "10.9.0.2:9")?;
            Ok(())
        };
        lab.namespace.run(send).unwrap();
    };
    let sent = |number: &str| {
        let seen = || lab.uvti(&["ip", "xfrm", "state"]).out.contains(number).then_some(());
        uvti_tests::wait::until(std::time::Duration::from_secs(10), seen).is_some()
    };
    probe();
    assert!(sent("oseq 0x1,"));
    // Another key of the device, and an SA more; the first SA and its numbers stay.
    let other = STATE.replace("0x100", "0x101");
    let policy = POLICY.replace("mark 1", "mark 2");
    let link = LINK.replace("key 1", "key 2");
    let file = lab.file(&[&[link.as_str(), STATE, &other, &policy][..], &up].concat());
    let said = lab.uvti(&["reload", &file]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(lab.uvti(&["reload", &file]).out, "0 changes\n");
    let states = lab.uvti(&["ip", "xfrm", "state"]).out;
    assert!(states.contains("spi 0x00000101") && states.contains("oseq 0x1,"), "{states}");
    assert!(lab.uvti(&["ip", "-d", "link", "show", "dev", "vti0"]).out.contains("okey 0.0.0.2"));
    // By the newer of the two SAs that fit.
    probe();
    assert!(sent(
        "spi 0x00000101 reqid 1 mode tunnel\n\treplay-window 0 \n\taead rfc4106(gcm(aes)) \
                  0x0102030405060708090a0b0c0d0e0f1011121314 128\n\tanti-replay context: seq 0x0, oseq 0x1,"
    ));
    assert_eq!(lab.uvti(&["check"]).code, 0);
    // A wrong file changes nothing.
    let said = lab.uvti(&["reload", &lab.file(&[LINK, "xfrm policy add dir sideways"])]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains(":2:21: "), "{}", said.err);
    assert_eq!(lab.uvti(&["ip", "xfrm", "state", "count"]).out, "\t SAD count 2\n");
    assert!(running.stop());
    assert!(!lab.has_device("vti0"));
}

#[test]
fn a_crash_leaves_the_device_and_the_next_one_takes_it_over() {
    let Some(lab) = Lab::new("a_crash_leaves_the_device_and_the_next_one_takes_it_over") else { return };
    let file = lab.file(&[LINK, STATE, POLICY]);
    let running = lab.start(&["--batch", &file]);
    lab.namespace
        .ip(&["addr add 10.9.0.1/24 dev vti0", "link set vti0 up", "route add 10.2.0.0/16 dev vti0"])
        .unwrap();
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    let routes = || lab.namespace.command(Path::new("ip"), &["route", "show", "10.2.0.0/16"], "").unwrap();
    assert!(routes().contains("dev vti0"), "inner packets must not take another way: {}", routes());
    let again = lab.start(&["--keep-devices", "--batch", &file]);
    assert!(routes().contains("dev vti0"));
    assert!(lab.uvti(&["ip", "link", "show", "dev", "vti0"]).out.contains("<POINTOPOINT,NOARP,UP,LOWER_UP>"));
    assert!(again.stop());
    assert!(routes().contains("dev vti0"), "--keep-devices");
}

#[test]
fn drops_stand_at_their_sa_and_policy_also_when_these_are_gone() {
    let Some(lab) = Lab::new("drops_stand_at_their_sa_and_policy_also_when_these_are_gone") else { return };
    let once = format!("{STATE} limit packet-hard 1");
    let file = lab.file(&[LINK, &once, POLICY, "addr add 10.9.0.1/24 dev vti0", "link set vti0 up"]);
    let running = lab.start(&["--workers", "2", "--batch", &file]);
    let wait = |what: &str, view: &[&str], text: &str| {
        let seen = || lab.uvti(view).out.contains(text).then_some(());
        uvti_tests::wait::until(std::time::Duration::from_secs(10), seen)
            .unwrap_or_else(|| panic!("{what}: {}", lab.uvti(view).out));
    };
    let probe = || {
        let send = || Ok(std::net::UdpSocket::bind("10.9.0.1:0")?.send_to(b"probe", "10.9.0.2:9")?);
        lab.namespace.run(send).unwrap();
    };
    // One passes, one finds the SA at its limit, one finds none.
    probe();
    probe();
    wait("expired", &["ip", "xfrm", "state", "count"], "SAD count 0");
    probe();
    wait("dropped", &["stat", "--by", "reason"], "tx_no_sa");
    let views = ["reason", "sa", "policy", "device", "worker"].map(|by| {
        let said = lab.uvti(&["stat", "--by", by]);
        assert!(said.out.ends_with("\n       2  in all\n"), "{by}: {}", said.out);
        let words: Vec<&str> = said.out.split_whitespace().collect();
        words.join(" ")
    });
    let [_, sa, policy, device, _] = views;
    assert!(sa.contains("1 198.51.100.2 spi 0x00000100 reqid 1 (deleted) - tx_sa_expired 1"), "{sa}");
    assert!(sa.contains("1 no SA - tx_no_sa 1"), "{sa}");
    let selector = "dir out prio 0 src 0.0.0.0/0 dst 0.0.0.0/0 mark 0x1";
    assert!(policy.contains(&format!("{selector} tx_no_sa 1, tx_sa_expired 1")), "{policy}");
    assert!(device.contains("2 vti0 tx_no_sa 1, tx_sa_expired 1"), "{device}");
    let json: serde_json::Value = serde_json::from_str(&lab.uvti(&["stat", "--by", "sa", "-j"]).out).unwrap();
    assert_eq!(json["total"], 2);
    let queues = lab.uvti(&["stat", "--queues"]).out;
    assert!(queues.contains(" vti0 from the host  "), "{queues}");
    assert!(running.stop());
}

#[test]
fn check_names_the_place_of_a_planted_loss() {
    let Some(lab) = Lab::new("check_names_the_place_of_a_planted_loss") else { return };
    // SAs enough that some live on the worker that does not read the device.
    let mut lines = vec![LINK.to_owned()];
    for i in 0..4 {
        lines.push(
            STATE.replace("0x100", &format!("0x100{i}")).replace("reqid 1", &format!("reqid {}", i + 1)),
        );
        let reqid = format!("reqid {}", i + 1);
        lines.push(
            POLICY.replace("add dir", &format!("add dst 10.2.{i}.0/24 dir")).replace("reqid 1", &reqid),
        );
    }
    lines.extend(
        ["addr add 10.9.0.1/24 dev vti0", "link set vti0 up", "route add 10.2.0.0/16 dev vti0"]
            .map(String::from),
    );
    let file = lab.file(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let cases = [
        ("", "every packet is accounted for"),
        ("lose-after-decision", "vti0 tx worker"),
        ("skip-a-segment", "vti0 tx worker 0: 1 packets unaccounted for"),
        ("count-twice", "vti0 tx worker"),
        ("lose-a-hop", "hops tx: 1 packets unaccounted for"),
    ];
    for (mutant, names) in cases {
        let mut program = Command::new(env!("CARGO_BIN_EXE_uvti-mutant"));
        program.env("UVTI_MUTANT", mutant);
        let running = lab.start_as(program, &["--workers", "2", "--batch", &file]);
        let send = || {
            let socket = std::net::UdpSocket::bind("10.9.0.1:0")?;
            for i in 0..40 {
                // The host may refuse one by an earlier error on the socket; what counts is what reaches the device.
                let _ = socket.send_to(b"probe", format!("10.2.{}.5:9", i % 4));
            }
            Ok(())
        };
        lab.namespace.run(send).unwrap();
        let read = || {
            let said = lab.uvti(&["stat", "-j"]);
            let totals: serde_json::Value = serde_json::from_str(&said.out).ok()?;
            (totals["devices"][0]["stats"]["tx_packets"].as_u64()? >= 38).then_some(())
        };
        uvti_tests::wait::until(std::time::Duration::from_secs(10), read)
            .expect("the packets have been read");
        let said = lab.uvti(&["check"]);
        assert_eq!(said.code, i32::from(!mutant.is_empty()), "{mutant}: {}", said.out);
        assert!(said.out.contains(names), "{mutant}: {}", said.out);
        assert!(running.stop(), "{mutant}");
    }
}

#[test]
fn the_log_is_a_json_object_a_line_where_it_is_asked_for() {
    let Some(lab) = Lab::new("the_log_is_a_json_object_a_line_where_it_is_asked_for") else { return };
    let log = lab.folder.join("log");
    let mut program = Command::new(UVTI);
    program.env_remove("RUST_LOG").stderr(std::fs::File::create(&log).unwrap());
    assert!(lab.start_as(program, &["--log", "json", "--allow-inject"]).stop());
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let warned = |line: &serde_json::Value| {
        let message = line["fields"]["message"].as_str();
        line["level"] == "WARN" && message.is_some_and(|m| m.starts_with("--allow-inject"))
    };
    assert!(lines.iter().any(warned), "{text}");
}
