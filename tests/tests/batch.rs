//! `uvti ip -batch` ends as `ip -batch` does, with lines of the system's `ip`.

use std::process::Command;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");

/// Files whose lines succeed, are refused by the kernel, name what is missing, or are not understood.
const FILES: &[&str] = &[
    "link show dev lo\n",
    "link show dev none\nlink show dev lo\n",
    "link set dev none up\nlink show dev lo\n",
    "route del 10.99.0.0/16\nlink show dev lo\n",
    "route add 10.2.0.0/33 dev lo\nlink show dev lo\n",
    "link set dev lo mtu abc\nlink show dev lo\n",
    "addr add 10.0.0.300/24 dev lo\nlink show dev lo\n",
    "neigh add 192.0.2.1 dev none\nlink show dev lo\n",
    "link set dev lo alias 'two words'\nlink show dev lo\n",
    "link set dev lo alias \"it's\"\nlink show dev lo\n",
    "link show dev lo\nlink set dev lo bogus\nlink show dev lo\n",
    "bogus\nlink show dev lo\n",
    "xfrm bogus\nlink show dev lo\n",
    "route show \\\n table main\nlink show dev 'none'\n",
];

#[test]
fn a_batch_ends_as_iproute2s() {
    if !have("a_batch_ends_as_iproute2s", Need::Netns) {
        return;
    }
    let namespace = Namespace::new().unwrap();
    let file = std::env::temp_dir().join(format!("uvti-batch-ends-{}", std::process::id()));
    for (text, options) in FILES.iter().flat_map(|text| [(text, ""), (text, "-force")]) {
        std::fs::write(&file, text).unwrap();
        let run = |mut program: Command| {
            program.args((!options.is_empty()).then_some(options)).arg("-batch").arg(&file);
            let output = namespace.run(|| Ok(program.output()?)).unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let mut ours = Command::new(UVTI);
        ours.arg("ip");
        assert_eq!(run(ours), run(Command::new("ip")), "{options} {text}");
    }
    std::fs::remove_file(&file).unwrap();
}
