//! How objects are read: from the environment, since it is a matter of the machine and not of a run.

use std::path::PathBuf;
use std::time::Duration;

use crate::StoreError;

/// The bytes that are fetched at once: a picture is a hundredth of it, and a request costs as much as sending a few.
const BLOCK: u64 = 4 << 20;
/// A window of eight shards of img2dataset's size, twice, and some more.
const CACHE_GB: f64 = 20.0;
/// Seconds.
const PATIENCE: f64 = 180.0;
/// Longest time for one block: 140 kB a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the cache is.
pub(crate) const FOLDER: &str = "SIMLA_STORE_CACHE";
/// How large it may be.
pub(crate) const GB: &str = "SIMLA_STORE_CACHE_GB";
/// How long a server may be away.
pub(crate) const SECONDS: &str = "SIMLA_STORE_PATIENCE";

/// How objects are read.
#[derive(Clone)]
pub struct Options {
    /// Where blocks are kept.
    pub folder: PathBuf,
    /// How many bytes of them are.
    pub bytes: u64,
    /// Bytes of a block.
    pub block: u64,
    /// How long what fails is tried again.
    pub patience: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// Names and values of the environment: credentials, regions, endpoints.
    pub variables: Vec<(String, String)>,
}

/// Variables are secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Options { folder, bytes, block, patience, timeout, variables: _ } = self;
        write!(f, "Options {{ {folder:?}, {bytes} bytes in blocks of {block}, {patience:?}, {timeout:?} }}")
    }
}

impl Options {
    /// As the environment says: `SIMLA_STORE_CACHE` (by default `simla/store` in XDG's folder of caches), `SIMLA_STORE_CACHE_GB` (20),
    /// `SIMLA_STORE_PATIENCE` (180 seconds), and what the services' own tools know.
    ///
    /// # Errors
    /// A value that is none.
    pub fn from_environment() -> Result<Self, StoreError> {
        // What is no text is no name of ours.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::of(variables.collect())
    }

    /// As these variables say.
    fn of(variables: Vec<(String, String)>) -> Result<Self, StoreError> {
        let set = |name: &str| {
            variables.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
        };
        let number = |name: &'static str, default: f64| match set(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n: &f64| *n > 0.0 && n.is_finite())
                .ok_or_else(|| StoreError::Variable { name, value: text.into(), expected: "a number above 0" }),
        };
        // A relative XDG_CACHE_HOME is to be ignored, says its specification.
        let caches = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let caches =
            caches.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache"))).unwrap_or_else(std::env::temp_dir);
        Ok(Self {
            folder: set(FOLDER).map_or_else(|| caches.join("simla").join("store"), PathBuf::from),
            bytes: (number(GB, CACHE_GB)? * 1e9) as u64,
            block: BLOCK,
            patience: Duration::try_from_secs_f64(number(SECONDS, PATIENCE)?).unwrap_or(Duration::MAX),
            timeout: TIMEOUT,
            variables,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Options, StoreError> {
        Options::of(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn the_environment_says_where_how_much_and_how_long() {
        let Options { folder, bytes, patience, .. } = of(&[("HOME", "/home/ada")]).unwrap();
        assert_eq!(
            (folder.to_str(), bytes, patience.as_secs()),
            (Some("/home/ada/.cache/simla/store"), 20_000_000_000, 180)
        );
        let own = [("XDG_CACHE_HOME", "/fast"), (GB, "0.5"), (SECONDS, "2.5")];
        let Options { folder, bytes, patience, .. } = of(&own).unwrap();
        assert_eq!((folder.to_str(), bytes, patience.as_millis()), (Some("/fast/simla/store"), 500_000_000, 2500));
        assert_eq!(of(&[(FOLDER, "/own"), ("XDG_CACHE_HOME", "/fast")]).unwrap().folder.to_str(), Some("/own"));
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "fast")]).unwrap().folder.to_str(),
            Some("/h/.cache/simla/store")
        );
        for wrong in ["0", "-1", "much", "inf"] {
            let error = of(&[(GB, wrong)]).unwrap_err().to_string();
            assert_eq!(error, format!("SIMLA_STORE_CACHE_GB={wrong}: expected a number above 0"));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = of(&[("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")]).unwrap();
        assert!(!format!("{options:?}").contains("wJalr"));
    }
}
