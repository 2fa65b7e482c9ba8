//! uvti tests
