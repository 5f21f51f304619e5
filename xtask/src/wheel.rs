//! The Python packages that libtorch is taken from: pinned, checked by hash, unpacked in part.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// A wheel for Linux x86-64.
pub struct Wheel {
    /// The name of the package.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// The size of the file.
    pub bytes: u64,
    /// What is unpacked of it: files, and folders with `/` at the end.
    pub kept: &'static [&'static str],
    /// The bytes of what is unpacked.
    pub kept_bytes: u64,
}

/// What the CPU libraries of libtorch need: the wheel of torch has CUDA in it, and so its `libtorch_cpu.so` wants the
/// CUDA runtime and the profiler's library beside it, but no other CUDA package (those are 4 GB).
pub const WHEELS: [Wheel; 3] = [
    Wheel {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        bytes: 2_243_632,
        kept: &["nvidia/cu13/lib/libcudart.so.13"],
        kept_bytes: 704_288,
    },
    Wheel {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        bytes: 10_715_597,
        kept: &["nvidia/cu13/lib/libcupti.so.13"],
        kept_bytes: 4_152_208,
    },
    Wheel {
        name: "torch",
        version: simla_libtorch::VERSION,
        sha256: "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        bytes: 530_712_279,
        kept: &[
            "torch/include/",
            "torch/lib/libc10.so",
            "torch/lib/libgomp.so.1",
            "torch/lib/libtorch_cpu.so",
            "torch/version.py",
        ],
        kept_bytes: 491_716_796,
    },
];

impl Wheel {
    /// How the file is called in a folder of downloads: `torch-2.11.0-cp312-...whl`.
    pub fn is_file(&self, name: &str) -> bool {
        let start = format!("{}-{}-", self.name.replace('-', "_"), self.version);
        name.starts_with(&start) && name.ends_with(".whl")
    }

    /// The line of a requirements file that asks for exactly this file.
    pub fn requirement(&self) -> String {
        format!("{}=={} --hash=sha256:{}", self.name, self.version, self.sha256)
    }

    /// Opens `path` if it is this wheel, byte for byte.
    ///
    /// # Errors
    /// If the file cannot be read or has another hash.
    pub fn open(&self, path: &Path) -> Result<File> {
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut block).with_context(|| format!("cannot read {}", path.display()))?;
            if read == 0 {
                break;
            }
            hash.update(&block[..read]);
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(
            found == self.sha256,
            "{} is damaged or not {} {}: its SHA-256 is {found}, expected {}",
            path.display(),
            self.name,
            self.version,
            self.sha256
        );
        file.rewind()?;
        Ok(file)
    }

    /// Unpacks what is kept of this wheel into `folder`; `written` hears of every block written.
    ///
    /// # Errors
    /// If the archive is damaged, lacks a part that is kept, or the disk is full.
    pub fn unpack(&self, file: File, folder: &Path, mut written: impl FnMut(u64)) -> Result<()> {
        let mut archive = ZipArchive::new(io::BufReader::new(file))?;
        let mut found = vec![false; self.kept.len()];
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let Some(name) = entry.enclosed_name().filter(|_| entry.is_file()) else {
                continue;
            };
            let wanted = |kept: &&str| {
                if kept.ends_with('/') { name.starts_with(kept) } else { name == Path::new(kept) }
            };
            let Some(part) = self.kept.iter().position(wanted) else {
                continue;
            };
            found[part] = true;
            let path = folder.join(&name);
            write(&mut entry, &path, &mut written).with_context(|| format!("cannot write {}", path.display()))?;
        }
        for (part, found) in self.kept.iter().zip(found) {
            ensure!(found, "the package {} {} has no {part}", self.name, self.version);
        }
        Ok(())
    }
}

fn write(from: &mut impl Read, path: &Path, written: &mut impl FnMut(u64)) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut to = File::create(path)?;
    let mut block = vec![0; 1 << 18];
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&block[..read])?;
        written(read as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use zip::write::SimpleFileOptions;

    const PARTS: Wheel = Wheel {
        name: "some-parts",
        version: "1.2",
        sha256: "",
        bytes: 0,
        kept: &["a/include/", "a/lib/kept.so"],
        kept_bytes: 9,
    };

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn unpacked(bytes: &[u8], folder: &Path) -> Result<u64> {
        let file = folder.join("archive.zip");
        fs::write(&file, bytes).unwrap();
        let mut total = 0;
        PARTS.unpack(File::open(file).unwrap(), &folder.join("out"), |bytes| total += bytes)?;
        Ok(total)
    }

    #[test]
    fn only_what_is_kept_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let entries = [
            ("a/include/x/y.h", "1234"),
            ("a/lib/kept.so", "56789"),
            ("a/lib/kept.so.other", "no"),
            ("a/includes", "no"),
            ("b/include/z.h", "no"),
        ];
        assert_eq!(unpacked(&archive(&entries), folder.path()).unwrap(), PARTS.kept_bytes);
        let out = folder.path().join("out");
        assert_eq!(fs::read_to_string(out.join("a/include/x/y.h")).unwrap(), "1234");
        assert_eq!(fs::read_to_string(out.join("a/lib/kept.so")).unwrap(), "56789");
        assert_eq!(fs::read_dir(out.join("a/lib")).unwrap().count(), 1);
        assert!(!out.join("a/includes").exists() && !out.join("b").exists());
    }

    #[test]
    fn a_missing_part_and_a_damaged_archive_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let incomplete = archive(&[("a/include/x.h", "1")]);
        let error = unpacked(&incomplete, folder.path()).unwrap_err().to_string();
        assert!(error.contains("a/lib/kept.so"), "{error}");

        let whole = archive(&[("a/include/x.h", "1"), ("a/lib/kept.so", "5")]);
        assert!(unpacked(&whole[..whole.len() / 2], folder.path()).is_err());
    }

    #[test]
    fn entries_that_climb_out_are_not_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let climbing = archive(&[("a/include/../../../escaped", "x"), ("a/include/x.h", "1"), ("a/lib/kept.so", "5")]);
        unpacked(&climbing, folder.path()).unwrap();
        assert!(!folder.path().join("escaped").exists() && !folder.path().join("out/escaped").exists());
    }

    #[test]
    fn a_wheel_with_another_hash_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        let abc = Wheel { sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", ..PARTS };
        assert!(abc.open(&path).is_ok());
        fs::write(&path, "abd").unwrap();
        let error = abc.open(&path).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains(abc.sha256), "{error}");
    }

    #[test]
    fn downloads_are_told_apart() {
        let [runtime, cupti, torch] = &WHEELS;
        assert!(torch.is_file("torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl"));
        assert!(!torch.is_file("torch-2.11.0.post1-cp312-cp312-manylinux_2_28_x86_64.whl"));
        assert!(runtime.is_file("nvidia_cuda_runtime-13.0.96-py3-none-any.whl"));
        assert!(!runtime.is_file("nvidia_cuda_runtime-13.0.96-py3-none-any.whl.part"));
        assert!(!cupti.is_file("nvidia_cuda_runtime-13.0.96-py3-none-any.whl"));
        assert!(torch.requirement().starts_with("torch==2.11.0 --hash=sha256:0f68"));
    }
}
