// Compiles the one file in C++, and lets tests find libtorch.

include!("link.rs");

fn main() {
    println!("cargo::rerun-if-changed=link.rs");
    println!("cargo::rerun-if-changed=src/torch/linear.cpp");
    let Some(libtorch) = link() else {
        return;
    };
    let headers = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false) // of libtorch's headers
        .include(headers.join("torch/csrc/api/include"))
        .include(headers)
        .file("src/torch/linear.cpp")
        .compile("simla_torch");
}
