//! Who is asked for an object: found by its address, with what the environment says about it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::told;
use crate::{Options, StoreError};

/// Longest time to be let in.
const CONNECT: Duration = Duration::from_secs(5);
/// Between the first tries; each pause is up to twice the one before.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between later ones.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What gives files to anyone.
pub(crate) const WEB: &str = "a web server";
/// Beginnings of addresses, and what they are called.
const SCHEMES: [(&str, &str); 5] =
    [("s3", "S3"), ("gs", "Google Cloud Storage"), ("az", "Azure"), ("https", WEB), ("http", WEB)];

/// Whether it is the address of an object, and no path.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme);
    SCHEMES.iter().any(|(known, _)| scheme == Some(known))
}

/// Whether an address may stand in messages and in a run's folder.
///
/// # Errors
/// One that makes no sense, or has a user or a signature in it.
pub fn check(text: &str) -> Result<(), StoreError> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Url, StoreError> {
    let url = Url::parse(text).map_err(|error| StoreError::Url { url: text.into(), problem: told(&error) })?;
    // Azure's have a container where others have a user.
    let has_user = url.password().is_some() || (!url.username().is_empty() && url.scheme() != "az");
    if has_user || url.query().is_some() || url.fragment().is_some() {
        let problem = "expected an address without user, `?` and `#`; credentials come from the environment".into();
        return Err(StoreError::Url { url: format!("{}://...", url.scheme()), problem });
    }
    Ok(url)
}

/// What an address' service is called, and the variables that say who asks whom there.
pub(crate) fn service(url: &str) -> (&'static str, &'static str) {
    let found = SCHEMES.iter().find(|(scheme, _)| url.split_once("://").is_some_and(|(of, _)| of == *scheme));
    let service = found.map_or("it", |(_, name)| *name);
    let names = match service {
        "S3" => {
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL (AWS_SKIP_SIGNATURE=true for what is \
             public)"
        }
        "Google Cloud Storage" => {
            "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT (GOOGLE_SKIP_SIGNATURE=true for what is public)"
        }
        "Azure" => {
            "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN (AZURE_SKIP_SIGNATURE=true for what is public)"
        }
        _ => "HTTPS_PROXY",
    };
    (service, names)
}

/// Clients by scheme and host: a bucket, a container, a server.
#[derive(Debug)]
pub(crate) struct Clients {
    options: Options,
    known: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Clients {
    pub(crate) fn new(options: &Options) -> Self {
        Self { options: options.clone(), known: Mutex::default() }
    }

    /// Whom to ask for the object at an address, and its name there.
    pub(crate) fn of(&self, text: &str) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), StoreError> {
        let problem = |problem: String| StoreError::Url { url: text.into(), problem };
        let url = parse(text)?;
        let name = object_store::path::Path::from_url_path(url.path()).map_err(|error| problem(told(&error)))?;
        let host = format!("{}://{}", url.scheme(), url.authority());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&host) {
            return Ok((Arc::clone(client), name));
        }
        let client = self.build(url.scheme(), &host).map_err(|error| problem(told(&error)))?;
        known.insert(host, Arc::clone(&client));
        Ok((client, name))
    }

    fn build(&self, scheme: &str, host: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        // Where another was chosen before, that will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Options { patience, timeout, variables, .. } = &self.options;
        let backoff = BackoffConfig { init_backoff: FIRST_PAUSE, max_backoff: LONGEST_PAUSE, base: 2.0 };
        // Time alone is the limit.
        let retry = RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: *patience };
        // Without encryption where the address, or that of the endpoint, says so.
        let client = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout(*timeout)
            .with_connect_timeout(CONNECT.min(*timeout));
        macro_rules! client {
            ($builder:ty, $prefixes:expr) => {{
                let mut builder = <$builder>::new().with_url(host).with_client_options(client).with_retry(retry);
                for (name, value) in
                    variables.iter().filter(|(name, _)| $prefixes.iter().any(|p: &&str| name.starts_with(p)))
                {
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                Arc::new(builder.build()?)
            }};
        }
        Ok(match scheme {
            "s3" => client!(AmazonS3Builder, ["AWS_"]),
            "gs" => client!(GoogleCloudStorageBuilder, ["GOOGLE_", "SERVICE_ACCOUNT"]),
            "az" => client!(MicrosoftAzureBuilder, ["AZURE_"]),
            _ => Arc::new(HttpBuilder::new().with_url(host).with_client_options(client).with_retry(retry).build()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for url in ["s3://bucket/a.tar", "gs://b/{0..9}.tar", "az://c/", "https://host/a.tar", "http://host/a.tar"] {
            assert!(is_url(Path::new(url)), "{url}");
        }
        for path in ["a.tar", "/s3/a.tar", "s3:/a.tar", "folder/s3://a", "ftp://host/a.tar", "file:///a.tar", ""] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
    }
}
