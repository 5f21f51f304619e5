//! Pairs of an image and a caption, for pre-training and retrieval: `[{"image": path, "caption": str | [str], "image_id"?,
//! "subcategory"?}]`, as the authors have them; of products, `image_id` is the product and `subcategory` its kind.

use std::path::Path;
use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Place, expression};
use crate::loader::SettingError;
use crate::masks::{blocks, words};
use crate::record::{Entry, Location, RecordError, Unreached};
use crate::sources::{self, EachCaption, OpenError, Options, Records, Watch, fields};
use crate::text::vocabulary::{MAX_TOKENS, Vocabulary};

/// How pairs become rows.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Cuts captions into pieces.
    pub vocabulary: Arc<Vocabulary>,
    /// Pieces of a caption at most, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Patches along a side of the view.
    pub patch_grid: usize,
    /// Patches that are hidden for MIM; 0 without it.
    pub masked_patches: usize,
}

/// A caption with its masks, and which image it is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pair {
    /// Word pieces, `[L]`: `[CLS]` first, `[SEP]` last.
    pub ids: Vec<i64>,
    /// Word pieces with BERT's masking, `[L]`.
    pub mlm_ids: Vec<i64>,
    /// The true piece where one is to be predicted, else [`NOT_MASKED`](words::NOT_MASKED), `[L]`.
    pub mlm_labels: Vec<i64>,
    /// True where a patch is hidden, `[P]`.
    pub masked_patches: Vec<bool>,
    /// Equal for pairs that show the same image.
    pub image_id: i64,
}

impl Pairs {
    /// The paper's.
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self { vocabulary, max_tokens: MAX_TOKENS, patch_grid: 16, masked_patches: blocks::PAPER_MASKED }
    }
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    image: Option<Value>,
    caption: Option<Value>,
    image_id: Option<Value>,
    subcategory: Option<Value>,
}

impl Format for Pairs {
    type Entry = Entry;
    type Row = Pair;
    const EXAMPLE: &'static str = r#"[{"image": "photos/1.jpg", "caption": "a dog in the snow"}]"#;

    /// Whatever holds images with captions.
    fn open(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
        let records = match options.expressions {
            true => expression::open_pairs(path, options, watch)?,
            false => sources::open(path, options, watch)?,
        };
        if !options.each_caption {
            return Ok(records);
        }
        let pairs = EachCaption::of(records, options.index_folder.as_deref());
        let pairs = pairs.map_err(|error| options.index_error(error))?;
        match pairs.failure() {
            Some(failure) => Err(Unreached(failure.into()).into()),
            None => Ok(Box::new(pairs)),
        }
    }

    fn read(json: &[u8], place: &Place) -> Result<Vec<Entry>, RecordError> {
        let Fields { image, caption, image_id, subcategory } = place.fields::<Self, _>(json)?;
        let (image, identity) = place.picture(&[fields::image(image.as_ref(), place)?.to_owned()])?;
        let captions = fields::captions(caption, &place.name)?;
        let image_id = fields::given_image_id(image_id.as_ref(), &place.name)?.unwrap_or(identity);
        let entry = Entry::new(image, captions, place.name.clone(), image_id)?;
        let subcategory = subcategory.as_ref().and_then(Value::as_str).map(String::from);
        Ok(vec![Entry { subcategory, ..entry }])
    }

    fn name(entry: &Entry) -> &str {
        &entry.name
    }

    fn texts(entry: Entry) -> Vec<String> {
        entry.captions
    }

    fn pictures(entry: &Entry) -> Vec<Location> {
        vec![entry.image.clone()]
    }

    fn check(&self, side: u32) -> Result<(), SettingError> {
        let patches = self.patch_grid * self.patch_grid;
        let refuse = |field, value: usize, expected: String| Err(SettingError { field, value: value as u64, expected });
        if self.max_tokens < 3 {
            return refuse("max_tokens", self.max_tokens, "at least 3: [CLS], a word and [SEP]".into());
        }
        if self.patch_grid == 0 || !(side as usize).is_multiple_of(self.patch_grid) {
            return refuse("patch_grid", self.patch_grid, format!("a divisor of the view's {side} pixels"));
        }
        if self.masked_patches > patches {
            return refuse("masked_patches", self.masked_patches, format!("at most the {patches} patches of a view"));
        }
        Ok(())
    }

    fn row(&self, entry: Entry, rng: &mut ChaCha8Rng) -> Result<Pair, RecordError> {
        let caption = entry.captions.choose(rng).map_or("", String::as_str);
        let ids = self.vocabulary.encode(caption, self.max_tokens);
        let (mlm_ids, mlm_labels) = words::mask(&ids, &self.vocabulary, rng);
        let mut masked_patches = vec![false; self.patch_grid * self.patch_grid];
        blocks::mask(self.patch_grid, self.masked_patches, &mut masked_patches, rng);
        Ok(Pair { ids, mlm_ids, mlm_labels, masked_patches, image_id: entry.image_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary::tests::numbered;

    #[test]
    fn refuses_with_field_and_value() {
        let good = Pairs::new(Arc::new(numbered(9)));
        assert!(good.check(256).is_ok());
        for (pairs, message) in [
            (Pairs { max_tokens: 2, ..good.clone() }, "setting `max_tokens` = 2"),
            (Pairs { patch_grid: 15, ..good.clone() }, "setting `patch_grid` = 15"),
            (Pairs { masked_patches: 257, ..good.clone() }, "setting `masked_patches` = 257"),
        ] {
            let error = pairs.check(256).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
