//! Completions of shells, and manual pages: made of the command line, so that they say what it says.

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use std::path::Path;

/// The completions of a shell, as its script.
pub(crate) fn completions(mut command: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "uvti", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `uvti.1`, and `uvti-COMMAND.1` for each command.
pub(crate) fn write(command: Command, folder: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(command, folder).with_context(|| format!("cannot write to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, CommandFactory};

    /// The commands that are shown, by what one calls them.
    fn shown(command: &Command) -> Vec<String> {
        let all = command.get_subcommands().filter(|c| !c.is_hide_set());
        all.map(|c| c.get_name().to_owned()).collect()
    }

    #[test]
    fn every_command_has_its_page_and_every_page_its_options() {
        let folder = tempfile::tempdir().unwrap();
        let command = crate::cli::Cli::command();
        write(command.clone(), folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("uvti.1").contains("uvti"));
        for name in shown(&command) {
            let text = page(&format!("uvti-{name}.1"));
            let of = command.find_subcommand(&name).unwrap();
            for long in of.get_arguments().filter(|a| !a.is_hide_set()).filter_map(Arg::get_long) {
                let written = format!("\\-\\-{}", long.replace('-', "\\-"));
                assert!(text.contains(&written), "{name}: {long}");
            }
        }
        assert!(write(command, &folder.path().join("missing")).is_err());
    }

    #[test]
    fn completions_know_every_command() {
        let command = crate::cli::Cli::command();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(command.clone(), shell);
            assert!(shown(&command).iter().all(|name| script.contains(name.as_str())), "{shell}");
        }
    }
}
