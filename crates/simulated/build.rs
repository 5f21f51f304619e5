// Builds the device as what libtorch and a driver would be: `lib/libtorch_cuda.so` and `libcuda.so.1`.

include!("../train/link.rs");

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../train/link.rs");
    for source in ["device.cpp", "driver.cpp"] {
        println!("cargo::rerun-if-changed=src/{source}");
    }
    let Some(libtorch) = link() else {
        return;
    };
    let note = fs::read_to_string(libtorch.join("lib-folder"));
    let libraries = note.map_or_else(|_| libtorch.join("lib"), PathBuf::from);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let lib = out.join("lib");
    fs::create_dir_all(&lib).expect("cargo's folder can be written");
    let headers = libtorch.join("include");
    let of_libtorch = |compiler: &mut Command| {
        compiler.arg("-I").arg(&headers).arg("-I").arg(headers.join("torch/csrc/api/include"));
        compiler.arg("-L").arg(&libraries).args(["-ltorch_cpu", "-lc10"]);
    };
    library("src/device.cpp", &lib.join("libtorch_cuda.so"), of_libtorch);
    let by_its_name = |compiler: &mut Command| {
        compiler.args(["-Wl,-soname,libcuda.so.1", "-ldl"]);
    };
    library("src/driver.cpp", &out.join("libcuda.so.1"), by_its_name);
    // The program looks for a whole libtorch, of its own version.
    let cpu = lib.join("libtorch_cpu.so");
    let _ = fs::remove_file(&cpu);
    symlink(libraries.join("libtorch_cpu.so"), cpu).expect("a link can be made");
    let version = fs::read_to_string(libtorch.join("build-version")).unwrap_or_else(|_| "2.11.0".into());
    fs::write(out.join("build-version"), version).expect("cargo's folder can be written");
}

/// Compiles `source` to a shared library; cc makes static ones alone.
fn library(source: &str, library: &Path, more: impl FnOnce(&mut Command)) {
    let compiler = cc::Build::new().cpp(true).std("c++17").opt_level(1).debug(false).warnings(false).get_compiler();
    let mut command = compiler.to_command();
    command.arg(source).args(["-w", "-fPIC", "-shared", "-o"]).arg(library);
    more(&mut command);
    let status = command.status().unwrap_or_else(|error| panic!("{}: {error}", compiler.path().display()));
    assert!(status.success(), "{source} does not compile");
}
