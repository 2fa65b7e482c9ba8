//! The IPsec databases: states (SAs), policies, and the selectors, templates, marks and lifetimes in them.
//!
//! Names are those of RFC 4301 and of the kernel's `net/xfrm`. The `*Spec` types say what a user configured,
//! the `*Info` types add what `ip -s xfrm` shows about a running object.

mod alg;
mod fingerprint;
mod id;
mod lifetime;
mod policy;
mod sa;
mod selector;
mod state;

pub use alg::{AlgAead, AlgAuth, AlgEnc, Algorithms, Key};
pub use fingerprint::Fingerprint;
pub use id::{Direction, Family, Mark, Mode, Proto, SaDirection, SaId, Spi};
pub use lifetime::{Lifetime, Limits};
pub use policy::{Action, Level, MAX_TEMPLATES, PolicyFlags, PolicyId, PolicyInfo, PolicySpec, Template};
pub use sa::{Runtime, Sa};
pub use selector::{PortMatch, Selector};
pub use state::{
    Encap, EncapKind, ExtraFlags, MAX_REPLAY_WINDOW, ReplayCounters, StateFlags, StateInfo, StateSpec,
    StateStats,
};
