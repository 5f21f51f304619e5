//! The command line of SIMLA.

mod allocator;
mod commands;
mod model;

use std::panic;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    ablate, ask, attention, bench, compare, data, demo, doctor, dvae, entail, eval, export, finetune, ground, import,
    keywords, pretrain, report, score, search, serve, shell,
};

/// Learns from photographs with captions, and nothing else, to align images with sentences, patches with words, and images
/// with concepts (SIMLA, ECCV 2022).
#[derive(Parser)]
#[command(name = "simla", version, arg_required_else_help = true, max_term_width = 120)]
#[command(after_help = "\
The way through: `simla pretrain` learns a model from your pictures, `simla eval` says how good it is,
`simla report` shows how the run goes.
`simla demo` does all of it on drawn scenes in about ten minutes.")]
struct Arguments {
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
    Serve(serve::Arguments),
    Ablate(ablate::Arguments),
    Demo(demo::Arguments),
    #[command(subcommand)]
    Bench(bench::Command),
    Report(report::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Completions(shell::Completions),
    #[command(hide = true)]
    Man(shell::ManPages),
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let arguments = Arguments::parse();
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
        Command::Serve(arguments) => serve::run(arguments),
        Command::Ablate(arguments) => ablate::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Bench(command) => bench::run(command),
        Command::Report(arguments) => report::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments, Arguments::command()),
        Command::Man(arguments) => shell::man(arguments, Arguments::command()),
    });
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
        Err(panic) => {
            let message =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            eprintln!("error: this is a defect of simla, please report it: {}", message.unwrap_or("no message"));
            ExitCode::from(101)
        }
    }
}
