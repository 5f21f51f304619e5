//! Rankings for other programs: the best candidates of every query, as tables or in TREC's columns.
//!
//! An image is called by its path, a caption by its image's and its number there: `dogs/1.jpg#0`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use simla::tasks::retrieval::{Gallery, Ranking};
use simla_data::Dataset;

use crate::embed::below;

/// What queries and candidates are called.
pub struct Names {
    images: Vec<String>,
    captions: Vec<String>,
}

impl Names {
    /// Those of a gallery of `dataset`; of paths below `root`, the rest.
    ///
    /// # Errors
    /// A record that was readable before.
    pub fn of(dataset: &Dataset, gallery: &Gallery, root: Option<&Path>) -> Result<Self> {
        let name = |&position: &u64| Ok(below(&dataset.entry(position)?.image.to_string(), root));
        let images: Vec<String> = gallery.images.iter().map(name).collect::<Result<_>>()?;
        let mut counts = vec![0; images.len()];
        let caption = |&image: &usize| {
            counts[image] += 1;
            format!("{}#{}", images[image], counts[image] - 1)
        };
        let captions = gallery.image_of.iter().map(caption).collect();
        Ok(Self { images, captions })
    }
}

/// How a file is written, by its ending.
enum Format {
    /// `query,item,rank,score`, fields apart by this byte.
    Table(u8),
    /// `query Q0 item rank score simla`, as trec_eval reads it.
    Trec,
}

fn format(path: &Path) -> Result<Format> {
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Format::Table(b','),
        Some("tsv") => Format::Table(b'\t'),
        Some("trec") => Format::Trec,
        _ => bail!("{}: expected a name that ends in .csv, .tsv or .trec", path.display()),
    })
}

/// How the name of a run file may end.
pub const ENDINGS: &[&str] = &["csv", "tsv", "trec"];

/// Writes the best candidates of every image, then those of every caption; ranks are counted from 1.
///
/// # Errors
/// A name of another kind, and what the system said.
pub fn write(path: &Path, ranking: &Ranking, names: &Names) -> Result<()> {
    let lists =
        [(&names.images, &names.captions, &ranking.of_images), (&names.captions, &names.images, &ranking.of_captions)];
    let rows = lists.into_iter().flat_map(|(queries, items, lists)| {
        queries.iter().zip(lists).flat_map(move |(query, list)| {
            let row = move |(rank, (item, score)): (usize, &(u32, f32))| (query, &items[*item as usize], rank, *score);
            (1..).zip(list).map(row)
        })
    });
    let write = || -> Result<()> {
        let file = BufWriter::new(File::create(path)?);
        match format(path)? {
            Format::Table(delimiter) => {
                let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(file);
                table.write_record(["query", "item", "rank", "score"])?;
                for row in rows {
                    table.serialize(row)?;
                }
                table.flush()?;
            }
            Format::Trec => {
                let mut file = file;
                for (query, item, rank, score) in rows {
                    writeln!(file, "{} Q0 {} {rank} {score} simla", word(query), word(item))?;
                }
                file.flush()?;
            }
        }
        Ok(())
    };
    write().with_context(|| path.display().to_string())
}

/// A name without white space, which is between columns there.
fn word(name: &str) -> String {
    name.replace('%', "%25").chars().map(|c| if c.is_whitespace() { "%20".into() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_best_first() {
        let folder = tempfile::tempdir().unwrap();
        let ranking = Ranking {
            of_images: vec![vec![(1, 0.5), (0, 0.25)], vec![(1, -1.5)]],
            of_captions: vec![vec![(1, 2.0)], vec![]],
        };
        let names = Names {
            images: vec!["a, b.jpg".into(), "c.jpg".into()],
            captions: vec!["a, b.jpg#0".into(), "c.jpg#0".into()],
        };
        let written = |name: &str| {
            let path = folder.path().join(name);
            write(&path, &ranking, &names).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        assert_eq!(
            written("run.csv"),
            "query,item,rank,score\n\"a, b.jpg\",c.jpg#0,1,0.5\n\"a, b.jpg\",\"a, b.jpg#0\",2,0.25\nc.jpg,c.jpg#0,1,-1.5\n\
             \"a, b.jpg#0\",c.jpg,1,2.0\n"
        );
        let trec = "a,%20b.jpg Q0 c.jpg#0 1 0.5 simla\na,%20b.jpg Q0 a,%20b.jpg#0 2 0.25 simla\nc.jpg Q0 c.jpg#0 1 -1.5 simla\n\
                    a,%20b.jpg#0 Q0 c.jpg 1 2 simla\n";
        assert_eq!(written("run.trec"), trec);
        let error = write(&folder.path().join("run.txt"), &ranking, &names).unwrap_err();
        assert!(format!("{error:#}").contains(".csv, .tsv or .trec"), "{error:#}");
    }
}
