//! Embeds the pictures of a folder with a trained model, and names those that are nearest to a phrase.

use std::path::Path;

use anyhow::{Result, bail};
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::Model;
use simla::tasks::search::caption_features;
use simla_run::collection::Collection;
use tch::{Device, Kind};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, folder, phrase] = &arguments[..] else {
        bail!("expected three arguments: RUN FOLDER PHRASE");
    };
    let model = Model::open(Path::new(run), Kind::Float, Device::Cpu)?;
    // Features are kept in an index on disk: the second time, only what is new is embedded.
    let (index, embedded) =
        Collection::pictures(Path::new(folder))?.index(Path::new("features"), &model, 25, Some(Kept::Half))?;
    println!("{} pictures, {embedded} of them new, in features/", index.len());

    let ids = model.vocabulary.encode(phrase, 25);
    let feature = caption_features(&model.simla, &[ids])?.swap_remove(0);
    for hit in index.nearest(&feature, 5, false)? {
        println!("{:.3}  {}", hit.similarity, hit.name);
    }
    Ok(())
}
