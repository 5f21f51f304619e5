// The program needs the same as the tests of the library: cargo passes these arguments on to no other package.
include!("../train/link.rs");

fn main() {
    println!("cargo::rerun-if-changed=../train/link.rs");
    link();
}
