//! uvti: the control side.
