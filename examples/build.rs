// Lets the examples find libtorch.

include!("../crates/train/link.rs");

fn main() {
    println!("cargo::rerun-if-changed=../crates/train/link.rs");
    link();
}
