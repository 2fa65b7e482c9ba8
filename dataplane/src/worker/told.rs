//! Which senders were told of dropped packets in this burst.

use std::net::IpAddr;
use uvti_core::vti::icmp::RateLimit;

/// Counts errors by who they are for. More than the limit lets through at one moment are not made at all, so that a
/// flood of packets that are dropped costs no flood of errors that are thrown away.
#[derive(Debug, Default)]
pub(super) struct Told {
    senders: Vec<(IpAddr, u32)>,
}

impl Told {
    /// Another burst.
    pub(super) fn clear(&mut self) {
        self.senders.clear();
    }

    /// Whether one more may be made for `sender`.
    pub(super) fn one_more(&mut self, sender: IpAddr) -> bool {
        // The last one first: packets of a flow come together.
        let known = self.senders.iter_mut().rev().find(|(s, _)| *s == sender);
        match known {
            Some((_, n)) if *n >= RateLimit::BURST => false,
            Some((_, n)) => {
                *n += 1;
                true
            }
            None => {
                self.senders.push((sender, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_is_told_as_often_as_the_limit_allows_at_once() {
        let mut told = Told::default();
        let mut times = |sender: &str| (0..20).filter(|_| told.one_more(sender.parse().unwrap())).count();
        assert_eq!([times("10.1.0.2"), times("10.1.0.3"), times("10.1.0.2")], [6, 6, 0]);
        told.clear();
        assert!(told.one_more("10.1.0.2".parse().unwrap()));
    }
}
