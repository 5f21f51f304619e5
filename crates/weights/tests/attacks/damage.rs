//! Honest files, cut off at every byte and with random bits turned.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::make::{dict, pickle, text, torch_zip, two_floats};
use crate::{attack, refused, use_all};

const FILES: [&str; 6] = [
    "every.zip.pth",
    "every.protocol4.pth",
    "every.stream.pth",
    "every.safetensors",
    "module.zip.pkl",
    "module.stream.pkl",
];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn cut_off_at_every_byte() {
    for name in ["module.zip.pkl", "module.stream.pkl", "every.safetensors"] {
        let bytes = fixture(name);
        for length in 0..bytes.len() {
            refused(attack(&bytes[..length]));
        }
    }
}

#[test]
fn a_pickle_cut_off_at_every_byte() {
    // The archive around it is whole and its checksums are right.
    let pickle = pickle(&[&dict(&[(text("a"), two_floats())])]);
    for length in 0..pickle.len() {
        refused(attack(&torch_zip(&pickle[..length], &[("0", &[0; 8])])));
    }
}

#[test]
fn random_bits_turned() {
    let mut random = ChaCha8Rng::seed_from_u64(2203_14395);
    for name in FILES {
        let bytes = fixture(name);
        for _ in 0..600 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..8) {
                let at = random.random_range(0..damaged.len());
                damaged[at] ^= 1 << random.random_range(0..8);
            }
            // Any outcome but a crash, a hang or a flood of memory.
            if let Ok(archive) = attack(&damaged) {
                let _ = use_all(&archive);
            }
        }
    }
}

#[test]
fn random_bits_turned_in_the_pickle() {
    // With the right checksum, so that the damage gets as far as the machine.
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let honest = pickle(&[&dict(&[(text("a"), two_floats()), (text("b"), two_floats())])]);
    for _ in 0..4000 {
        let mut damaged = honest.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..damaged.len());
            damaged[at] = random.random();
        }
        if let Ok(archive) = attack(&torch_zip(&damaged, &[("0", &[0; 8])])) {
            let _ = use_all(&archive);
        }
    }
}

#[test]
fn random_instructions() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    const INSTRUCTIONS: &[u8] = b"(012NJKMGXU]ae)t}dsuhqcRbQ\x80\x81\x85\x86\x87\x88\x8a\x8c\x8f\x90\x91\x93\x94\x95";
    for _ in 0..4000 {
        let program: Vec<u8> = (0..random.random_range(1..60))
            .map(|_| match random.random_range(0..4) {
                0 => random.random_range(0..4),
                _ => INSTRUCTIONS[random.random_range(0..INSTRUCTIONS.len())],
            })
            .collect();
        if let Ok(archive) = attack(&torch_zip(&pickle(&[&program]), &[])) {
            let _ = use_all(&archive);
        }
    }
}

#[test]
fn files_that_are_something_else() {
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\x80\x02}.", "torch.save did not write"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89HDF\r\n", "begins with \\x89HDF"),
    ] {
        let message = refused(attack(bytes));
        assert!(message.contains(found), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(simla_weights::read(folder.path(), &Default::default()).is_err());
    let missing = simla_weights::read(&folder.path().join("none.pth"), &Default::default()).unwrap_err();
    assert!(missing.to_string().contains("none.pth: cannot read it"), "{missing}");
}
