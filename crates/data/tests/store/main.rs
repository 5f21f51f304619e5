//! Shards on a store are read as those on a disk: the same records, batches, reports and resumed runs, over a network that fails, too; and
//! what is really gone is said.

mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use simla_data::store::Options as StoreOptions;
use simla_data::{
    Batch, Dataset, InspectOptions, LoadError, Loader, LoaderPlan, OpenError, Options, Pair, Pairs, Source, Vocabulary,
    inspect,
};
use simla_image::Recipe;

use server::{KEY, Network, SECRET, Server};

const RECORDS: usize = 84;
const SHARDS: usize = 12;

/// Shards of pictures that no compression makes small, each with two captions.
fn write_shards(folder: &Path) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    for shard in 0..SHARDS {
        let mut tar = tar::Builder::new(std::fs::File::create(folder.join(format!("{shard:03}.tar"))).unwrap());
        let mut member = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        for nth in 0..RECORDS / SHARDS {
            let key = shard * RECORDS / SHARDS + nth;
            let picture = image::RgbImage::from_fn(96, 80, |_, _| image::Rgb(rng.random()));
            let mut png = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            member(format!("{key:05}.png"), png.get_ref());
            let about = serde_json::json!({"caption": [format!("a picture w{key}"), "noise"], "image_id": key});
            member(format!("{key:05}.json"), about.to_string().as_bytes());
        }
        tar.into_inner().unwrap();
    }
}

fn bytes_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// The blocks in a cache: what is there beside indexes and what is being written.
fn blocks(cache: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(cache).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_none() && !last(file.to_str().unwrap()).starts_with('.')).collect()
}

fn local(source: &Path) -> Dataset {
    Dataset::open(&[Source::from(source.to_path_buf())], &Options::default()).unwrap()
}

fn remote(address: &str, store: StoreOptions) -> Result<Dataset, OpenError> {
    Dataset::open(&[address.parse().unwrap()], &Options { store: Some(store), ..Options::default() })
}

fn pairs() -> Pairs {
    let mut words: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "noise"].map(String::from).into();
    words.extend((0..RECORDS).map(|i| format!("w{i}")));
    let file = tempfile::NamedTempFile::with_suffix(".txt").unwrap();
    std::fs::write(file.path(), words.join("\n")).unwrap();
    let vocabulary = Vocabulary::open(file.path()).unwrap();
    Pairs { patch_grid: 4, masked_patches: 5, ..Pairs::new(Arc::new(vocabulary)) }
}

fn start(dataset: Dataset, plan: &LoaderPlan) -> Loader<Pairs> {
    Loader::start(Arc::new(dataset), pairs(), Recipe { side: 32, ..Recipe::default() }, plan.clone()).unwrap()
}

/// All batches of a plan; the names of their records without the folder or address.
fn batches(dataset: Dataset, plan: &LoaderPlan) -> (Vec<Batch<Pair>>, String) {
    let mut loader = start(dataset, plan);
    let batches = loader.by_ref().map(|batch| {
        let mut batch = batch.unwrap();
        batch.records.iter_mut().for_each(|name| *name = last(name));
        batch
    });
    let batches = batches.collect();
    (batches, loader.report().to_string())
}

/// What stands behind the last slash.
fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap().to_owned()
}

const PLAN: LoaderPlan = LoaderPlan {
    batch: 8,
    seed: 3,
    first_step: 0,
    steps: 25, // two epochs and a half
    workers: 3,
    prefetch: 4,
    rank: 0,
    world: 1,
    halves: false,
    preflight: 16,
};

