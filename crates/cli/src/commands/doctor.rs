//! `simla doctor`.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io::{IsTerminal, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Result;
use clap::Args;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::Serialize;
use simla_libtorch::Libtorch;

use super::cgroup;
use simla_run::{answer, console};

/// The width of the plain text.
const COLUMNS: usize = 80;
/// Where a line's text begins, after its heading.
const INDENT: usize = 10;
const GIB: f64 = (1u64 << 30) as f64;
/// A checkpoint at base size takes 4 GB, and a run keeps two and writes a third.
const LITTLE_DISK_GIB: f64 = 12.0;
/// Variables that change what libtorch does, beside those that begin with one of [`PREFIXES`].
const VARIABLES: [&str; 4] = ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBTORCH"];
const PREFIXES: [&str; 6] = ["OMP_", "GOMP_", "KMP_", "MKL_", "TORCH_", "PYTORCH_"];

/// Says what the program finds on this machine, and what that means
///
/// For reports of faults, add what `simla doctor --json` prints.
#[derive(Args)]
pub struct Arguments {
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// All that is found.
#[derive(Serialize)]
struct Findings {
    version: &'static str,
    libtorch: Option<Torch>,
    cuda: Cuda,
    gpu: Gpu,
    cpu: Cpu,
    cores: Cores,
    memory: Memory,
    disks: Vec<Disk>,
    locale: Locale,
    terminal: Terminal,
    /// Those that are set, of those that matter.
    variables: BTreeMap<String, String>,
}

/// The libtorch that the program runs with.
#[derive(Serialize)]
struct Torch {
    version: String,
    build: Option<String>,
    folder: PathBuf,
}

/// The libtorch whose CUDA library would be opened for a GPU.
#[derive(Serialize)]
struct Cuda {
    library: Option<PathBuf>,
    build: Option<String>,
    oldest_driver: Option<u32>,
    /// Where there is none: the places that were looked at, and what was wrong with each.
    searched: Vec<String>,
}

/// What NVIDIA's management library says; it opens no CUDA.
#[derive(Serialize)]
struct Gpu {
    driver: Option<String>,
    gpus: Vec<Card>,
    /// Why nothing is known of a driver or its GPUs.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Card {
    name: String,
    memory_gib: f64,
    free_gib: f64,
}

#[derive(Serialize)]
struct Cpu {
    name: Option<String>,
    /// Of the instructions that make a difference, those that it has.
    instructions: Vec<String>,
}

#[derive(Serialize)]
struct Cores {
    /// Those that this process may run on.
    affinity: Option<usize>,
    /// Those whose time a control group grants.
    quota: Option<f64>,
    /// What follows from both: whole cores.
    usable: usize,
}

#[derive(Serialize)]
struct Memory {
    total_gib: Option<f64>,
    available_gib: Option<f64>,
    /// Of a control group.
    limit_gib: Option<f64>,
}

#[derive(Serialize)]
struct Disk {
    what: &'static str,
    folder: PathBuf,
    /// Nothing where the folder is not there.
    free_gib: Option<f64>,
}

#[derive(Serialize)]
struct Locale {
    name: Option<String>,
    utf8: bool,
}

#[derive(Serialize)]
struct Terminal {
    kind: Option<String>,
    output: bool,
    messages: bool,
    columns: Option<u16>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let findings = look();
    let remarks = remarks(&findings);
    if arguments.json {
        let mut json = serde_json::to_value(&findings)?;
        json["remarks"] = remarks.into();
        console::answer_json(&json)?;
    } else {
        answer!("{}", shown(&findings, &remarks));
    }
    Ok(ExitCode::SUCCESS)
}

fn look() -> Findings {
    let libtorch = simla_libtorch::running();
    let disks = [
        Some(("current", env::current_dir().unwrap_or_else(|_| ".".into()))),
        Some(("temporary", env::temp_dir())),
        libtorch.as_ref().map(|libtorch| ("libtorch", libtorch.root.clone())),
    ];
    Findings {
        version: env!("CARGO_PKG_VERSION"),
        cuda: cuda(),
        gpu: gpu(),
        cpu: cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        cores: Cores {
            affinity: rustix::thread::sched_getaffinity(None).ok().map(|set| set.count() as usize),
            quota: cgroup::cores(),
            usable: available_parallelism().map_or(1, |cores| cores.get()),
        },
        memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), cgroup::memory()),
        disks: disks.into_iter().flatten().map(|(what, folder)| disk(what, folder)).collect(),
        locale: locale(|name| env::var_os(name)),
        terminal: Terminal {
            kind: env::var_os("TERM").map(text),
            output: stdout().is_terminal(),
            messages: stderr().is_terminal(),
            columns: terminal_size::terminal_size().map(|(width, _)| width.0),
        },
        variables: env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| VARIABLES.contains(&&**name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            .collect(),
        libtorch: libtorch.map(|found| Torch { version: found.to_string(), build: found.build, folder: found.root }),
    }
}

