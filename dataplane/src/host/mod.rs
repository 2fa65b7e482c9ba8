//! The host around the dataplane: routes, links and namespaces by netlink, and ICMP.

pub mod icmp;
pub mod netlink;
pub mod netns;
