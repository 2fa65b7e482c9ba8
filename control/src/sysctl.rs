//! `uvti sysctl`: reads and sets what the dataplane goes by, in the words of sysctl(8).

use crate::client::{Client, ClientError};
use crate::protocol::{Request, Response};
use std::fmt::Write;

/// What was asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print values only.
    #[arg(short = 'n', long = "values")]
    values: bool,
    /// All are settings; accepted as by sysctl(8), and not needed.
    #[arg(short = 'w', long = "write")]
    write: bool,
    /// `NAME` to read, `NAME=VALUE` to set: `net.core.xfrm_larval_drop`, `net.core.xfrm_acq_expires`,
    /// `net.core.xfrm_aevent_etime`, `net.core.xfrm_aevent_rseqth`, `net.ipv4.conf.DEV.disable_xfrm`,
    /// `net.ipv4.conf.DEV.disable_policy`, `net.ipv6.conf.DEV.disable_policy`.
    #[arg(required = true, value_name = "NAME[=VALUE]")]
    settings: Vec<String>,
}

/// Asks for each in turn. Returns what is to be printed, complaints, and whether all went well.
pub(crate) fn run(client: &mut Client, args: &Args) -> Result<(String, String, bool), ClientError> {
    let (mut out, mut complaints) = (String::new(), String::new());
    for setting in &args.settings {
        let (name, value) = match setting.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None if args.write => {
                let _ = writeln!(complaints, "uvti sysctl: \"{setting}\" must be of the form name=value");
                continue;
            }
            None => (setting.as_str(), None),
        };
        let name = dotted(name);
        let Response::Sysctl(answer) = client.ask(&Request::Sysctl { name: name.clone(), value })? else {
            return Err(ClientError::Unexpected);
        };
        let _ = match answer {
            Ok(value) if args.values => writeln!(out, "{value}"),
            Ok(value) => writeln!(out, "{name} = {value}"),
            Err(error) => writeln!(complaints, "uvti sysctl: {error}"),
        };
    }
    let fine = complaints.is_empty();
    Ok((out, complaints, fine))
}

/// sysctl(8) takes slashes as separators too, if one comes first; a dot is then part of a name.
fn dotted(name: &str) -> String {
    let first = name.find(['.', '/']).and_then(|at| name.get(at..=at));
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    if first == Some("/") { name.chars().map(swap).collect() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_separate_if_one_comes_first() {
        assert_eq!(dotted("net.ipv4.conf.eth0/5.disable_xfrm"), "net.ipv4.conf.eth0/5.disable_xfrm");
        assert_eq!(dotted("net/ipv4/conf/eth0.5/disable_xfrm"), "net.ipv4.conf.eth0/5.disable_xfrm");
        assert_eq!(dotted("nothing"), "nothing");
    }
}