fn text(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

fn cuda() -> Cuda {
    match simla_libtorch::with_cuda() {
        Ok(found) => of_libtorch(&found),
        Err(none) => Cuda { library: None, build: None, oldest_driver: None, searched: none.searched },
    }
}

fn of_libtorch(found: &Libtorch) -> Cuda {
    Cuda {
        library: found.cuda_library(),
        build: found.build.clone(),
        oldest_driver: found.oldest_driver(),
        searched: Vec::new(),
    }
}

fn gpu() -> Gpu {
    let asked = || -> Result<(String, Vec<Card>), NvmlError> {
        let driver = Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init()?;
        let card = |index| {
            let device = driver.device_by_index(index)?;
            let memory = device.memory_info()?;
            Ok(Card { name: device.name()?, memory_gib: memory.total as f64 / GIB, free_gib: memory.free as f64 / GIB })
        };
        let gpus = (0..driver.device_count()?).map(card).collect::<Result<_, NvmlError>>()?;
        Ok((driver.sys_driver_version()?, gpus))
    };
    match asked() {
        Ok((driver, gpus)) => Gpu { driver: Some(driver), gpus, reason: None },
        Err(error) => Gpu {
            driver: None,
            gpus: Vec::new(),
            reason: Some(error.source().map_or(error.to_string(), |cause| cause.to_string())),
        },
    }
}

fn cpu(cpuinfo: &str) -> Cpu {
    let field = |wanted: &str| {
        let of =
            |line: &str| line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        cpuinfo.lines().filter_map(of).find(|(name, _)| name == wanted).map(|(_, value)| value)
    };
    let flags = field("flags").unwrap_or_default();
    let known = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
    let instructions = known.into_iter().filter(|name| flags.split(' ').any(|flag| flag == *name));
    Cpu { name: field("model name"), instructions: instructions.map(str::to_owned).collect() }
}

fn memory(meminfo: &str, limit: Option<u64>) -> Memory {
    // A line is `MemTotal:       16303428 kB`.
    let gib = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / GIB)
    };
    Memory {
        total_gib: gib("MemTotal"),
        available_gib: gib("MemAvailable"),
        limit_gib: limit.map(|bytes| bytes as f64 / GIB),
    }
}

fn disk(what: &'static str, folder: PathBuf) -> Disk {
    let free = rustix::fs::statvfs(&folder).ok().map(|disk| (disk.f_bavail * disk.f_frsize) as f64 / GIB);
    Disk { what, folder, free_gib: free }
}

fn locale(variable: impl Fn(&str) -> Option<OsString>) -> Locale {
    let name =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).map(text).find(|value| !value.is_empty());
    let plain = name.clone().unwrap_or_default().to_ascii_lowercase().replace('-', "");
    Locale { name, utf8: plain.contains("utf8") }
}

