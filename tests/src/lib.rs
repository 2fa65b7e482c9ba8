//! Integration tests of uvti: namespaces, and the real kernel's VTI in User-Mode Linux.
//!
//! On the host ([`require`], [`uml`]) a test boots one guest and hands it a group of cases. In the guest
//! ([`guest`]) process 1 is our own `uvti-guest`: it loads the kernel's VTI, runs the group beside it
//! ([`interop`], [`cover`], [`order`], [`views`]), writes one JSON line a case ([`outcome`]) and switches the guest off.
//! What comes from outside is fuzzed by [`fuzz`].
//! Below the groups lie the things they are made of: namespaces ([`netns`]), a VTI gateway that is either the
//! kernel's or uvti's ([`gateway`]), an IKE daemon ([`strongswan`]), traffic, captures, and packets made by hand.

pub mod algorithms;
pub mod capture;
pub mod cover;
pub mod esp;
pub mod frame;
pub mod fuzz;
pub mod gateway;
pub mod golden;
pub mod guest;
pub mod interop;
pub mod netns;
pub mod order;
pub mod outcome;
pub mod path;
pub mod require;
pub mod strongswan;
pub mod sys;
pub mod traffic;
pub mod tunnel;
pub mod uml;
pub mod views;
pub mod wait;
pub mod wire;
