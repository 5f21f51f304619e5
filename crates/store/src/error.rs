//! What may go wrong with objects.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;

use crate::client::{WEB, service};
use crate::options::{self, Options};

/// Longest part of a server's answer that is shown.
const MAX_ANSWER: usize = 400;
/// Shortest value of a variable that is taken for a secret.
const MIN_SECRET: usize = 4;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("{url}: {problem}")]
    Url { url: String, problem: String },
    #[error("{name}={value}: expected {expected}")]
    Variable { name: &'static str, value: String, expected: &'static str },
    #[error("{what}: {problem}; {check}")]
    Gone { what: String, problem: String, check: String },
    #[error("{what}: it has changed since it was opened; start again, and replace no shard while it is read")]
    Changed { what: String },
    #[error("cache folder {}: {error}; {} names another, {} says how large it may be", folder.display(), options::FOLDER, options::GB)]
    Cache { folder: PathBuf, error: std::io::Error },
}

impl Options {
    /// The error for what was tried for as long as it may be, or will never be.
    pub(crate) fn gone(&self, url: &str, bytes: Option<&Range<u64>>, error: &object_store::Error) -> StoreError {
        let (service, names) = service(url);
        let told = told(error);
        let check = match status(&told).unwrap_or_default() {
            404 if url.ends_with('/') => "there is no such bucket, or nothing of that name in it".into(),
            404 => "there is no such object: check its name, and that of the bucket".into(),
            401 | 403 => format!("check the credentials for {service} and what they allow: {names}"),
            400..500 if url.ends_with('/') && service == WEB => {
                "web servers give no lists: name the shards, like {000..041}.tar".into()
            }
            400..500 => format!("check the address, and {names}"),
            _ => format!(
                "tried for as long as {}={} allows: check the network, the address, and {names}",
                options::SECONDS,
                self.patience.as_secs_f64()
            ),
        };
        StoreError::Gone { what: what(url, bytes), problem: self.without_secrets(&told), check }
    }

    /// A server may repeat who asked.
    fn without_secrets(&self, text: &str) -> String {
        let is_secret = |name: &str| {
            ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD"].iter().any(|word| name.to_uppercase().contains(word))
        };
        let secrets = self.variables.iter().filter(|(name, value)| value.len() >= MIN_SECRET && is_secret(name));
        let clean = secrets.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), "***"));
        match clean.char_indices().nth(MAX_ANSWER) {
            Some((end, _)) => format!("{} ...", &clean[..end]),
            None => clean,
        }
    }
}

/// An object, or some of its bytes.
pub(crate) fn what(url: &str, bytes: Option<&Range<u64>>) -> String {
    match bytes {
        Some(range) => format!("{url}, bytes {} to {}", range.start, range.end - 1),
        None => url.into(),
    }
}

/// What an error comes from: its causes, each once; of a request that failed, without what the library says of its tries.
pub(crate) fn told(error: &dyn Error) -> String {
    let causes: Vec<String> =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    let request = causes.iter().rposition(|cause| cause.starts_with("Error performing "));
    let mut text = String::new();
    for cause in &causes[request.map_or(0, |at| (at + 1).min(causes.len() - 1))..] {
        if !text.contains(cause.as_str()) {
            text = if text.is_empty() { cause.clone() } else { format!("{text}: {cause}") };
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a server answered, which the library only tells in words.
fn status(told: &str) -> Option<u16> {
    told.split_once("status code: ")?.1.get(..3)?.parse().ok()
}
