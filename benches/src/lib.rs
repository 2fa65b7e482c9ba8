//! uvti benches
