//! The host around the dataplane: routes, links and namespaces by netlink, ICMP, and packets past the IP stack.

pub mod icmp;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod pathfinder;
pub mod pmtu;
pub mod tap;
