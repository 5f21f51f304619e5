//! FashionGen's protocol of 101 candidates (FashionBERT, KaleidoBERT): every query is put to its partner and some wrong ones, drawn from
//! other products of the same sub-category; R@k is the share of queries whose partner is among the first k by the matching score.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::SeedableRng;
use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use simla_data::Dataset;
use tch::{Device, Kind, Tensor, no_grad};

use crate::model::Simla;
use crate::tasks::retrieval::{BATCH, Matching, Progress, Recalls, match_odds, text_features};
use crate::tasks::score::precedes;
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// Usable records of products: a picture and what is said of it.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    /// Position in the data set.
    pub positions: Vec<u64>,
    /// Equal for records of one product.
    pub products: Vec<i64>,
    /// What wrong candidates are drawn from, where the data say it.
    pub subcategories: Vec<Option<String>>,
    /// Token ids.
    pub captions: Vec<Vec<i64>>,
}

impl Shelf {
    /// How many records.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// A query and what it is put to, as places in a [`Shelf`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Whose picture, or whose caption, it is.
    pub query: usize,
    /// Whose caption, or picture, is sought.
    pub right: usize,
    /// Those of other products.
    pub wrong: Vec<usize>,
}

/// The lists of both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// Pictures with the captions they are put to.
    pub image_to_text: Vec<List>,
    /// Captions with pictures.
    pub text_to_image: Vec<List>,
}

impl Lists {
    /// Draws `queries` records (all, where there are no more) for each direction, and for each `wrong` records of as many other products,
    /// from its sub-category, or from anywhere once that has no more. Also how many lists had to reach beyond it.
    pub fn draw(shelf: &Shelf, queries: usize, wrong: usize, seed: u64) -> (Self, usize) {
        let mut of_kind: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
        for (record, kind) in shelf.subcategories.iter().enumerate() {
            of_kind.entry(kind.as_deref()).or_default().push(record);
        }
        let everything: Vec<usize> = (0..shelf.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut beyond = 0;
        let mut direction = || {
            let asked = index::sample(&mut rng, shelf.len(), queries.min(shelf.len())).into_vec();
            let list = |query: usize| {
                let mut products = HashSet::from([shelf.products[query]]);
                let mut drawn = Vec::with_capacity(wrong);
                let mut draw_from = |records: &[usize], drawn: &mut Vec<usize>| {
                    let mut records = records.to_vec();
                    records.shuffle(&mut rng);
                    for record in records {
                        if drawn.len() == wrong {
                            break;
                        }
                        if products.insert(shelf.products[record]) {
                            drawn.push(record);
                        }
                    }
                };
                draw_from(&of_kind[&shelf.subcategories[query].as_deref()], &mut drawn);
                if drawn.len() < wrong {
                    beyond += 1;
                    draw_from(&everything, &mut drawn);
                }
                List { query, right: query, wrong: drawn }
            };
            asked.into_iter().map(list).collect()
        };
        let lists = Self { image_to_text: direction(), text_to_image: direction() };
        (lists, beyond)
    }

    /// Candidates of the longest list, the right one included.
    fn longest(&self) -> usize {
        let all = self.image_to_text.iter().chain(&self.text_to_image);
        all.map(|list| list.wrong.len() + 1).max().unwrap_or(0)
    }
}

/// What lists showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// Of the two directions: image to text, text to image.
    pub queries: [usize; 2],
    /// Candidates of a query, the right one included.
    pub candidates: usize,
    /// Ranked by contrast.
    pub itc: Recalls,
    /// Ranked by the matching score: the protocol's.
    pub itm: Recalls,
}

impl Chosen {
    /// What guessing would give.
    pub fn chance(&self) -> Recalls {
        let share = |k: usize| 100.0 * k.min(self.candidates) as f64 / self.candidates as f64;
        let [r1, r5, r10] = [1, 5, 10].map(share);
        Recalls { txt_r1: r1, txt_r5: r5, txt_r10: r10, img_r1: r1, img_r5: r5, img_r10: r10 }
    }
}

