//! `uvti ip` from its words to its output, over a real control socket, against recordings of iproute2.

mod interface;
mod lab;
mod monitor;
mod replay;
mod robust;
mod samples;
mod save;