/// What follows from the findings, for the one who uses the program.
fn remarks(found: &Findings) -> Vec<String> {
    let mut remarks = Vec::new();
    let Findings { cuda, gpu, cores, memory, .. } = found;
    if found.libtorch.is_none() {
        remarks
            .push(format!("The program does not run with libtorch {}, for which it is made.", simla_libtorch::VERSION));
    }
    remarks.extend(remark_of_gpu(gpu, cuda));
    let machine = cores.affinity.unwrap_or(cores.usable);
    if let Some(quota) = cores.quota.filter(|quota| *quota < machine as f64) {
        remarks.push(format!(
            "A container or control group grants the time of {quota:.1} of {machine} cores: more threads than that wait for each other."
        ));
    }
    if let (Some(limit), Some(total)) = (memory.limit_gib, memory.total_gib)
        && limit < total
    {
        remarks.push(format!(
            "A container or control group ends the program beyond {limit:.1} GiB of memory: `simla bench memory` says what a batch takes."
        ));
    }
    for disk in &found.disks {
        match disk.free_gib {
            None => remarks.push(format!(
                "The {} folder, {}, cannot be used{}.",
                disk.what,
                escaped(&disk.folder),
                if disk.what == "temporary" { ": set TMPDIR to another" } else { "" }
            )),
            Some(free) if free < LITTLE_DISK_GIB && disk.what == "current" => remarks.push(format!(
                "Only {free:.1} GiB are free here: a run at base size keeps checkpoints of 4 GB each (--set keep=N)."
            )),
            _ => {}
        }
    }
    if !found.locale.utf8 {
        remarks.push("The locale is not UTF-8: letters beyond English may look wrong (set LANG=C.UTF-8).".into());
    }
    if let Some(columns) = found.terminal.columns.filter(|columns| usize::from(*columns) < COLUMNS) {
        remarks.push(format!("The terminal has {columns} columns: tables want {COLUMNS}."));
    }
    let threads = found.variables.get("OMP_NUM_THREADS").and_then(|value| value.trim().parse::<usize>().ok());
    if let Some(threads) = threads.filter(|threads| *threads != cores.usable) {
        remarks.push(format!(
            "OMP_NUM_THREADS={threads} makes libtorch calculate with {threads} threads, where {} cores may be used.",
            cores.usable
        ));
    }
    if found.variables.contains_key("LD_LIBRARY_PATH") {
        remarks.push(
            "Libraries in LD_LIBRARY_PATH come before libtorch's own: only the lib folder of torch belongs there."
                .into(),
        );
    }
    remarks
}

fn remark_of_gpu(gpu: &Gpu, cuda: &Cuda) -> Option<String> {
    let Some(driver) = &gpu.driver else {
        return Some("No NVIDIA driver works here: everything runs with --device cpu, which is the default.".into());
    };
    let Some(card) = gpu.gpus.first() else {
        return Some(format!("The NVIDIA driver {driver} has no GPU: everything runs with --device cpu."));
    };
    if cuda.library.is_none() {
        let places: String = cuda.searched.iter().map(|place| format!("; {place}")).collect();
        return Some(format!(
            "There is a GPU, but no CUDA library that fits: `pip install torch=={}` in a Python environment that you activate, or set LIBTORCH{places}.",
            simla_libtorch::VERSION
        ));
    }
    let number = driver.split('.').next().and_then(|number| number.parse::<u32>().ok());
    match (number, cuda.oldest_driver) {
        (Some(number), Some(oldest)) if number < oldest => Some(format!(
            "The NVIDIA driver {driver} is too old for this build of libtorch, which needs {oldest} or newer: update the driver."
        )),
        _ => Some(format!("--device cuda calculates on the first GPU, {}.", card.name)),
    }
}

