//! What a shell and `man` want to know of the program, for `cargo xtask install`: hidden commands.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use simla_run::console;

/// Prints the completions of a shell
#[derive(Args)]
pub struct Completions {
    shell: Shell,
}

/// Prints a man page, or without PAGE the names of all
#[derive(Args)]
pub struct ManPages {
    /// Such as `simla-pretrain`
    page: Option<String>,
}

pub fn completions(arguments: Completions, mut program: clap::Command) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "simla", &mut text);
    console::answer_bytes(&text);
    Ok(ExitCode::SUCCESS)
}

pub fn man(arguments: ManPages, program: clap::Command) -> Result<ExitCode> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let pages = pages(program, String::new());
    let text = match &arguments.page {
        None => pages.iter().map(|(name, _)| format!("{name}\n")).collect::<String>().into_bytes(),
        Some(wanted) => {
            let (_, command) = pages.into_iter().find(|(name, _)| name == wanted).context("there is no such page")?;
            let mut text = Vec::new();
            Man::new(command).render(&mut text)?;
            text
        }
    };
    console::answer_bytes(&text);
    Ok(ExitCode::SUCCESS)
}

/// `command` and all commands under it that are not hidden, each with the name of its page.
fn pages(command: clap::Command, above: String) -> Vec<(String, clap::Command)> {
    let name = above + command.get_name();
    let under = command.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let under: Vec<_> = under.flat_map(|command| pages(command, format!("{name}-"))).collect();
    let page = command.display_name(name.clone());
    [(name, page)].into_iter().chain(under).collect()
}
