//! The parser: what is read, and that no text makes it do anything but complain.

use super::On;
use super::cursor::Problem;
use super::file::parse;
use super::scenario::{Inner, Outer, Step, Via};
use proptest::prelude::*;

fn read(text: &str) -> Result<Vec<super::scenario::Scenario>, Problem> {
    parse("f", text, &|name| match name {
        "lab" => Ok("block sa spi=0x100\nip xfrm state add spi $spi reqid 1 $more\nend\n\
                     block both\nuse sa\nuse sa spi=0x101\nend\n"
            .to_owned()),
        other => Err(format!("{other}: no such file")),
    })
}

fn complaint(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn ip(words: &str) -> Step {
    Step::Ip(words.split(' ').map(str::to_owned).collect())
}

#[test]
fn blocks_take_values_and_are_left_out_by_name() {
    let text =
        "include lab\n[a] with values\nuse sa spi=0x7 + mark 1\nuse both without sa\n[b] both\nuse both\n";
    let scenarios = read(text).unwrap();
    assert_eq!(scenarios[0].steps, [ip("xfrm state add spi 0x7 reqid 1 mark 1")]);
    assert_eq!(scenarios[0].title, "with values");
    let both = [ip("xfrm state add spi 0x100 reqid 1"), ip("xfrm state add spi 0x101 reqid 1")];
    assert_eq!(scenarios[1].steps, both);
}

/// What was recorded stands for the kernel, unless the kernel alone is asked.
#[test]
fn recorded_scenarios_need_no_kernel() {
    let of = |text: &str| read(text).unwrap().remove(0);
    let recorded = of("recorded\n[a] x\nexpect nothing\n");
    assert_eq!(recorded.engines(&[On::Kernel, On::Uvti]), [On::Uvti]);
    assert_eq!(recorded.engines(&[On::Kernel]), [On::Kernel]);
    assert_eq!(of("[a] x\n").engines(&[On::Kernel, On::Uvti]), [On::Kernel, On::Uvti]);
    assert!(complaint("recorded elsewhere\n[a] x\n").contains("nothing is expected here"));
}

#[test]
fn packets_are_what_their_line_says() {
    let text = "[a] x\nsend 5 from 10.1.0.2 to 10.2.0.5 len 1470 df tos 0xb8\n\
                send 2 zeros 10 via vti0 as 0x88b5\n\
                inject 3 esp spi 0x999 seq 100,69-70 bad-icv from 198.51.100.77 nh 59 inner zeros 60\n";
    let steps = read(text).unwrap().remove(0).steps;
    let Step::Send(first) = &steps[0] else { panic!() };
    let Inner::Udp(udp) = &first.what else { panic!() };
    assert_eq!(
        (first.count, udp.len, udp.df, udp.tos, &first.via),
        (5, 1470, Some(true), 0xb8, &Via::Forward)
    );
    let Step::Send(second) = &steps[1] else { panic!() };
    assert_eq!(second.via, Via::Device { name: "vti0".to_owned(), ethertype: 0x88b5 });
    let Step::Inject(third) = &steps[2] else { panic!() };
    let Outer::Esp(esp) = &third.what else { panic!() };
    assert_eq!((third.count, third.src.to_string().as_str()), (3, "198.51.100.77"));
    assert_eq!((esp.spi, esp.sequences.as_slice(), esp.bad_icv), (0x999, &[100, 69, 70][..], true));
    assert_eq!((esp.next_header, &esp.inner), (Some(59), &Inner::Bytes(vec![0; 60])));
}

#[test]
fn expectations_have_names_of_several_words() {
    let text = "[a] x\nexpect vti0 tx_errors +5 carrier +5\nexpect wire esp4 len 152 df +5\nexpect sa 0x0100 packets +1\n";
    let expected = read(text).unwrap().remove(0).expected;
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(names, ["sa 0x100 packets", "vti0 carrier", "vti0 tx_errors", "wire esp4 len 152 df"]);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let cases = [
        ("[a] x\n  frobnicate\n", "f:2:3: \"frobnicate\": no statement"),
        ("[a] x\nsend five from\n", "f:2:6: \"five\": a number of packets is a number from 1 to 1000"),
        ("[a] x\nsend 5 from 10.1.0.2\n", "f:2:21: to is missing"),
        ("[a] x\nsend 1 from 10.0.0.1 to ::1\n", "f:2:25: \"::1\": both addresses are of one family"),
        ("[a] x\nsend 1 from 10.0.0.1 to 10.0.0.2 len 27\n", "f:2:38: \"27\": a length is a number from 28"),
        ("[a] x\nexpect vti0 tx_erors +5\n", "f:2:22: \"+5\": there is no such counter"),
        ("[a] x\nexpect vti0 tx_errors\n", "f:2:13: \"tx_errors\": a count (+N) is missing"),
        ("[a] x\n[a] y\n", "f:2:1: \"[a]\": there is a scenario of this name already"),
        ("[a] x\nuse nothing\n", "f:2:5: \"nothing\": there is no such block"),
        ("include ../secrets\n", "f:1:9: \"../secrets\": only a file of the same folder"),
        ("include gone\n", "f:1:9: \"gone\": gone: no such file"),
        ("block a\nip link\n", "f:1:1: block a has no `end`"),
        ("[a] x\nip netns exec other reboot\n", "f:2:4: \"netns\": a scenario may use ip address"),
        ("[a] x\nip -batch /etc/shadow\n", "f:2:4: \"-batch\": a scenario may use ip address"),
        ("[a] x\nip link set vti0 netns 1\n", "f:2:1: a scenario may not name another namespace"),
        (
            "[a] x\nsysctl kernel/modprobe /bin/x\n",
            "f:2:8: \"kernel/modprobe\": not a path below /proc/sys/net",
        ),
        ("[a] x\nsysctl net/../kernel/x 1\n", "f:2:8: \"net/../kernel/x\": not a path below"),
        ("[a] x\ntc exec x\n", "f:2:4: \"exec\": only `tc qdisc …`"),
        ("[a] x\ninject esp seq 1-4000000000\n", "f:2:16: \"1-4000000000\": 1 to 1000 sequence numbers"),
        ("[a] x\ninject esp key 0x00\n", "f:2:1: a key has 16 bytes"),
        ("[a] 'x\n", "f:1:5: Unterminated quoted string"),
    ];
    for (text, wanted) in cases {
        let said = complaint(text);
        assert!(said.starts_with(wanted), "{text:?}: {said}");
    }
}

/// Blocks in blocks could make a file of a few lines long beyond all memory.
#[test]
fn what_grows_without_bound_is_refused() {
    let mut text = String::new();
    for i in 0..6 {
        let uses = format!("use b{}\n", i + 1).repeat(50);
        text.push_str(&format!("block b{i}\n{uses}end\n"));
    }
    text.push_str("block b6\nend\n[a] x\nuse b0\n");
    assert!(complaint(&text).contains("a scenario of more than"), "{}", complaint(&text));
    let twice = "$more ".repeat(40);
    let text = format!(
        "block a\nip link {twice}\nend\nblock b\nuse a + {twice}\nend\n[a] x\nuse b + {}\n",
        "x ".repeat(40)
    );
    assert!(complaint(&text).contains("too long"), "{}", complaint(&text));
    let text = "block a\nuse a\nend\n[a] x\nuse a\n";
    assert!(complaint(text).contains("nested deeper"), "{}", complaint(text));
}

proptest! {
    #[test]
    fn any_text_is_read_or_complained_about(text in "([a-z0-9\\[\\]$+=./,: \n-]{0,30}|\\[a\\] x\n|send |inject esp |expect |use |block |end\n|seq |from |10\\.0\\.0\\.1 |to |inner ){0,30}") {
        let _ = read(&text);
    }
}
