//! Pictures by a phrase or a picture, and captions by a picture: the contrast finds the nearest, the matching score ranks the best of
//! them (3.6).

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use simla::tasks::pretrain::Model;
use simla::tasks::search::{Seen, caption_features, match_probabilities, see};
use simla_data::Entry;
use simla_search::{Hit, Index};

use crate::collection::{Collection, kept_by};
use crate::progress::say_broken;

/// Pieces of a phrase or caption at most.
pub const MAX_TOKENS: usize = simla_data::vocabulary::MAX_TOKENS;
/// Nearest by contrast that the matching score ranks again, where nothing else is asked for.
pub const CANDIDATES: usize = 16;

/// What is looked for, as the model sees it.
pub enum Query {
    /// Token ids.
    Phrase(Vec<i64>),
    /// A picture.
    Picture(Seen),
}

/// How much is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Results.
    pub top: usize,
    /// Nearest by contrast that the matching score ranks again; 0 for none.
    pub candidates: usize,
    /// Compare with every item in place of a walk through the graph.
    pub exact: bool,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// From 1.
    pub rank: usize,
    /// The picture's path, or that of the picture which the caption belongs to.
    pub image: String,
    /// Where captions are searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Similarity by contrast, -1 to 1.
    pub similarity: f32,
    /// Probability that they match; absent where it was not computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matching: Option<f32>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The phrase, or the picture's path.
    pub query: String,
    /// Items in the index.
    pub searched: usize,
    /// Seconds that the answer took, the model and the index at hand.
    pub seconds: f64,
    /// Best first.
    pub results: Vec<Found>,
}

/// Everything that answers.
pub struct Search {
    /// That embeds and matches.
    pub model: Model,
    /// What is searched.
    pub collection: Collection,
    /// Its features.
    pub index: Index,
}

impl Search {
    /// Answers a query, whose words are `text`; items that are the query itself are left out.
    ///
    /// # Errors
    /// If the index cannot be searched, a caption's record not be read, or what libtorch could not do.
    pub fn answer(&self, text: &str, query: &Query, wanted: Wanted, is_query: impl Fn(&Hit) -> bool) -> Result<Answer> {
        let start = Instant::now();
        let results = self.find(query, wanted, is_query)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Answer { query: text.into(), searched: self.index.len(), seconds, results })
    }

    fn find(&self, query: &Query, wanted: Wanted, is_query: impl Fn(&Hit) -> bool) -> Result<Vec<Found>> {
        let feature = match query {
            Query::Phrase(ids) => caption_features(&self.model.simla, &[ids])?.remove(0),
            Query::Picture(seen) => seen.feature.clone(),
        };
        // One more: a picture is not similar to itself.
        let count = wanted.top.max(wanted.candidates) + 1;
        let mut hits = self.index.nearest(&feature, count, wanted.exact)?;
        hits.retain(|hit| !is_query(hit));
        hits.truncate(count - 1);
        let matching = self.matching(query, &mut hits, wanted.candidates)?;
        let found = |(nth, (hit, matching)): (usize, (Hit, Option<f32>))| {
            let image = self.collection.picture(&hit.name)?.image.to_string();
            Ok(Found {
                rank: nth + 1,
                image,
                caption: (!self.collection.is_pictures()).then_some(hit.name),
                similarity: hit.similarity,
                matching,
            })
        };
        ranked(hits, matching).into_iter().take(wanted.top).enumerate().map(found).collect()
    }

    /// Matching is between a phrase and a picture, the first so many of the hits; nothing for two of a kind.
    fn matching(&self, query: &Query, hits: &mut Vec<Hit>, candidates: usize) -> Result<Vec<f32>> {
        let model = &self.model.simla;
        let scores = match (query, self.collection.is_pictures()) {
            (Query::Phrase(ids), true) => {
                let patches = self.patches(hits, candidates)?;
                let patches: Vec<&[u8]> = patches.iter().map(Vec::as_slice).collect();
                match_probabilities(model, &patches, &vec![ids.as_slice(); patches.len()])?
            }
            (Query::Picture(seen), false) => {
                let encode = |hit: &Hit| self.model.vocabulary.encode(&hit.name, MAX_TOKENS);
                let ids: Vec<Vec<i64>> = hits.iter().take(candidates).map(encode).collect();
                let ids: Vec<&[i64]> = ids.iter().map(Vec::as_slice).collect();
                match_probabilities(model, &[&seen.patches], &ids)?
            }
            _ => vec![],
        };
        Ok(scores)
    }

    /// Patches of the first so many of the hits: as the index keeps them, or looked at again; what cannot be any more is no hit.
    fn patches(&self, hits: &mut Vec<Hit>, candidates: usize) -> Result<Vec<Vec<u8>>> {
        let (kept, width) = (kept_by(self.index.contents()), self.model.simla.config.vision_width as usize);
        let first = &hits[..candidates.min(hits.len())];
        let unpacked = first.iter().map(|hit| kept.unpack(self.index.payload(hit), width)).collect();
        if let Some(patches) = unpacked {
            return Ok(patches);
        }
        let entries: Vec<Entry> = first.iter().map(|hit| self.collection.picture(&hit.name)).collect::<Result<_>>()?;
        let mut seen = see(&self.model.simla, &entries)?.into_iter();
        let (mut patches, mut broken) = (Vec::with_capacity(entries.len()), Vec::new());
        hits.retain(|_| match seen.next() {
            Some(Ok(seen)) => {
                patches.push(seen.patches);
                true
            }
            Some(Err(error)) => {
                broken.push(error);
                false
            }
            None => true, // beyond the candidates
        });
        say_broken(&broken, "pictures");
        Ok(patches)
    }
}

/// The nearest, of which the first were matched, by their probability; those that were not matched stay behind, nearest first.
pub fn ranked(hits: Vec<Hit>, matching: Vec<f32>) -> Vec<(Hit, Option<f32>)> {
    let mut scored: Vec<(Hit, Option<f32>)> =
        hits.into_iter().zip(matching.into_iter().map(Some).chain(std::iter::repeat(None))).collect();
    // The sort is stable.
    scored.sort_by(|a, b| match (a.1, b.1) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    scored
}
