//! Where a result may be written: never over what was read, and under the name of its own format.

use crate::error::PicturesError;
use std::fs::Metadata;
use std::path::Path;

/// Whether a result may be written to `path`: a file of a format that ends in one of `endings` ("png"), made from `inputs`.
///
/// # Errors
/// When the name ends otherwise, when there is a folder, when it is one of the inputs (by whatever name or link), and when another
/// file is there and `force` does not say to overwrite it.
pub fn writable(
    path: &Path,
    endings: &'static [&'static str],
    inputs: &[impl AsRef<Path>],
    force: bool,
) -> Result<(), PicturesError> {
    named(path, endings)?;
    let Ok(found) = path.metadata() else {
        return Ok(());
    };
    let path = path.to_path_buf();
    if found.is_dir() {
        Err(PicturesError::IsAFolder { path })
    } else if inputs.iter().any(|input| same_file(&path, &found, input.as_ref())) {
        Err(PicturesError::IsAnInput { path })
    } else if force {
        Ok(())
    } else {
        Err(PicturesError::Exists { path })
    }
}

/// Refuses a name that does not end as its format does, in whatever case.
pub(crate) fn named(path: &Path, endings: &'static [&'static str]) -> Result<(), PicturesError> {
    let found = path.extension();
    match endings.iter().any(|ending| found.is_some_and(|found| found.eq_ignore_ascii_case(ending))) {
        true => Ok(()),
        false => Err(PicturesError::Ending { path: path.to_path_buf(), endings }),
    }
}

fn same_file(path: &Path, found: &Metadata, input: &Path) -> bool {
    #[cfg(unix)]
    if let Ok(input) = input.metadata() {
        use std::os::unix::fs::MetadataExt;
        if (input.dev(), input.ino()) == (found.dev(), found.ino()) {
            return true;
        }
    }
    let _ = found; // where files have no numbers that the standard library tells
    matches!((path.canonicalize(), input.canonicalize()), (Ok(path), Ok(input)) if path == input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn inputs_other_formats_and_other_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["photo.png", "other.png", "input.PNG"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir(at("folder.png")).unwrap();
        fs::hard_link(at("photo.png"), at("hard.png")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("photo.png"), at("soft.png")).unwrap();
        let (photo, missing) = (at("photo.png"), at("missing.png"));
        let asked = |name: &str, force| match writable(&at(name), &["png"], &[&photo, &missing], force) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        for force in [false, true] {
            for name in ["new.png", "new/folder.PNG", "missing.png"] {
                assert_eq!(asked(name, force), "", "{name}");
            }
            let inputs = [
                "photo.png",
                "folder.png/../photo.png",
                "hard.png",
                #[cfg(unix)]
                "soft.png",
            ];
            for name in inputs {
                assert!(asked(name, force).contains("never overwritten"), "{name}");
            }
            for name in ["photo.jpg", "photo", ".png", "photo.png.txt"] {
                assert!(asked(name, force).contains("must end in .png"), "{name}");
            }
            assert!(asked("folder.png", force).contains("is a folder"));
        }
        assert!(asked("other.png", false).contains("--force"));
        assert_eq!(asked("other.png", true), "");
        let error = writable(&at("features.csv"), &["safetensors", "npy", "parquet"], &[&photo], true).unwrap_err();
        assert!(error.to_string().contains("must end in .safetensors, .npy or .parquet"), "{error}");
    }
}