#[test]
fn an_address_a_pattern_and_all_below_an_address_give_what_files_give() {
    let server = Server::start(Network::Good);
    let (bucket, cache) = (server.bucket(), tempfile::tempdir().unwrap());
    let folder = bucket.join("pairs");
    std::fs::create_dir_all(folder.join("more")).unwrap();
    write_shards(&folder);
    std::fs::rename(folder.join("011.tar"), folder.join("more/011.tar")).unwrap();
    std::fs::write(folder.join("notes.md"), "what these are").unwrap();
    // One is cut off within a picture, as a copy that was interrupted.
    let whole = std::fs::read(folder.join("004.tar")).unwrap();
    std::fs::write(folder.join("004.tar"), &whole[..whole.len() / 2]).unwrap();
    for (path, address) in [
        (folder.join(""), "s3://bucket/pairs/"),
        (folder.join("{003..009}.tar"), "s3://bucket/pairs/{003..009}.tar"),
        (folder.join("010.tar"), "s3://bucket/pairs/010.tar"),
    ] {
        let (files, objects) = (local(&path), remote(address, server.options(cache.path())).unwrap());
        assert_eq!(files.len(), objects.len(), "{address}");
        for index in 0..files.len() {
            match (files.record(index), objects.record(index)) {
                (Ok(file), Ok(object)) => {
                    assert_eq!(
                        (file.image, file.captions, file.image_id),
                        (object.image, object.captions, object.image_id)
                    );
                    assert_eq!(last(&file.name), last(&object.name));
                    assert!(object.name.starts_with("s3://bucket/pairs/"), "{}", object.name);
                }
                (Err(file), Err(object)) => assert_eq!(last(&file.to_string()), last(&object.to_string())),
                other => panic!("{other:?}"),
            }
        }
        let without_folder = |all: Vec<String>| all.iter().map(|text| last(text)).collect::<Vec<_>>();
        assert_eq!(without_folder(files.warnings()), without_folder(objects.warnings()), "{address}");
        assert_eq!(files.fingerprint(None, |_| ()).unwrap(), objects.fingerprint(None, |_| ()).unwrap());
        let look = |dataset| inspect(dataset, None, &InspectOptions::default(), || ()).unwrap();
        let (files, objects) = (look(&files), look(&objects));
        assert_eq!(
            (files.report.bad, files.words, files.images.width),
            (objects.report.bad, objects.words, objects.images.width)
        );
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_over_a_network_that_fails() {
    let server = Server::start(Network::Failing);
    write_shards(&server.bucket());
    let (want, reported) = batches(local(&server.bucket()), &PLAN);
    assert_eq!(want.len(), 25);
    // From an empty cache each time: all that is read comes over the network.
    for first_step in [0, 7, 19] {
        let cache = tempfile::tempdir().unwrap();
        let dataset = remote("s3://bucket/{000..011}.tar", server.options(cache.path())).unwrap();
        assert_eq!(dataset.len(), RECORDS as u64);
        let plan = LoaderPlan { first_step, ..PLAN };
        let (got, report) = batches(dataset, &plan);
        assert!(got == want[first_step as usize..], "other batches from step {first_step} on");
        if first_step == 0 {
            assert_eq!(report, reported);
        }
    }
    let seen = &server.seen;
    for (what, count) in
        [("resets", &seen.resets), ("cut", &seen.cut), ("stalls", &seen.stalls), ("short", &seen.short)]
    {
        assert!(count.load(Relaxed) >= 3, "{what}: {seen:?}");
    }
}

#[test]
fn each_byte_is_fetched_once_by_all_who_share_a_cache() {
    let server = Server::start(Network::Good);
    write_shards(&server.bucket());
    let (want, _) = batches(local(&server.bucket()), &PLAN);
    let cache = tempfile::tempdir().unwrap();
    let read = || batches(remote("s3://bucket/", server.options(cache.path())).unwrap(), &PLAN).0;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        readers.into_iter().for_each(|reader| assert!(reader.join().unwrap() == want));
    });
    let (all, came) = (bytes_of(&server.bucket()), server.seen.bytes.load(Relaxed));
    // Heads of answers and lists are bytes, too.
    assert!(came >= all && came < all + all / 10, "{came} of {all} bytes");
    assert!(read() == want);
    let again = server.seen.bytes.load(Relaxed) - came;
    assert!(again < all / 50, "a run later, {again} of {all} bytes");
}

#[test]
fn a_small_cache_stays_small_and_changes_nothing() {
    let server = Server::start(Network::Good);
    write_shards(&server.bucket());
    let (want, _) = batches(local(&server.bucket()), &PLAN);
    let cache = tempfile::tempdir().unwrap();
    let bound = 600_000;
    assert!(bytes_of(&server.bucket()) > 3 * bound);
    let options = StoreOptions { bytes: bound, ..server.options(cache.path()) };
    let dataset = remote("s3://bucket/", options).unwrap();
    let warnings = dataset.warnings();
    assert!(
        warnings.iter().any(|text| text.contains("the cache 0 MB") && text.contains("SIMLA_STORE_CACHE_GB")),
        "{warnings:?}"
    );
    let mut loader = start(dataset, &PLAN);
    for want in want {
        let mut got = loader.next().unwrap().unwrap();
        got.records.iter_mut().for_each(|name| *name = last(name));
        assert!(got == want);
        // What is being written has not got its place yet.
        assert!(bytes_of(cache.path()) <= bound + 16 * (1 << 16), "{}", bytes_of(cache.path()));
    }
}

