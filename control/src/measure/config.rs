//! The tunnel that is measured where none is given: AES-128-GCM, one SA each way.

/// Lines of `ip` for both ends.
pub(super) fn tunnel(in_udp: bool) -> [String; 2] {
    let (a, b) = ("198.51.100.1", "198.51.100.2");
    [end(a, b, in_udp), end(b, a, in_udp)]
}

fn end(local: &str, remote: &str, in_udp: bool) -> String {
    let encap = if in_udp { " encap espinudp 4500 4500 0.0.0.0" } else { "" };
    // A key for each direction, which the sender's address tells apart.
    let sa = |src: &str, dst: &str| {
        let last = if src.ends_with('1') { "14" } else { "34" };
        format!(
            "xfrm state add src {src} dst {dst} proto esp spi 0x1{last} reqid 1 mode tunnel replay-window 1024 \
             aead rfc4106(gcm(aes)) 0x01020304050607080910111213141516171819{last} 128{encap}\n"
        )
    };
    let policy = |dir: &str, src: &str, dst: &str| {
        format!("xfrm policy add dir {dir} mark 1 tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel\n")
    };
    format!(
        "link add vti0 type vti local {local} remote {remote} key 1\n{}{}{}{}",
        sa(local, remote),
        sa(remote, local),
        policy("out", local, remote),
        policy("in", remote, local)
    )
}
