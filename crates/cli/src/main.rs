//! The command line of SIMLA.

#![deny(clippy::print_stdout, clippy::print_stderr)] // simla_run::console does it

mod allocator;
mod commands;
mod model;

use std::io;
use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    ablate, ask, attention, bench, compare, data, demo, doctor, dvae, embed, entail, eval, export, finetune, ground,
    import, keywords, pretrain, report, score, search, serve, settings, shell,
};
use simla_run::compute::is_said_elsewhere;
use simla_run::launch::end_with_launcher;
use simla_run::{console, say};

/// Learns from photographs with captions, and nothing else, to align images with sentences, patches with words, and images
/// with concepts (SIMLA, ECCV 2022).
#[derive(Parser)]
#[command(name = "simla", version, arg_required_else_help = true, max_term_width = 80)]
#[command(after_help = "\
The way through: `simla pretrain` learns a model from your pictures, `simla eval` says how good it is,
`simla report` shows how the run goes.
`simla demo` does all of it on drawn scenes in about ten minutes.")]
struct Arguments {
    /// Pixels that a picture may have; in training, --set max_pixels=N counts more
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    max_pixels: Option<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pretrain(pretrain::Arguments),
    #[command(subcommand)]
    Finetune(finetune::Command),
    #[command(subcommand)]
    Data(data::Command),
    #[command(subcommand)]
    Import(import::Command),
    #[command(subcommand)]
    Export(export::Command),
    #[command(subcommand)]
    Dvae(dvae::Command),
    #[command(subcommand)]
    Eval(eval::Command),
    #[command(subcommand)]
    Score(score::Command),
    Ask(ask::Arguments),
    Entail(entail::Arguments),
    Compare(compare::Arguments),
    Ground(ground::Arguments),
    Keywords(keywords::Arguments),
    Attention(attention::Arguments),
    Search(search::Arguments),
    Embed(embed::Arguments),
    Serve(serve::Arguments),
    Ablate(ablate::Arguments),
    Demo(demo::Arguments),
    #[command(subcommand)]
    Bench(bench::Command),
    Report(report::Arguments),
    Settings(settings::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Completions(shell::Completions),
    #[command(hide = true)]
    Man(shell::ManPages),
}

impl Command {
    /// Whether it is mostly about calculating with libtorch, for longer than a start of the program takes.
    fn computes(&self) -> bool {
        matches!(
            self,
            Self::Pretrain(_)
                | Self::Finetune(_)
                | Self::Dvae(_)
                | Self::Eval(_)
                | Self::Ablate(_)
                | Self::Demo(_)
                | Self::Bench(_)
        )
    }
}

fn main() -> ExitCode {
    end_with_launcher();
    allocator::keep_freed_memory();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => return printed(&help),
    };
    if arguments.command.computes() {
        simla_train::torch::threads::wait_briefly();
    }
    if let Some(pixels) = arguments.max_pixels {
        simla_image::set_max_pixels(pixels);
    }
    // libtorch's exceptions reach us as panics: they are caught and reported as errors, without a Rust backtrace before.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(|| match arguments.command {
        Command::Pretrain(arguments) => pretrain::run(arguments),
        Command::Finetune(command) => finetune::run(command),
        Command::Data(command) => data::run(command),
        Command::Import(command) => import::run(command),
        Command::Export(command) => export::run(command),
        Command::Dvae(command) => dvae::run(command),
        Command::Eval(command) => eval::run(command),
        Command::Score(command) => score::run(command),
        Command::Ask(arguments) => ask::run(arguments),
        Command::Entail(arguments) => entail::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Ground(arguments) => ground::run(arguments),
        Command::Keywords(arguments) => keywords::run(arguments),
        Command::Attention(arguments) => attention::run(arguments),
        Command::Search(arguments) => search::run(arguments),
        Command::Embed(arguments) => embed::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Ablate(arguments) => ablate::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Bench(command) => bench::run(command),
        Command::Report(arguments) => report::run(arguments),
        Command::Settings(arguments) => settings::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments, Arguments::command()),
        Command::Man(arguments) => shell::man(arguments, Arguments::command()),
    });
    let code = match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            if !is_said_elsewhere(&error) {
                console::complain(format_args!("error: {}", console::in_full(&error)));
            }
            ExitCode::FAILURE
        }
        Err(panic) => {
            let message =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            let message = message.unwrap_or("no message");
            console::complain(format_args!("error: this is a defect of simla, please report it: {message}"));
            ExitCode::from(101)
        }
    };
    match console::answered() {
        Ok(()) => code,
        Err(error) => unanswered(&error),
    }
}

/// Help that was asked for, or what is wrong with the arguments.
fn printed(help: &clap::Error) -> ExitCode {
    let code = ExitCode::from(help.exit_code() as u8);
    match help.print() {
        Err(error) if !help.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => unanswered(&error),
        _ => code,
    }
}

fn unanswered(error: &io::Error) -> ExitCode {
    say!("error: the answer cannot be written to standard output: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of `command` and of those below it, in which a line is too long for a terminal of 80 columns.
    fn too_long(command: &mut clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
            let long = help.lines().filter(|line| line.chars().count() > 80);
            found.extend(long.map(|line| format!("{path}: {line}")));
        }
        command.get_subcommands_mut().for_each(|command| too_long(command, &path, found));
    }

    #[test]
    fn the_help_of_every_command_fits_80_columns() {
        let mut command = Arguments::command();
        command.build();
        let mut found = Vec::new();
        too_long(&mut command, "", &mut found);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
