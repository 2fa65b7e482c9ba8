//! Runs the core on threads, TUN devices and sockets.