/// Puts every query of `lists` to its candidates.
///
/// # Errors
/// What libtorch could not do.
pub fn evaluate(
    model: &Simla,
    dataset: &Dataset,
    shelf: &Shelf,
    lists: &Lists,
    progress: Progress,
) -> Result<Chosen, TorchError> {
    guarded(|| no_grad(|| choose(model, dataset, shelf, lists, progress)))
}

fn choose(model: &Simla, dataset: &Dataset, shelf: &Shelf, lists: &Lists, progress: Progress) -> Chosen {
    // The captions that each picture is put to.
    let mut pairs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for list in &lists.image_to_text {
        pairs.entry(list.query).or_default().extend(list.wrong.iter().chain([&list.right]));
    }
    for list in &lists.text_to_image {
        for &image in list.wrong.iter().chain([&list.right]) {
            pairs.entry(image).or_default().push(list.query);
        }
    }
    for captions in pairs.values_mut() {
        captions.sort_unstable();
        captions.dedup();
    }
    let mut captions: Vec<usize> = pairs.values().flatten().copied().collect();
    captions.sort_unstable();
    captions.dedup();
    let mut done = 0;
    let all = captions.len() + pairs.len();
    let mut advance = |by: usize| {
        done += by;
        progress(done, all);
    };
    let mut features = Vec::new();
    for chunk in captions.chunks(BATCH) {
        let ids: Vec<&[i64]> = chunk.iter().map(|&caption| shelf.captions[caption].as_slice()).collect();
        features.push(text_features(model, &ids));
        advance(chunk.len());
    }
    let place: HashMap<usize, i64> = captions.into_iter().zip(0..).collect();
    let features = Tensor::cat(&features, 0);
    let images: Vec<u64> = pairs.keys().map(|&record| shelf.positions[record]).collect();
    let mut matching = Matching::new(model, dataset, &images);
    let mut found = Vec::with_capacity(pairs.len());
    for (nth, captions) in pairs.values().enumerate() {
        let embeds = matching.embeds(nth);
        let rows: Vec<i64> = captions.iter().map(|caption| place[caption]).collect();
        let rows = upload(&Tensor::from_slice(&rows), features.device());
        let own = model.towers.image_feat(&model.online, &embeds);
        let similar = features.index_select(0, &rows).matmul(&own.transpose(0, 1)).to_kind(Kind::Float);
        let ids: Vec<&[i64]> = captions.iter().map(|&caption| shelf.captions[caption].as_slice()).collect();
        found.push(Tensor::stack(&[similar.flatten(0, -1), match_odds(model, &embeds, &ids)], 1));
        advance(1);
    }
    let found = Vec::<Vec<f32>>::try_from(Tensor::cat(&found, 0).to(Device::Cpu)).expect("two floats a pair");
    let pairs = pairs.iter().flat_map(|(&image, captions)| captions.iter().map(move |&caption| (image, caption)));
    let scores: HashMap<(usize, usize), [f32; 2]> = pairs.zip(found.iter().map(|found| [found[0], found[1]])).collect();
    judge(lists, |image, caption| scores[&(image, caption)])
}

