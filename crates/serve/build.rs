// Lets tests find libtorch.

include!("../train/link.rs");

fn main() {
    println!("cargo::rerun-if-changed=../train/link.rs");
    link();
}
