//! The pure part of uvti: what a Linux IPsec VTI decides about a packet, and ESP itself.
//!
//! Nothing here does I/O, reads a clock or draws randomness: time and random numbers are arguments, so that
//! every decision is a unit test, a fuzz target and a bench without a TUN device. Modules build on the ones
//! named before them: [`reason`], [`packet`], [`esp`], [`xfrm`], `route`, [`vti`], [`tables`].
#![forbid(unsafe_code)]

pub mod esp;
pub mod packet;
pub mod reason;
pub mod tables;
pub mod vti;
pub mod xfrm;
