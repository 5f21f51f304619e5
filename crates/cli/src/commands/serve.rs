//! `simla serve`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::model::DeviceArguments;
use anyhow::{Context, Result, bail};
use clap::Args;
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::Model;
use simla_run::answer;
use simla_run::asking::Asker;
use simla_run::settings::Dtype;
use simla_serve::guard::Guard;
use simla_serve::server::{Photos, Served, serve};

/// The shortest token: one that cannot be tried out.
const SHORTEST_TOKEN: usize = 12;

/// Opens a page on this machine to search pictures, ask about them, and watch runs
///
/// With a model and a folder of pictures: search by phrase or picture, where a phrase is, keywords, attention; for programs the same as
/// JSON under /api. The first start embeds the pictures, in the background, into the index that `simla search` uses too. With --runs:
/// the curves, samples and evaluations of runs while they go on.
#[derive(Args)]
#[command(after_help = "\
  simla serve --checkpoint runs/mine --images photographs        then open http://127.0.0.1:7878/
  simla serve --runs runs
  curl 'http://127.0.0.1:7878/api/search?q=a+dog&top=5'")]
pub struct Arguments {
    /// Which model looks: a run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR", requires = "images", required_unless_present = "runs")]
    checkpoint: Option<PathBuf>,
    /// The folder of pictures to search, folders in it included
    #[arg(long, value_name = "DIR", requires = "checkpoint")]
    images: Option<PathBuf>,
    /// A run of `simla finetune vqa` that answers questions
    #[arg(long, value_name = "DIR", requires = "images")]
    vqa: Option<PathBuf>,
    /// Folder for the index; else .simla-index in the folder of pictures
    #[arg(long, value_name = "DIR", requires = "images")]
    index: Option<PathBuf>,
    /// What a new index keeps of a picture for the matching score: half, 8bit or none; see simla search --help
    #[arg(long, value_name = "KEPT", requires = "images")]
    patches: Option<Kept>,
    /// A folder of runs to watch
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Port; 0 for any that is free
    #[arg(long, default_value_t = 7878)]
    port: u16,
    /// Address to listen on; others than this machine's own need --token
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// What everybody who asks has to bring
    #[arg(long)]
    token: Option<String>,
    /// A name of this machine by which it may be asked, beside localhost and its addresses
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    #[command(flatten)]
    device: DeviceArguments,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let token = arguments.token.as_deref();
    if token.is_some_and(|token| token.len() < SHORTEST_TOKEN) {
        bail!("--token: expected at least {SHORTEST_TOKEN} characters, so that it cannot be guessed");
    }
    if token.is_none() && !arguments.listen.is_loopback() {
        bail!(
            "--listen {}: others could see these pictures; give a --token that they need, or leave --listen out",
            arguments.listen
        );
    }
    if let Some(runs) = &arguments.runs {
        std::fs::read_dir(runs).with_context(|| format!("--runs {}", runs.display()))?;
    }
    let photos = match (&arguments.checkpoint, &arguments.images) {
        (Some(checkpoint), Some(images)) => {
            let device = arguments.device.open()?;
            let model = Model::open(checkpoint, Dtype::F32.kind(), device)?;
            let asker =
                arguments.vqa.as_deref().map(|run| Asker::open(run, None, Dtype::F32.kind(), device)).transpose()?;
            let place = arguments.index.unwrap_or_else(|| images.join(".simla-index"));
            Some(Photos::open(model, asker, images, &place, arguments.patches)?)
        }
        _ => None,
    };
    let guard = Guard::new(arguments.name, token);
    let served = Served { photos, runs: arguments.runs, guard };
    serve(served, SocketAddr::new(arguments.listen, arguments.port), |address| {
        answer!("http://{address}/  (Ctrl-C ends)");
        // Whoever reads this from a pipe waits for it.
        _ = std::io::stdout().flush();
    })?;
    Ok(ExitCode::SUCCESS)
}