/// The protocol on the scores of pairs of an image and a caption: by contrast, and of the matching head.
fn judge(lists: &Lists, score: impl Fn(usize, usize) -> [f32; 2]) -> Chosen {
    // Wrong ones that come before the right one.
    let rank = |list: &List, by: usize, of: &dyn Fn(usize) -> [f32; 2]| {
        let right = of(list.right)[by];
        list.wrong.iter().filter(|&&wrong| precedes(of(wrong)[by], right)).count()
    };
    let ranked = |by: usize| {
        let texts = lists.image_to_text.iter().map(|list| rank(list, by, &|text| score(list.query, text)));
        let images = lists.text_to_image.iter().map(|list| rank(list, by, &|image| score(image, list.query)));
        Recalls::new(&texts.collect::<Vec<_>>(), &images.collect::<Vec<_>>())
    };
    Chosen {
        queries: [lists.image_to_text.len(), lists.text_to_image.len()],
        candidates: lists.longest(),
        itc: ranked(0),
        itm: ranked(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of products 0 to 9, two each; products 0 to 5 are shirts, 6 and 7 shoes, 8 and 9 of no kind.
    fn shelf() -> Shelf {
        let products: Vec<i64> = (0..10).flat_map(|product| [product; 2]).collect();
        let kind = |product: &i64| match product {
            0..6 => Some("shirts".to_owned()),
            6..8 => Some("shoes".to_owned()),
            _ => None,
        };
        Shelf {
            positions: (0..20).collect(),
            subcategories: products.iter().map(kind).collect(),
            captions: vec![vec![1, 2]; 20],
            products,
        }
    }

    #[test]
    fn wrong_ones_are_other_products_of_the_same_kind() {
        let shelf = shelf();
        let (lists, beyond) = Lists::draw(&shelf, 1000, 4, 3);
        assert_eq!((lists.image_to_text.len(), lists.text_to_image.len()), (20, 20), "all there are");
        // Shoes and the others have one other product of their kind, not four.
        assert_eq!(beyond, 2 * 8);
        for list in lists.image_to_text.iter().chain(&lists.text_to_image) {
            assert_eq!((list.query, list.wrong.len()), (list.right, 4));
            let products: HashSet<i64> = list.wrong.iter().chain([&list.right]).map(|&r| shelf.products[r]).collect();
            assert_eq!(products.len(), 5, "each product once, and not its own");
            let kind = &shelf.subcategories[list.query];
            let same = list.wrong.iter().filter(|&&wrong| shelf.subcategories[wrong] == *kind).count();
            assert_eq!(same, if list.query < 12 { 4 } else { 1 }, "its own kind first");
        }
        let again = Lists::draw(&shelf, 1000, 4, 3).0;
        assert_eq!(lists, again, "the seed decides");
        assert_ne!(lists, Lists::draw(&shelf, 1000, 4, 4).0);
        let (few, beyond) = Lists::draw(&shelf, 5, 100, 0);
        assert_eq!((few.text_to_image.len(), few.text_to_image[0].wrong.len(), beyond), (5, 9, 10), "no more products");
    }

    #[test]
    fn shares_of_partners_by_hand() {
        let list = |query, right, wrong: &[usize]| List { query, right, wrong: wrong.to_vec() };
        let lists = Lists {
            image_to_text: vec![list(0, 0, &[1, 2]), list(1, 1, &[0, 2])],
            text_to_image: vec![list(2, 2, &[0, 1])],
        };
        // Rows are images. The matching score finds text 0 for image 0, and likes texts 0 and 1 alike for image 1: a tie is no find.
        let matched = [[3.0, 1.0, 2.0], [5.0, 5.0, 0.0], [0.0, 0.0, 9.0]];
        let found = judge(&lists, |image, text| [-(image as f32), matched[image][text]]);
        assert_eq!((found.queries, found.candidates), ([2, 1], 3));
        assert_eq!((found.itm.txt_r1, found.itm.txt_r5, found.itm.img_r1), (50.0, 100.0, 100.0));
        // Numbers that are none find nothing.
        let lost = judge(&lists, |_, _| [f32::NAN; 2]);
        assert_eq!((lost.itm.txt_r1, lost.itm.img_r1, lost.itc.img_r1), (0.0, 0.0, 0.0));
        // By contrast all texts are alike for an image, and the image that is sought is the worst.
        assert_eq!((found.itc.txt_r1, found.itc.img_r1, found.itc.img_r5), (0.0, 0.0, 100.0));
        assert!((found.chance().txt_r1 - 100.0 / 3.0).abs() < 1e-9 && found.chance().img_r5 == 100.0);
    }
}
