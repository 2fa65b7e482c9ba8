//! `uvti save` of a running dataplane makes the same one again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

const CONFIG: &str = "\
link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1
tunnel add vti1 mode vti local 198.51.100.1 remote 198.51.100.3 ttl 64 key 2
link set dev vti1 mtu 1300
addr add 10.9.0.1/24 dev vti0
link set vti0 up
xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 mode tunnel reqid 1 flag esn af-unspec \\
    replay-window 64 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128
xfrm state add src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x200 mode tunnel mark 1 limit packet-hard 9 \\
    aead rfc4106(gcm(aes)) 0x2122232425262728292a2b2c2d2e2f3031323334 128 sel src 10.2.0.0/16 dst 10.1.0.0/16
xfrm policy add dir out mark 1 priority 7 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel
xfrm policy add src 10.7.0.0/16 dst 10.8.0.0/16 proto udp dport 53 dir in index 24 action block
xfrm policy setdefault fwd block
";

struct Dataplane(Child);

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a dataplane with `batch` in a namespace of its own for as long as `work` takes.
fn with_dataplane<T>(batch: &str, work: impl FnOnce(&Namespace) -> T) -> T {
    let namespace = Namespace::new().unwrap();
    let lines = [
        "link set lo up",
        "link add w type veth peer name x",
        "link set w up",
        "link set x up",
        "addr add 198.51.100.1/24 dev w",
    ];
    namespace.ip(&lines).unwrap();
    let file = std::env::temp_dir().join(format!("uvti-save-{}", std::process::id()));
    std::fs::write(&file, batch).unwrap();
    let mut program = Command::new(UVTI);
    program.args(["run", "--workers", "1", "--batch"]).arg(&file).stdout(Stdio::piped());
    let mut running = Dataplane(namespace.run(|| Ok(program.spawn()?)).unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _ = std::fs::remove_file(&file);
    assert_eq!(line, "ready\n", "{batch}");
    work(&namespace)
}

fn uvti(namespace: &Namespace, words: &str) -> String {
    namespace.command(Path::new(UVTI), &words.split(' ').collect::<Vec<_>>(), "").unwrap()
}

#[test]
fn what_is_saved_makes_the_same_dataplane_again() {
    if !have("what_is_saved_makes_the_same_dataplane_again", Need::Netns) {
        return;
    }
    let shown = |namespace: &Namespace| {
        ["ip xfrm state", "ip xfrm policy", "ip xfrm policy getdefault", "ip tunnel show"]
            .map(|words| uvti(namespace, words))
    };
    let (saved, before) = with_dataplane(CONFIG, |namespace| {
        let send = || Ok(std::net::UdpSocket::bind("10.9.0.1:0")?.send_to(b"x", "10.9.0.2:9")?);
        namespace.run(send).unwrap();
        let sent = || uvti(namespace, "ip xfrm state").contains("oseq 0x1\n").then_some(());
        uvti_tests::wait::until(std::time::Duration::from_secs(10), sent).expect("the packet is sent");
        (uvti(namespace, "save"), shown(namespace))
    });
    assert!(saved.contains("replay-oseq 1 "), "{saved}");
    assert!(
        saved.contains(
            "tunnel add vti1 mode vti local 198.51.100.1 remote 198.51.100.3 ikey 2 okey 2 ttl 64\n"
        )
    );
    assert!(saved.contains("link set dev vti1 mtu 1300\n"), "{saved}");
    let (again, after) = with_dataplane(&saved, |namespace| (uvti(namespace, "save"), shown(namespace)));
    assert_eq!(again, saved);
    assert_eq!(after, before);
}
