//! Runs cargo and `simla`, one step after the other.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Builds the optimised `simla` and returns the file.
///
/// # Errors
/// If it does not compile.
pub fn build(checkout: &Path) -> Result<PathBuf> {
    let mut command = cargo(checkout);
    command.args(["build", "--release", "--package", "simla-cli", "--message-format=json-render-diagnostics"]);
    eprintln!("Building simla (the first time takes minutes)");
    let started = Instant::now();
    let mut running = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut executable = None;
    for line in BufReader::new(running.stdout.take().context("cargo has no output")?).lines() {
        executable = executable.or(executable_in(&line?));
    }
    let status = running.wait()?;
    ensure!(status.success(), "`{}` failed ({status})", shown(&command));
    eprintln!("Building simla: done in {}", seconds(started.elapsed()));
    executable.context("cargo built no program `simla`")
}

/// The program in one of cargo's JSON messages, if the message is about `simla`.
fn executable_in(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_simla = message["reason"] == "compiler-artifact" && message["target"]["name"] == "simla";
    message["executable"].as_str().filter(|_| is_simla).map(PathBuf::from)
}

/// Builds `simla` and runs `simla demo` in the folder of the caller.
///
/// # Errors
/// If either fails.
pub fn demo(checkout: &Path, arguments: &[OsString]) -> Result<()> {
    let mut command = Command::new(build(checkout)?);
    command.arg("demo").args(arguments);
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    ensure!(status.success(), "`{}` failed ({status})", shown(&command));
    Ok(())
}

/// Checks the format, runs the lints and all tests.
///
/// # Errors
/// If a step fails, with its command.
pub fn test(checkout: &Path) -> Result<()> {
    let steps: [(&str, Option<&str>, &[&str]); 3] = [
        ("format", Some("rustfmt"), &["fmt", "--all", "--check"]),
        ("lints", Some("clippy"), &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("tests", None, &["test", "--workspace"]),
    ];
    let started = Instant::now();
    let mut left_out = Vec::new();
    for (index, (name, component, arguments)) in steps.iter().enumerate() {
        let mut command = cargo(checkout);
        command.args(*arguments);
        eprintln!("\n[{}/{}] {name}: {}", index + 1, steps.len(), shown(&command));
        if let Some(component) = component
            && !has_component(checkout, arguments[0], component)
        {
            let advice = format!("{component} is missing: install it with `rustup component add {component}`");
            ensure!(env::var_os("CI").is_none_or(|value| value.is_empty()), "{advice}");
            eprintln!("[{}/{}] {name}: LEFT OUT, {advice}", index + 1, steps.len());
            left_out.push(*name);
            continue;
        }
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let duration = seconds(begun.elapsed());
        if !status.success() {
            bail!("{name}: `{}` failed after {duration} ({status})", shown(&command));
        }
        eprintln!("[{}/{}] {name}: passed in {duration}", index + 1, steps.len());
    }
    let except = if left_out.is_empty() { String::new() } else { format!(", WITHOUT {}", left_out.join(" and ")) };
    eprintln!("\nAll passed in {}{except}.", seconds(started.elapsed()));
    Ok(())
}

/// Whether cargo has the subcommand of this component of Rust, which is installed if rustup can.
fn has_component(checkout: &Path, subcommand: &str, component: &str) -> bool {
    let works = || {
        let mut command = cargo(checkout);
        command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works() {
        return true;
    }
    eprintln!("{component} is missing: trying `rustup component add {component}`");
    let added = Command::new("rustup").args(["component", "add", component]).current_dir(checkout).status();
    added.is_ok_and(|status| status.success()) && works()
}

/// The cargo that runs us, in the checkout.
fn cargo(checkout: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(checkout);
    command
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A duration for people: `4.2 s` or `3 min 5 s`.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 5 s");
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let of_test = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#;
        let of_library = r#"{"reason":"compiler-artifact","target":{"name":"simla"},"executable":null}"#;
        let of_program = r#"{"reason":"compiler-artifact","target":{"name":"simla"},"executable":"/t/release/simla"}"#;
        assert_eq!(executable_in(of_test), None);
        assert_eq!(executable_in(of_library), None);
        assert_eq!(executable_in("not JSON"), None);
        assert_eq!(executable_in(of_program), Some("/t/release/simla".into()));
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["test", "--workspace"]);
        assert_eq!(shown(&command), "cargo test --workspace");
    }
}
