// Compiles the files in C++, and lets tests find libtorch.

include!("link.rs");

fn main() {
    println!("cargo::rerun-if-changed=link.rs");
    for part in ["caught.hpp", "linear.hpp", "linear.cpp", "operations.cpp", "group.cpp", "stand_ins"] {
        println!("cargo::rerun-if-changed=src/torch/{part}");
    }
    let Some(libtorch) = link() else {
        return;
    };
    let headers = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // of libtorch's headers
        .define("USE_C10D_GLOO", None)
        .include("src/torch/stand_ins")
        .include(headers.join("torch/csrc/api/include"))
        .include(headers)
        .files(["linear", "operations", "group"].map(|part| format!("src/torch/{part}.cpp")))
        .compile("simla_torch");
}
