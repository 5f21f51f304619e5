// Lets programs and tests find libtorch when they run, so that no LD_LIBRARY_PATH is needed. Part of several build scripts.

use std::path::PathBuf;
use std::{env, fs};

/// The Pythons that torch 2.11 is made for.
const PYTHONS: std::ops::RangeInclusive<u32> = 10..=14;

/// The folder of libtorch, if it is known.
fn link() -> Option<PathBuf> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // Inside the checkout it is always set, by .cargo/config.toml. Elsewhere finding libtorch is the builder's affair.
    let libtorch = PathBuf::from(env::var_os("LIBTORCH")?);
    // `cargo xtask setup` notes where the libraries really are. A libtorch that it did not prepare has them in `lib`.
    let note = libtorch.join("lib-folder");
    println!("cargo::rerun-if-changed={}", note.display());
    let folder = fs::read_to_string(&note)
        .map(PathBuf::from)
        .unwrap_or_else(|_| libtorch.join("lib"));
    if !folder.join("libtorch_cpu.so").is_file() {
        println!(
            "cargo::error=there is no libtorch in {}: run `cargo xtask setup` first",
            folder.display()
        );
        return None;
    }
    println!(
        "cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{}",
        folder.display()
    );
    // The libraries that libtorch itself needs are found when the program runs; GNU ld asks for them here otherwise.
    println!("cargo::rustc-link-arg=-Wl,--allow-shlib-undefined");
    // On a machine with another libtorch: a program in the `bin` of a Python environment finds that environment's torch.
    for minor in PYTHONS {
        println!(
            "cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/python3.{minor}/site-packages/torch/lib"
        );
    }
    Some(libtorch)
}