fn escaped(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

/// The plain text: headings and findings, then what they mean.
fn shown(found: &Findings, remarks: &[String]) -> String {
    let mut page = String::new();
    let mut say = |heading: &str, text: String| {
        let (first, others) = (format!("{heading:INDENT$}"), " ".repeat(INDENT));
        let options = textwrap::Options::new(COLUMNS).initial_indent(&first).subsequent_indent(&others);
        let options = options.word_splitter(textwrap::WordSplitter::NoHyphenation);
        writeln!(page, "{}", textwrap::fill(&text, options)).expect("a string takes everything");
    };
    let gib = |amount: Option<f64>| amount.map_or("an unknown amount".into(), |amount| format!("{amount:.1} GiB"));
    let or_none = |name: &Option<String>| name.as_ref().map_or("none".into(), |name| name.escape_debug().to_string());

    say("simla", found.version.into());
    match &found.libtorch {
        Some(torch) => say("libtorch", format!("{} in {}", torch.version, escaped(&torch.folder))),
        None => say("libtorch", "of another version, or unknown".into()),
    }
    match &found.cuda.library {
        Some(library) => say("CUDA", escaped(library)),
        None => say("CUDA", "no library that fits".into()),
    }
    match (&found.gpu.driver, &found.gpu.reason) {
        (Some(driver), _) => say("driver", format!("NVIDIA {driver}")),
        (None, Some(reason)) => say("driver", format!("none ({reason})")),
        (None, None) => say("driver", "none".into()),
    }
    for card in &found.gpu.gpus {
        say("GPU", format!("{}, {:.1} of {:.1} GiB free", card.name, card.free_gib, card.memory_gib));
    }
    say("CPU", format!("{} {}", or_none(&found.cpu.name), found.cpu.instructions.join(" ")));
    let Cores { affinity, quota, usable } = &found.cores;
    let affinity = affinity.map_or(String::new(), |cores| format!("; affinity: {cores}"));
    let quota = quota.map_or(String::new(), |quota| format!("; quota: {quota:.1}"));
    say("cores", format!("{usable} may be used{affinity}{quota}"));
    let limit = found.memory.limit_gib.map_or(String::new(), |limit| format!("; limit: {limit:.1} GiB"));
    say("memory", format!("{} of {} available{limit}", gib(found.memory.available_gib), gib(found.memory.total_gib)));
    for disk in &found.disks {
        say("disk", format!("{} free in the {} folder, {}", gib(disk.free_gib), disk.what, escaped(&disk.folder)));
    }
    say("locale", or_none(&found.locale.name));
    let Terminal { kind, output, messages, columns } = &found.terminal;
    let kind_of = |terminal: &bool| if *terminal { "terminal" } else { "file or pipe" };
    let wide = columns.map_or(String::new(), |columns| format!("; {columns} columns"));
    say(
        "terminal",
        format!("{}; output to a {}, messages to a {}{wide}", or_none(kind), kind_of(output), kind_of(messages)),
    );
    for (name, value) in &found.variables {
        say("variable", format!("{name}={}", value.escape_debug()));
    }
    for remark in remarks {
        say("note", remark.clone());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(driver: Option<&str>, build: &str, quota: Option<f64>) -> Findings {
        let card = || Card { name: "NVIDIA H100".into(), memory_gib: 80.0, free_gib: 79.0 };
        let libtorch = Libtorch { root: "/opt/torch".into(), build: Some(build.into()) };
        Findings {
            version: "0.1.0",
            cuda: Cuda { library: Some("/opt/torch/lib/libtorch_cuda.so".into()), ..of_libtorch(&libtorch) },
            libtorch: Some(Torch { version: libtorch.to_string(), build: libtorch.build, folder: libtorch.root }),
            gpu: Gpu {
                driver: driver.map(str::to_owned),
                gpus: driver.iter().map(|_| card()).collect(),
                reason: driver.is_none().then(|| "no such library".into()),
            },
            cpu: cpu("model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\nmodel name\t: Some CPU\n"),
            cores: Cores { affinity: Some(16), quota, usable: 16 },
            memory: memory("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n", None),
            disks: vec![disk("temporary", "/no/such/folder".into())],
            locale: locale(|name| (name == "LANG").then(|| "de_DE.UTF-8".into())),
            terminal: Terminal { kind: None, output: false, messages: false, columns: Some(60) },
            variables: [("OMP_NUM_THREADS".into(), "1".into())].into(),
        }
    }

    #[test]
    fn remarks_say_what_the_findings_mean() {
        let said = |found: &Findings, words: &str| {
            let remarks = remarks(found);
            assert!(remarks.iter().any(|remark| remark.contains(words)), "{words}: {remarks:?}");
        };
        said(&machine(None, "cu130", None), "--device cpu");
        said(&machine(Some("570.86.15"), "cu130", None), "580 or newer");
        said(&machine(Some("580.65.06"), "cu130", None), "first GPU, NVIDIA H100");
        said(&machine(Some("570.86.15"), "cu126", None), "first GPU, NVIDIA H100");
        let found = machine(None, "cpu", Some(2.0));
        for words in ["2.0 of 16 cores", "set TMPDIR", "60 columns", "OMP_NUM_THREADS=1"] {
            said(&found, words);
        }
        assert!(!remarks(&found).iter().any(|remark| remark.contains("UTF-8")));
    }

    #[test]
    fn findings_are_read_from_the_systems_files() {
        let found = machine(None, "cpu", None);
        assert_eq!(found.memory.total_gib, Some(16.0));
        assert_eq!(found.memory.available_gib, Some(8.0));
        assert_eq!(found.cpu.name.as_deref(), Some("Some CPU"));
        assert_eq!(found.cpu.instructions, ["avx2", "avx512f"]);
        assert!(!locale(|_| None).utf8 && !locale(|name| (name == "LC_ALL").then(|| "C".into())).utf8);
    }
}
