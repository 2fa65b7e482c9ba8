//! Decisions and passes, against what a kernel VTI was measured to do.

mod bursts;