#[test]
fn shards_that_are_read_later_are_fetched_meanwhile() {
    let server = Server::start(Network::Good);
    write_shards(&server.bucket());
    let cache = tempfile::tempdir().unwrap();
    drop(remote("s3://bucket/", server.options(cache.path())).unwrap());
    blocks(cache.path()).iter().for_each(|block| std::fs::remove_file(block).unwrap());
    let plan = LoaderPlan { batch: 2, prefetch: 1, preflight: 0, steps: 1000, ..PLAN };
    let loader = start(remote("s3://bucket/", server.options(cache.path())).unwrap(), &plan);
    // Nothing is taken: two batches wait, two more are held, and all of them are of the first window.
    let of_a_window = 8 * bytes_of(&server.bucket()).div_ceil(SHARDS as u64).div_ceil(1 << 16) as usize;
    let begin = Instant::now();
    while blocks(cache.path()).len() <= of_a_window {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} blocks", blocks(cache.path()).len());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(loader);
}

#[test]
fn a_server_that_is_gone_for_good_ends_a_run_soon_and_is_named() {
    let server = Server::start(Network::Good);
    write_shards(&server.bucket());
    let cache = tempfile::tempdir().unwrap();
    let patience = Duration::from_secs(2);
    let options = StoreOptions { patience, bytes: 1 << 19, ..server.options(cache.path()) };
    let mut loader = start(remote("s3://bucket/", options.clone()).unwrap(), &PLAN);
    assert!(loader.next().unwrap().is_ok());
    drop(server);
    let gone = Instant::now();
    let error = loader.find_map(Result::err).expect("an error instead of batches with other records");
    assert!(matches!(error, LoadError::Unreached(_)), "{error}");
    let text = error.to_string();
    for part in ["s3://bucket/0", ".tar, bytes ", "SIMLA_STORE_PATIENCE=2 ", "AWS_ENDPOINT_URL", "refused"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(gone.elapsed() < 5 * patience, "{:?}", gone.elapsed());
    let text = remote("s3://bucket/", options).unwrap_err().to_string();
    assert!(text.contains("s3://bucket/: ") && text.contains("refused"), "{text}");
}

#[test]
fn what_is_missing_forbidden_or_changed_is_said_at_once_without_a_secret() {
    let server = Server::start(Network::Good);
    let bucket = server.bucket();
    write_shards(&bucket);
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    let begin = Instant::now();
    let refused = |address: &str, options: &StoreOptions| remote(address, options.clone()).unwrap_err().to_string();
    let text = refused("s3://bucket/{010..012}.tar", &options);
    assert!(text.contains("s3://bucket/012.tar: ") && text.contains("there is no such object"), "{text}");
    let text = refused("s3://bucket/nothing/", &options);
    assert!(text.contains("nothing below it; expected .tar shards"), "{text}");
    let text = refused("s3://bucket/pairs.json", &options);
    assert!(text.contains("the address s3://bucket/pairs.json; expected .tar shards"), "{text}");
    for secret in ["s3://bucket/000.tar?X-Amz-Signature=abcdef", "https://user:abcdef@host/000.tar"] {
        let text = refused(secret, &options);
        assert!(text.contains("credentials come from the environment") && !text.contains("abcdef"), "{text}");
    }

    let mut others = options.clone();
    others.variables.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    others.variables.push(("AWS_SECRET_ACCESS_KEY".into(), "another-secret".into()));
    let text = refused("s3://bucket/", &others);
    assert!(text.contains("check the credentials for S3") && text.contains("AWS_SECRET_ACCESS_KEY"), "{text}");
    assert!(![KEY, SECRET, "another-secret"].iter().any(|secret| text.contains(secret)), "{text}");

    // Opened, and then ...
    let open = || remote("s3://bucket/00{0,1}.tar", options.clone()).unwrap();
    let forget = || blocks(cache.path()).iter().for_each(|block| std::fs::remove_file(block).unwrap());
    let dataset = open();
    // ... another at once: what is copied over it while it is sent would be sent in parts.
    std::fs::copy(bucket.join("002.tar"), bucket.join("another")).unwrap();
    std::fs::rename(bucket.join("another"), bucket.join("000.tar")).unwrap();
    forget();
    let text = dataset.record(0).unwrap_err().to_string();
    assert!(text.contains("s3://bucket/000.tar, bytes 0 to 65535: it has changed since it was opened"), "{text}");
    let reason = text.split_once("cannot be read: ").unwrap().1;
    assert_eq!(dataset.reached().unwrap_err().to_string(), format!("data {reason}"));
    let dataset = open();
    std::fs::remove_file(bucket.join("001.tar")).unwrap();
    forget();
    let text = dataset.record(7).unwrap_err().to_string();
    assert!(text.contains("s3://bucket/001.tar, bytes 0 to ") && text.contains("there is no such object"), "{text}");
    assert!(dataset.fingerprint(None, |_| ()).is_err());
    assert!(inspect(&dataset, None, &InspectOptions::default(), || ()).is_err());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
