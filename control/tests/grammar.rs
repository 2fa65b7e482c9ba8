//! The parser's complaints against those of iproute2 6.1 on a 6.1 kernel (`golden/*.txt`: `$` command, `>`
//! standard output, `!` standard error, `=` exit code).

use uvti::ip::parse::{Names, Options, parse};
use uvti_core::vti::LinkSpec;

struct Lab;

impl Names for Lab {
    fn device(&self, name: &str) -> bool {
        name == "lo"
    }
    fn link(&self, _: &str) -> Option<LinkSpec> {
        None
    }
}

#[test]
fn xfrm_errors_of_the_parser_are_iproute2s() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for record in include_str!("golden/errors-policy-link-tunnel.txt").split("$ ip ").skip(1) {
        let command = record.lines().next().unwrap();
        let code = record.lines().find_map(|l| l.strip_prefix("= ")).unwrap();
        let text: String =
            record.lines().filter_map(|l| l.strip_prefix("! ")).map(|l| format!("{l}\n")).collect();
        // What userspace refuses by name, and help, are uvti's own; `deleteall` failed in the kernel (a sub policy);
        // `dir out` of a state is younger than 6.1.
        let own = ["pcpu-num", "deleteall", "ctx", "offload", "allocspi", "sub", "help", "hthresh4"];
        if !command.starts_with("xfrm")
            || command.ends_with("spi 1 dir out")
            || code == "0"
            || code == "2"
            || command.split(' ').any(|w| own.contains(&w))
        {
            continue;
        }
        let words: Vec<String> =
            command.split_whitespace().map(|w| w.trim_matches('\'').to_owned()).collect();
        checked += 1;
        match parse(&words, &Options::default(), &Lab) {
            Err(fail) if fail.text == text && fail.code.to_string() == code => {}
            other => wrong.push(format!("{command}\n  want {code} {text:?}\n  got {other:?}")),
        }
    }
    assert!(checked > 80, "{checked}");
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}
