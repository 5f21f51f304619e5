// The program needs the same as the tests of the library: cargo passes these arguments on to no other package.
include!("../simla/link.rs");

fn main() {
    println!("cargo::rerun-if-changed=../simla/link.rs");
    link();
}
