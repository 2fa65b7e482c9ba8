//! `uvti expect`: what a command adds to the counters of a device of uvti's and of the kernel's.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

/// A namespace with a leg to a neighbour that takes what it gets.
fn namespace() -> Namespace {
    let namespace = Namespace::new().unwrap();
    for scope in ["all", "default"] {
        // Where there is no IPv6 there is nothing to keep quiet.
        let _ = namespace.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    let lines = [
        "link set lo up",
        "link add w0 type veth peer name w1",
        "link set w1 up",
        "link set w0 up",
        "addr add 198.51.100.1/24 dev w0",
        "neigh replace 198.51.100.2 lladdr 02:00:00:00:01:01 dev w0 nud permanent",
    ];
    namespace.ip(&lines).unwrap();
    namespace
}

/// A dataplane whose vti0 has a policy and no SA.
fn dataplane(namespace: &Namespace) -> Dataplane {
    let spawn = || Ok(Command::new(UVTI).args(["run", "--workers", "1"]).stdout(Stdio::piped()).spawn()?);
    let mut child = namespace.run(spawn).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    for line in [
        "link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1",
        "xfrm policy add dir out mark 1 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel",
        "addr add 10.9.0.1/24 dev vti0",
        "link set vti0 up",
        "route add 10.2.0.0/16 dev vti0",
    ] {
        let words: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
        namespace.command(Path::new(UVTI), &words, "").unwrap();
    }
    Dataplane(child)
}

struct Dataplane(Child);

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `uvti expect ARGS -- COMMAND`: exit status and output.
fn expect(namespace: &Namespace, args: &[&str], command: &str) -> (i32, String) {
    let run =
        || Ok(Command::new(UVTI).arg("expect").args(args).args(["--", "bash", "-c", command]).output()?);
    let output = namespace.run(run).unwrap();
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    (output.status.code().unwrap(), text)
}

/// Sends UDP packets of 30 bytes to an address.
fn datagrams(count: u32, to: &str) -> String {
    format!("for i in $(seq {count}); do echo x >/dev/udp/{to}/9; done")
}

#[test]
fn what_a_command_adds_to_a_device_of_uvti_is_compared() {
    if !have("what_a_command_adds_to_a_device_of_uvti_is_compared", Need::Netns) {
        return;
    }
    let namespace = namespace();
    let _dataplane = dataplane(&namespace);
    let three = datagrams(3, "10.2.0.5");
    let right = ["carrier=+3", "XfrmOutNoStates=+3", "tx_no_sa=+3", "tx_packets=+0", "--dev", "vti0"];
    assert_eq!(expect(&namespace, &right, &three), (0, String::new()));
    let wrong = ["carrier=+2", "collsns=+1", "XfrmOutNoStates=+3"];
    let said = "carrier: expected +2, got +3\ncollsns: expected +1, got +0\n".to_owned();
    assert_eq!(expect(&namespace, &wrong, &three), (1, said));
    // The command's own failure is no wrong count, and a wrong count does not hide it.
    let (code, said) = expect(&namespace, &["carrier=+9"], "exit 7");
    assert_eq!(code, 107);
    assert!(said.contains("carrier: expected +9, got +0") && said.contains("exit status: 7"), "{said}");
    let (code, said) = expect(&namespace, &["carrier=+0", "--dev", "nobody"], "true");
    assert_eq!((code, said.as_str()), (2, "uvti: there is no device nobody in this network namespace\n"));
}

#[test]
fn what_a_command_adds_to_a_device_of_the_kernel_is_compared() {
    if !have("what_a_command_adds_to_a_device_of_the_kernel_is_compared", Need::Netns) {
        return;
    }
    let namespace = namespace();
    let two = datagrams(2, "198.51.100.2");
    assert_eq!(expect(&namespace, &["tx_packets=+2", "carrier=+0", "--dev", "w0"], &two), (0, String::new()));
    let said = "tx_packets: expected +3, got +2\n".to_owned();
    assert_eq!(expect(&namespace, &["tx_packets=+3", "--dev", "w0"], &two), (1, said));
    let (code, said) = expect(&namespace, &["tx_no_sa=+0", "--dev", "w0"], "true");
    assert_eq!(code, 2);
    assert!(said.contains("the kernel does not count by reason"), "{said}");
    let (code, said) = expect(&namespace, &["carrier=+0"], "true");
    assert_eq!((code, said.as_str()), (2, "uvti: there is no VTI in this network namespace\n"));
}
