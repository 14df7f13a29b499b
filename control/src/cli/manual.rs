//! What shells complete, and the manual pages: both are made from the command line's definition.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure, exit, offline::print_text};

pub fn completions(shell: Shell) -> Result<(), Failure> {
    print_text(&completed(shell));
    Ok(())
}

fn completed(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(), "sluice", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub fn pages(page: Option<&str>, dir: Option<&Path>) -> Result<(), Failure> {
    let mut command = shown();
    command.build();
    if let Some(dir) = dir {
        std::fs::create_dir_all(dir)?;
        for (name, page) in all(&command)? {
            std::fs::write(dir.join(name), page)?;
        }
        return Ok(());
    }
    let mut wanted = &command;
    for word in page.into_iter().flat_map(|page| page.split([' ', '-'])) {
        wanted = wanted.find_subcommand(word).ok_or_else(|| {
            Failure::new(exit::BAD_SPEC, format!("there is no command `{}`", page.unwrap_or(word)))
        })?;
    }
    print_text(&written(wanted)?.1);
    Ok(())
}

/// The pages of `command` and of all below it, with the names of their files.
fn all(command: &Command) -> std::io::Result<Vec<(String, String)>> {
    let mut pages = vec![written(command)?];
    for below in command.get_subcommands().filter(|one| one.get_name() != "help") {
        pages.extend(all(below)?);
    }
    Ok(pages)
}

fn written(command: &Command) -> std::io::Result<(String, String)> {
    // Of `sluice keys new` it is sluice-keys-new.1.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    let source = concat!("sluice ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name.clone()).source(source).manual("Sluice");
    man.render(&mut page)?;
    Ok((format!("{name}.1"), String::from_utf8_lossy(&page).into_owned()))
}

/// The command line without what is for ourselves alone, such as how the supervisor starts others.
fn shown() -> Command {
    let whole = Cli::command();
    let below = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
    let shown = Command::new("sluice").version(env!("CARGO_PKG_VERSION")).subcommands(below);
    let shown = shown.about(whole.get_about().cloned().unwrap_or_default());
    shown.after_help(whole.get_after_help().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &Command) -> Vec<String> {
        command.get_subcommands().map(|one| one.get_name().to_owned()).collect()
    }

    #[test]
    fn shells_complete_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let text = completed(shell);
            for name in names(&shown()) {
                assert!(text.contains(&name), "{shell} knows nothing of {name}");
            }
            assert!(text.contains("dry-run"), "{shell}");
            assert!(!text.contains("run-control"), "{shell} completes what is not for people");
        }
    }

    #[test]
    fn every_command_has_its_page() {
        let mut command = shown();
        command.build();
        let pages = all(&command).unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(file, _)| file == name);
            found.map_or_else(|| panic!("no {name}"), |(_, text)| text.as_str())
        };
        let main = page("sluice.1");
        for name in names(&command).into_iter().filter(|name| name != "help") {
            assert!(main.contains(&format!("sluice\\-{name}")), "{name}: {main}");
            let own = page(&format!("sluice-{name}.1"));
            assert!(own.contains("Example"), "{name}: {own}");
        }
        assert!(page("sluice-keys-new.1").contains("prefix"));
        assert!(page("sluice-import-kong.1").contains("Kong"));
        assert!(!pages.iter().any(|(name, _)| name.contains("run")), "not for people");
    }
}
