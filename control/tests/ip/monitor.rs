//! `ip xfrm monitor`, against what iproute2 6.1 printed on a 6.1 kernel (`golden/monitor.txt`: `$` command, `>` what a
//! monitor beside it printed).

use crate::lab::{Bench, Host, words};
use std::io::{self, Write};
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use uvti_dataplane::engine::Notice;

/// Standard output of a monitor that somebody reads until he has enough.
struct Pipe(Sender<u8>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = bytes.iter().try_for_each(|byte| self.0.send(*byte));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a monitor; returns when it listens. It ends with the bench's process.
fn monitor(bench: &Bench, command: &str) -> Receiver<u8> {
    let (pipe, output) = channel();
    let (lab, socket, command) = (bench.lab.clone(), bench.socket.clone(), words(command));
    std::thread::spawn(move || {
        let host = Host { lab: &lab, captured: None, asked: AtomicU32::new(0) };
        uvti::ip::run_with(&command, Some(&socket), &host, &mut Pipe(pipe), &mut io::sink());
    });
    while bench.lab.monitors.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    output
}

/// As many bytes as are wanted, or what there was when no more came.
fn read(output: &Receiver<u8>, wanted: usize) -> String {
    let next = |_| output.recv_timeout(Duration::from_secs(10)).ok();
    String::from_utf8((0..wanted).map_while(next).collect()).unwrap()
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.lab.tables().own_algorithms = true;
    bench
}

#[test]
fn changes_are_printed_as_iproute2_prints_them() {
    let bench = bench();
    let output = monitor(&bench, "xfrm monitor");
    let golden = include_str!("../golden/monitor.txt");
    let mut wanted = String::new();
    for line in golden.lines() {
        match line.strip_prefix("$ ip ") {
            Some(command) => drop(bench.ip(&words(command))),
            None => wanted = wanted + line.strip_prefix("> ").unwrap() + "\n",
        }
    }
    assert_eq!(read(&output, wanted.len()), wanted);
}

/// A monitor of one topic hears of nothing else, prints no keys, and folds lines.
#[test]
fn topics_and_styles() {
    let bench = bench();
    let output = monitor(&bench, "-o xfrm monitor nokeys SA");
    bench.quiet("xfrm policy add dir in action block");
    bench.quiet(
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 reqid 1 mode tunnel \
         aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128",
    );
    bench.quiet("xfrm state flush");
    let wanted = "src 198.51.100.1 dst 198.51.100.2\\\tproto esp spi 0x00000100 reqid 1 mode tunnel\\\
                  \treplay-window 0 \\\taead rfc4106(gcm(aes)) <<Keys hidden>> 128\\\
                  \tanti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000\\\
                  \tsel src 0.0.0.0/0 dst 0.0.0.0/0 \\\nFlushed state proto 0\\\n";
    assert_eq!(read(&output, wanted.len()), wanted);
}

#[test]
fn limits_and_acquires() {
    let bench = bench();
    let output = monitor(&bench, "xfrm monitor expire acquire");
    bench.quiet(
        "xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x100 reqid 1 mode tunnel mark 3 mask 0xf \
         output-mark 0x9 if_id 5 flag esn replay-window 64 encap espinudp 4500 4500 0.0.0.0 \
         aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128 limit time-hard 1 tfcpad 100 \
         extra-flag dont-encap-dscp sel src 10.0.0.0/8 dst 10.2.0.0/16 proto udp",
    );
    let state = Box::new(bench.lab.tables().tables.state_infos().remove(0));
    let mut larval = state.clone();
    (larval.spec.spi.0, larval.spec.seq) = (0x77, 1_u32.to_be());
    bench.quiet(
        "xfrm policy add dir out dst 10.2.0.0/16 mark 0 if_id 0 priority 9 \
         tmpl src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x77 reqid 9 mode tunnel",
    );
    let policy = Box::new(bench.lab.tables().tables.policies.newest_first()[0].info());
    let tell = |notice| bench.lab.monitors.lock().unwrap().tell(&notice);
    tell(Notice::Expired { state, hard: true });
    tell(Notice::Acquire { larval, policy });
    let wanted = "\
Expired src 198.51.100.1 dst 198.51.100.2
\tproto esp spi 0x00000100 reqid 1 mode tunnel
\treplay-window 0 flag esn
\tmark 0x3/0xf 
\tif_id 0x5
\tsel src 10.0.0.0/8 dst 10.2.0.0/16 proto udp 
\thard 1
acquire proto esp spi 0x00000077 
  sel src 10.0.0.0/8 dst 10.2.0.0/16 proto udp 
  policy src 0.0.0.0/0 dst 10.2.0.0/16 
    \tdir out priority 9 ptype main 
\tmark 0/0xffffffff 
    \ttmpl src 198.51.100.1 dst 198.51.100.2
    \t\tproto esp spi 0x00000077 reqid 9 mode tunnel

";
    assert_eq!(read(&output, wanted.len()), wanted);
}
