//! `uvti keys`: Wireshark decrypts and checks what uvti sends with the file that it exports, and the file makes the SAs
//! again.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use uvti_tests::capture::Capture;
use uvti_tests::netns::Namespace;
use uvti_tests::path::{INNER, Path, Plan};
use uvti_tests::require::{Need, have};
use uvti_tests::traffic::{self, End};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const PINGS: usize = 5;
const KEY: &str = "0102030405060708090a0b0c0d0e0f10";

fn ping(path: &Path) {
    let end = |namespace, i: usize| End { namespace, address: INNER[i].into() };
    let (left, right): (&Namespace, _) = (&path.left.namespace, &path.right.namespace);
    traffic::ping(&end(left, 0), &end(right, 1), PINGS as u16).unwrap();
}

/// A capture file of bare IP packets.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    const LINKTYPE_RAW: u32 = 101;
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    // Version 2.4, little-endian, microseconds.
    let mut file = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 1 << 16, LINKTYPE_RAW]);
    for (i, packet) in packets.iter().enumerate() {
        let len = packet.len() as u32;
        file.extend(words(&[1_700_000_000 + i as u32, 0, len, len]));
        file.extend(packet);
    }
    file
}

/// What tshark says of each packet, with the SAs of `folder`.
fn tshark(folder: &FilePath, fields: &[&str]) -> Vec<String> {
    let output = Command::new("tshark")
        .env("WIRESHARK_CONFIG_DIR", folder)
        .args(["-r", folder.join("esp.pcap").to_str().unwrap()])
        .args(["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"])
        .args(["-T", "fields", "-E", "separator=|"])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("esp_sa"), "{said}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn wireshark_decrypts_with_what_is_exported_and_it_makes_the_sas_again() {
    let name = "wireshark_decrypts_with_what_is_exported_and_it_makes_the_sas_again";
    if !have(name, Need::Netns) || !have(name, Need::Tshark) {
        return;
    }
    for (words, algorithms) in [
        ("", format!("aead rfc4106(gcm(aes)) 0x{KEY}aabbccdd 128")),
        ("", format!("aead rfc4106(gcm(aes)) 0x{KEY}aabbccdd 64")),
        (
            "encap espinudp 4500 4500 0.0.0.0",
            format!("enc cbc(aes) 0x{KEY} auth-trunc hmac(sha256) 0x{KEY}{KEY} 128"),
        ),
        ("", format!("enc rfc3686(ctr(aes)) 0x{KEY}aabbccdd auth hmac(sha1) 0x{KEY}01020304")),
        ("", format!("enc cbc(aes) 0x{KEY}{KEY} auth-trunc hmac(sha512) 0x{KEY}{KEY}{KEY}{KEY} 256")),
    ] {
        let plan = Plan { words, ..Plan::bare([algorithms.clone(), algorithms.clone()], 1500) };
        let path = Path::build(&plan, PathBuf::from(UVTI), |_| Ok(())).unwrap();
        let capture = Capture::open(&path.router, "right").unwrap();
        ping(&path);
        let folder = std::env::temp_dir().join(format!("uvti-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let packets: Vec<_> =
            capture.drain().unwrap().into_iter().filter(|f| f.kind == 0x0800).map(|f| f.packet).collect();
        fs::write(folder.join("esp.pcap"), pcap(&packets)).unwrap();
        let file = folder.join("esp_sa");
        path.left.uvti(&["keys", "export", "-o", file.to_str().unwrap()]).unwrap();

        let told = tshark(&folder, &["icmp.type", "esp.icv_good", "esp.icv_bad"]);
        let of = |kind: &str| told.iter().filter(|line| line.starts_with(kind)).count();
        assert_eq!((of("8|"), of("0|")), (PINGS, PINGS), "{algorithms}: {told:#?}");
        // What tshark 4.0 says of an ICV it has checked: good and not bad.
        let good = told.iter().filter(|line| line.ends_with("|1|0") || line.ends_with("|True|False")).count();
        assert_eq!(good, 2 * PINGS, "{algorithms}: {told:#?}");

        for gateway in [&path.left, &path.right] {
            gateway.ask(&["xfrm", "state", "flush"]).unwrap();
            let import = ["keys", "import", file.to_str().unwrap()];
            gateway.uvti(&[&import, &*words.split_whitespace().collect::<Vec<_>>()].concat()).unwrap();
            gateway.uvti(&import).expect_err("they are there");
        }
        fs::remove_dir_all(&folder).unwrap();
        ping(&path);
    }
}
