//! A real S3 server (s3s with s3s-fs, signatures checked) on this machine, and a network before it that fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

pub const KEY: &str = "key-of-the-test";
pub const SECRET: &str = "secret-of-the-test";
/// A try that takes longer over a network that fails is given up.
const TIMEOUT: Duration = Duration::from_millis(700);

/// What a network does to connections.
#[derive(Clone, Copy, PartialEq)]
pub enum Network {
    Good,
    /// Each connection gives some of its bytes, and fails then.
    Failing,
}

/// How often which failure happened, and what came through.
#[derive(Debug, Default)]
pub struct Seen {
    pub resets: AtomicU64,
    pub cut: AtomicU64,
    pub stalls: AtomicU64,
    /// Bodies that are shorter than asked for, with headers that say so.
    pub short: AtomicU64,
    pub bytes: AtomicU64,
}

/// The server behind a network. Dropped, it is gone.
pub struct Server {
    /// Before the files: it is away, and not empty.
    _runtime: Runtime,
    pub root: tempfile::TempDir,
    pub seen: Arc<Seen>,
    address: SocketAddr,
    network: Network,
}

impl Server {
    /// With an empty bucket called `bucket`.
    pub fn start(network: Network) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bucket")).unwrap();
        let runtime = Runtime::new().unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build().into_shared();
        let behind = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let before = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (server, address) = (behind.local_addr().unwrap(), before.local_addr().unwrap());
        runtime.spawn(async move {
            while let Ok((socket, _)) = behind.accept().await {
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone()));
            }
        });
        let seen = Arc::new(Seen::default());
        let counts = Arc::clone(&seen);
        runtime.spawn(async move {
            let mut nth = 0;
            while let Ok((client, _)) = before.accept().await {
                nth += 1;
                let fate = Fate::draw(network, nth);
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    let _ = connection(client, server, fate, &counts).await; // it has failed, as it should
                });
            }
        });
        Server { root, seen, address, network, _runtime: runtime }
    }

    /// The folder that is the bucket.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join("bucket")
    }

    /// How to ask it, with a cache in `cache`.
    pub fn options(&self, cache: &Path) -> simla_data::store::Options {
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ];
        simla_data::store::Options {
            folder: cache.into(),
            bytes: 1 << 30,
            block: 1 << 16,
            patience: Duration::from_secs(60),
            timeout: if self.network == Network::Failing { TIMEOUT } else { 100 * TIMEOUT },
            variables: variables.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
        }
    }
}

/// What becomes of a connection.
#[derive(Clone, Copy)]
struct Fate {
    /// Bytes that come through to the client.
    bytes: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Never,
    Reset,
    Cut,
    Stall,
    /// The first answer with a body has half of it, and says that this is all.
    Short,
}

impl Fate {
    fn draw(network: Network, nth: u64) -> Self {
        if network == Network::Good {
            return Fate { bytes: usize::MAX, end: End::Never };
        }
        let mut rng = ChaCha8Rng::seed_from_u64(nth);
        let end = [End::Reset, End::Cut, End::Stall, End::Short][rng.random_range(0..4)];
        Fate { bytes: rng.random_range(0..300_000), end }
    }
}

async fn connection(mut client: TcpStream, server: SocketAddr, fate: Fate, seen: &Seen) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let (mut left, mut buffer) = (fate.bytes, vec![0; 1 << 14]);
        loop {
            let mut some = from_server.read(&mut buffer).await?;
            if some == 0 {
                return Ok(false);
            }
            if fate.end == End::Short
                && let Some(short) = shortened(&buffer[..some])
            {
                seen.short.fetch_add(1, Relaxed);
                let (head, body) = short;
                to_client.write_all(&head).await?;
                let mut body_left = body;
                let mut rest = buffer[..some].to_vec().split_off(end_of_head(&buffer[..some]).unwrap_or(some));
                while body_left > 0 {
                    let part = rest.len().min(body_left);
                    to_client.write_all(&rest[..part]).await?;
                    body_left -= part;
                    if body_left > 0 {
                        let more = from_server.read(&mut buffer).await?;
                        rest = buffer[..more].to_vec();
                    }
                }
                return Ok(true);
            }
            some = some.min(left);
            to_client.write_all(&buffer[..some]).await?;
            seen.bytes.fetch_add(some as u64, Relaxed);
            left -= some;
            if left == 0 {
                return Ok::<_, std::io::Error>(true);
            }
        }
    };
    let over = tokio::select! {
        _ = up => false,
        over = down => over?,
    };
    if over {
        match fate.end {
            End::Reset => {
                seen.resets.fetch_add(1, Relaxed);
                client.set_zero_linger()?;
            }
            End::Stall => {
                seen.stalls.fetch_add(1, Relaxed);
                tokio::time::sleep(3 * TIMEOUT).await;
            }
            End::Cut => drop(seen.cut.fetch_add(1, Relaxed)),
            End::Short => client.shutdown().await?,
            End::Never => {}
        }
    }
    Ok(())
}

fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The head of an answer with a part of an object, which announces half of it, and that half's length.
fn shortened(answer: &[u8]) -> Option<(Vec<u8>, usize)> {
    let head = std::str::from_utf8(&answer[..end_of_head(answer)?]).ok()?;
    if !head.starts_with("HTTP/1.1 206") {
        return None;
    }
    let line = head.lines().find(|line| line.to_lowercase().starts_with("content-length:"))?;
    let length: usize = line.split_once(':')?.1.trim().parse().ok()?;
    Some((head.replace(line, &format!("content-length: {}", length / 2)).into_bytes(), length / 2))
}
