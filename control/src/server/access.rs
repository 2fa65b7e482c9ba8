//! The read-only control socket: who may open it, what it answers, and what it leaves out.

use crate::protocol::{DropRecord, Notice, Request, Response};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use uvti_core::xfrm::StateInfo;

/// The group whose members may look on.
const GROUP: &str = "uvti";

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything, for root and the user of `uvti run`.
    Full,
    /// Questions, for the group `uvti`: answers are without keys and without what packets carry.
    ReadOnly,
}

impl Access {
    /// Lets in those whom the socket is for. The file is still under a name that nobody knows.
    pub(super) fn open_to(self, path: &Path) -> io::Result<()> {
        let group = match self {
            Access::Full => None,
            Access::ReadOnly => std::fs::read_to_string("/etc/group").ok().and_then(|text| gid(&text, GROUP)),
        };
        let Some(group) = group else {
            return std::fs::set_permissions(path, Permissions::from_mode(0o600));
        };
        chown(path, None, Some(group))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660))
    }

    /// Why `request` is not answered, if it is not.
    pub(super) fn refusal(self, request: &Request) -> Option<String> {
        let name = change(request).filter(|_| self == Access::ReadOnly)?;
        Some(format!(
            "{name}: refused: this is the read-only control socket; changes need root, or the user of `uvti run`"
        ))
    }

    /// Leaves out of an answer what this socket never tells.
    pub(super) fn cut(self, response: &mut Response) {
        if self == Access::Full {
            return;
        }
        match response {
            Response::States(states) => states.iter_mut().for_each(without_keys),
            Response::State(Some(state)) => without_keys(state),
            Response::Notices { notices, .. } => notices.iter_mut().for_each(silence),
            Response::Recorded(page) => page.records.iter_mut().for_each(headers_only),
            _ => {}
        }
    }
}

/// What a request changes, in the user's words; `None` if it only asks.
fn change(request: &Request) -> Option<&'static str> {
    match request {
        Request::Apply { .. } => Some("a change of links, states or policies"),
        Request::Reload { .. } => Some("`reload`"),
        Request::Inject(_) | Request::InjectClear(_) => Some("`inject`"),
        Request::Sysctl { value: Some(_), .. } => Some("setting a sysctl"),
        Request::Allocate { .. } => Some("`xfrm state allocspi`"),
        Request::Refresh => Some("a look at the host's links and routes"),
        // SAs are asked for while somebody listens for that.
        Request::Monitor(topics) if topics.acquire => Some("`xfrm monitor acquire`"),
        Request::Links
        | Request::States
        | Request::State(_)
        | Request::Policies
        | Request::Policy(_)
        | Request::Counts
        | Request::Defaults
        | Request::Stat
        | Request::StatBy(_)
        | Request::Queues
        | Request::XfrmStat
        | Request::Check
        | Request::Explain(_)
        | Request::Injected
        | Request::Sysctl { value: None, .. }
        | Request::Recorded(_)
        | Request::DropHistory
        | Request::Mtu
        | Request::Monitor(_)
        | Request::ReadOnly => None,
    }
}

fn without_keys(state: &mut StateInfo) {
    state.spec.algs.hide_keys();
}

fn silence(notice: &mut Notice) {
    match notice {
        Notice::Acquire { larval: state, .. } | Notice::Expired { state, .. } | Notice::State(_, state) => {
            without_keys(state);
        }
        Notice::StatesFlushed(_) | Notice::Policy(..) | Notice::PoliciesFlushed | Notice::Defaults(_) => {}
    }
}

/// Addresses, ports, SPIs: the IP header and eight bytes more, as an ICMP error quotes.
fn headers_only(record: &mut DropRecord) {
    let packet = &mut record.packet.0;
    let header = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 15) * 4,
        _ => 40,
    };
    packet.truncate(header + 8);
}

/// The id of a group in the text of /etc/group.
fn gid(text: &str, name: &str) -> Option<u32> {
    let mut groups = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    groups.find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DropsPage;
    use uvti_core::xfrm::{AlgAead, Algorithms, Key, Spi, StateSpec};
    use uvti_dataplane::account::Contents;

    fn state() -> StateInfo {
        let aead = AlgAead { name: "rfc4106(gcm(aes))".into(), key: Key::new(vec![7; 20]), icv_bits: 128 };
        let algs = Algorithms { aead: Some(aead), ..Algorithms::default() };
        let (src, dst) = ("198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap());
        StateInfo {
            spec: StateSpec::tunnel(src, dst, Spi(1), algs),
            replay: Default::default(),
            current: Default::default(),
            stats: Default::default(),
        }
    }

    #[test]
    fn every_answer_with_a_state_is_without_its_key() {
        let notices = vec![
            Notice::State(uvti_dataplane::engine::Change::Added, Box::new(state())),
            Notice::Expired { state: Box::new(state()), hard: true },
        ];
        for answer in [
            Response::States(vec![state(), state()]),
            Response::State(Some(Box::new(state()))),
            Response::Notices { notices, lost: 0 },
        ] {
            let text = |answer: &Response| serde_json::to_string(answer).unwrap();
            let mut cut = answer.clone();
            Access::Full.cut(&mut cut);
            assert!(text(&cut).contains("7,7,7"), "{cut:?}");
            Access::ReadOnly.cut(&mut cut);
            assert!(!text(&cut).contains("7,7"), "{cut:?}");
        }
    }

    #[test]
    fn of_a_recorded_packet_the_headers_are_left() {
        let record = |packet: Vec<u8>| DropRecord {
            time: 0,
            worker: 0,
            seq: 0,
            nth: 0,
            device: "vti0".into(),
            kind: None,
            reason: "tx_no_sa".into(),
            sa: None,
            policy: None,
            outer: None,
            len: packet.len(),
            packet: Contents(packet),
        };
        let records =
            vec![record([vec![0x46; 24], vec![1; 100]].concat()), record(vec![0x60; 90]), record(vec![])];
        let mut answer = Response::Recorded(DropsPage { records, ..DropsPage::default() });
        Access::ReadOnly.cut(&mut answer);
        let Response::Recorded(page) = answer else { panic!("{answer:?}") };
        let lengths: Vec<(usize, usize)> = page.records.iter().map(|r| (r.packet.len(), r.len)).collect();
        assert_eq!(lengths, [(32, 124), (48, 90), (0, 0)]);
    }

    #[test]
    fn changes_are_refused_by_name_and_questions_are_not() {
        let reload = Request::Reload { text: String::new(), file: String::new() };
        let said = Access::ReadOnly.refusal(&reload).unwrap();
        assert!(said.starts_with("`reload`: refused: this is the read-only control socket"), "{said}");
        assert_eq!(Access::Full.refusal(&reload), None);
        let sysctl = |value: Option<&str>| Request::Sysctl { name: "a".into(), value: value.map(Into::into) };
        assert!(Access::ReadOnly.refusal(&sysctl(Some("1"))).is_some());
        assert_eq!(Access::ReadOnly.refusal(&sysctl(None)), None);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nuvtix:x:7:\nuvti:x:998:alice,bob\nbroken\n";
        assert_eq!(gid(text, "uvti"), Some(998));
        assert_eq!(gid(text, "broken"), None);
        assert_eq!(gid("", "uvti"), None);
    }
}
