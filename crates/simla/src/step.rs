//! One pre-training step: the five losses of equation 10 and their gradients, on a batch whose random choices are made.
//!
//! - Two graphs, one after the other, never both in memory: alignment (ITC, ITM, MLM, PSL: everything that reads the whole
//!   image) and reconstruction of patches (MIM). They share parameters only, so their gradients add up to that of the sum.
//! - One E_mm pass carries MLM and all of ITM over keys and values that are projected once.
//! - The momentum model computes what a loss will read: at alpha = 0 no teacher's logits.

use tch::{Device, Kind, Tensor, no_grad};

use crate::layers::key_bias;
use crate::model::Simla;
use crate::objectives::negatives::{Negatives, sample};
use crate::objectives::{Objectives, itc, itm, psl, xmm};
use crate::text::{Reading, Rows, join_groups, some_groups};
use simla_train::torch::device::upload;
use simla_train::torch::operations::select;
use simla_train::weights::{Gradients, Weights};

/// A batch on the device, every random choice made.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, 3, S, S]`, normalised.
    pub image: Tensor,
    /// `[B, L]`: token ids, padded.
    pub ids: Tensor,
    /// `[B, L]`: 1 where a token is.
    pub mask: Tensor,
    /// `[B, L]`: ids with words masked.
    pub mlm_ids: Tensor,
    /// Which words are masked.
    pub words: Masked,
    /// The truth at each masked word, in order.
    pub word_labels: Tensor,
    /// Which patches are.
    pub patches: Masked,
    /// The visual token of each masked patch, in order; MIM alone reads them.
    pub patch_labels: Option<Tensor>,
    /// How the wrong partners of ITM are chosen.
    pub negatives: Negatives,
    /// `[B]`, in fine-tuning: pairs of the same image are positives of each other. In pre-training a pair is alone.
    pub image_ids: Option<Tensor>,
}

/// Masked positions, known on the host: no step waits for the device to count them.
#[derive(Debug)]
pub struct Masked {
    /// `[B, tokens]`: true where masked.
    pub hidden: Tensor,
    /// `[B, R]`: positions in each sequence; short rows are filled up with position 0.
    rows: Tensor,
    /// `[n]`: which of the `B x R` rows are meant. On a GPU none where all are.
    valid: Option<Tensor>,
}

impl Masked {
    /// From a host mask `[B x tokens]`.
    pub fn new(hidden: &[bool], tokens: usize, device: Device) -> Self {
        let sequences: Vec<Vec<i64>> = hidden
            .chunks_exact(tokens)
            .map(|row| (0i64..).zip(row).filter(|(_, hidden)| **hidden).map(|(at, _)| at).collect())
            .collect();
        let width = sequences.iter().map(Vec::len).max().unwrap_or(0);
        let mut rows = vec![0i64; sequences.len() * width];
        let mut valid = Vec::new();
        for (i, positions) in sequences.iter().enumerate() {
            rows[i * width..][..positions.len()].copy_from_slice(positions);
            valid.extend((0..positions.len()).map(|at| (i * width + at) as i64));
        }
        let batch = sequences.len() as i64;
        Self {
            hidden: upload(&Tensor::from_slice(hidden).view([batch, tokens as i64]), device),
            rows: upload(&Tensor::from_slice(&rows).view([batch, width as i64]), device),
            valid: (device == Device::Cpu || valid.len() < rows.len())
                .then(|| upload(&Tensor::from_slice(&valid), device)),
        }
    }

    /// The values `[B, tokens]` at the masked positions, in order: `[n]`.
    pub fn pick(&self, values: &Tensor) -> Tensor {
        self.select(&values.gather(1, &self.rows, false))
    }

    /// The meant ones of `[B, R, ...]`: `[n, ...]`.
    fn select(&self, x: &Tensor) -> Tensor {
        let all = x.flatten(0, 1);
        match &self.valid {
            Some(valid) => select(&all, valid),
            None => all,
        }
    }
}

/// The losses of a step, scalars on the device; none for an objective that takes no part.
#[derive(Debug, Default)]
pub struct Losses {
    /// Contrast.
    pub itc: Option<Tensor>,
    /// Matching.
    pub itm: Option<Tensor>,
    /// Masked words.
    pub mlm: Option<Tensor>,
    /// Masked patches.
    pub mim: Option<Tensor>,
    /// Keywords.
    pub psl: Option<Tensor>,
}

impl Losses {
    /// Those that took part, by name, without their graphs.
    pub fn named(&self) -> Vec<(&'static str, Tensor)> {
        let all = [
            ("loss/itc", &self.itc),
            ("loss/itm", &self.itm),
            ("loss/mlm", &self.mlm),
            ("loss/mim", &self.mim),
            ("loss/psl", &self.psl),
        ];
        all.into_iter().filter_map(|(name, loss)| Some((name, loss.as_ref()?.detach()))).collect()
    }

    /// Equation 10 without MIM, with its graph.
    pub fn alignment(&self) -> Option<Tensor> {
        [&self.itc, &self.itm, &self.mlm, &self.psl]
            .into_iter()
            .flatten()
            .map(Tensor::shallow_clone)
            .reduce(|a, b| a + b)
    }

    fn detach(self) -> Self {
        let detach = |loss: Option<Tensor>| loss.map(|loss| loss.detach());
        Self {
            itc: detach(self.itc),
            itm: detach(self.itm),
            mlm: detach(self.mlm),
            mim: self.mim,
            psl: detach(self.psl),
        }
    }
}

/// What the alignment graph computed, for metrics and for comparison.
#[derive(Debug)]
pub struct Alignment {
    /// E_v of the whole image: `[B, 1 + P, D]`.
    pub image_embeds: Tensor,
    /// `[B, E]`, of length one, and so are the next three.
    pub image_feat: Tensor,
    /// Of the whole caption.
    pub text_feat: Tensor,
    /// By the momentum model.
    pub image_feat_m: Tensor,
    /// By the momentum model.
    pub text_feat_m: Tensor,
    /// The online model's to the momentum features of batch and queue.
    pub similarities: itc::Similarities,
    /// `[3 B, 2]`: matched pairs, wrong texts, wrong images.
    pub itm_logits: Option<Tensor>,
    /// `[masked words, vocabulary]`.
    pub mlm_logits: Option<Tensor>,
    /// PSL's.
    pub keywords: Option<Keywords>,
    /// Of the masked image, by the momentum model, where it was computed along.
    masked_embeds_m: Option<Tensor>,
}

/// What PSL computed.
#[derive(Debug)]
pub struct Keywords {
    /// `[B, H, L]`: the momentum [CLS]'s attention.
    pub attention: Tensor,
    /// `[B, vocab]`.
    pub targets: Tensor,
    /// `[B, vocab]`.
    pub logits: Tensor,
}

/// What the momentum model has to say of the whole image and caption.
struct Teacher {
    image_feat: Tensor,
    text_feat: Tensor,
    keyword_attention: Option<Tensor>,
    mlm_logits: Option<Tensor>,
    masked_embeds: Option<Tensor>,
}

impl Simla {
    /// One step on `b`: gradients of the sum of the losses are added to `gradients`. Call [`Simla::begin_step`] before the first
    /// batch of a step and push the momentum features to the queues after the last.
    pub fn step(
        &mut self,
        b: &Inputs,
        alpha: f64,
        objectives: Objectives,
        gradients: &mut Gradients,
    ) -> (Losses, Alignment) {
        self.queues.make_room(b.ids.size()[0]);
        let (mut losses, seen) = self.align(b, alpha, objectives);
        if let Some(sum) = losses.alignment() {
            gradients.backward(&sum, &self.online);
        }
        losses = losses.detach();
        if objectives.mim {
            let (mim, _) = self.reconstruct_with(b, alpha, seen.masked_embeds_m.as_ref());
            gradients.backward(&mim, &self.online);
            losses.mim = Some(mim.detach());
        }
        (losses, seen)
    }

    /// ITC, ITM, MLM and PSL, with their graph.
    pub fn align(&self, b: &Inputs, alpha: f64, objectives: Objectives) -> (Losses, Alignment) {
        let (towers, w, p) = (&self.towers, &self.online, self.config.dropout);
        let batch = b.ids.size()[0];
        let image = b.image.to_kind(w.kind());
        let bias = key_bias(&b.mask, w.kind());
        let teacher = no_grad(|| self.teach(b, &image, &bias, alpha, objectives));
        let mut losses = Losses::default();

        let image_embeds = towers.vision.forward(w, &image, None);
        let words = towers.text.embed_words(w, &b.ids, p);
        // E_mm uses the same layers below.
        let text_embeds = towers.text_embeds(w.twin(), &words, &bias, Rows::Cls, p);
        let image_feat = towers.image_feat(w, &image_embeds);
        let text_feat = towers.text_feat(w, &text_embeds);

        // Image-text contrast, equations 1 to 4.
        let [image_all, text_all] = self.queues.after_features(&teacher.image_feat, &teacher.text_feat);
        let similar = |i: &Tensor, t: &Tensor| itc::Similarities::new(i, t, &image_all, &text_all, self.temp());
        let similarities = similar(&image_feat, &text_feat);
        if objectives.itc {
            let momentum = no_grad(|| similar(&teacher.image_feat, &teacher.text_feat));
            let hard = match &b.image_ids {
                Some(ids) => itc::same_image(ids, &self.queues.after_images(ids)),
                None => itc::own_pair(batch, image_all.size()[1], image.device()),
            };
            losses.itc = Some(itc::loss(&similarities, &momentum, &hard, alpha));
        }

        // One pass of E_mm: masked captions, then the three groups of ITM: wrong captions, captions, captions with a wrong image.
        let ids = b.image_ids.as_ref();
        let positive = ids.map(|ids| itc::shared_image(ids, ids));
        let positive = positive.as_ref();
        let (neg_image, neg_text) = match &b.negatives {
            Negatives::Given { image, text } => (image.shallow_clone(), text.shallow_clone()),
            Negatives::Drawn { image, text } => (
                sample(&similarities.t2i.narrow(1, 0, batch), image, positive),
                sample(&similarities.i2t.narrow(1, 0, batch), text, positive),
            ),
        };
        let mut groups = Vec::with_capacity(4);
        if objectives.mlm {
            groups.push((towers.text.embed_words(w, &b.mlm_ids, p), bias.shallow_clone()));
        }
        if objectives.itm {
            groups.push((select(&words, &neg_text), bias.index_select(0, &neg_text)));
            groups.extend([(words.shallow_clone(), bias.shallow_clone()), (words, bias.shallow_clone())]);
        }
        let (mut itm_logits, mut mlm_logits) = (None, None);
        if !groups.is_empty() {
            let context = match objectives.itm {
                true => towers.text.swapped_keys_values(w, &image_embeds, &neg_image),
                false => towers.image_context(w, &image_embeds),
            };
            let all = Reading { context: &context, swapped: objectives.itm };
            let (embedded, biases): (Vec<Tensor>, Vec<Tensor>) = groups.into_iter().unzip();
            let (count, x, biases) = (embedded.len() as i64, join_groups(&embedded), join_groups(&biases));
            let x = towers.text.lower(w, &x, Some(&biases), Some(all), p);

            // Image-text matching, equation 5.
            if objectives.itm {
                let last = |x: &Tensor| some_groups(x, count, count - 3, 3);
                let pairs = towers.text.last(w, &last(&x), Rows::Cls, Some(&last(&biases)), Some(all), p).select(1, 0);
                let pairs = Tensor::cat(&[1, 0, 2].map(|group| some_groups(&pairs, 3, group, 1)), 0);
                let logits = self.itm_head.forward(w, &pairs).to_kind(Kind::Float);
                losses.itm = Some(itm::loss(&logits));
                itm_logits = Some(logits);
            }

            // Masked words, equations 6 and 7.
            if objectives.mlm {
                let own_image = Some(Reading::own(&context));
                let rows = Rows::At(&b.words.rows);
                let hidden = towers.text.last(w, &some_groups(&x, count, 0, 1), rows, Some(&bias), own_image, p);
                let logits = towers.word_head.logits(w, &b.words.select(&hidden));
                losses.mlm = Some(xmm::loss(&logits, &b.word_labels, teacher.mlm_logits.as_ref(), alpha));
                mlm_logits = Some(logits);
            }
        }

        // Pseudo-labelled keywords, equations 8 and 9.
        let keywords = teacher.keyword_attention.map(|attention| {
            let targets = self.keyword_targets(b, &attention);
            let recommend = || towers.concept_logits(&self.momentum, &teacher.image_feat).sigmoid();
            let recommended = (alpha > 0.0).then(|| no_grad(recommend));
            let logits = towers.concept_logits(w, &image_feat);
            let weight = self.psl.weight(self.config.keywords, self.config.vocab_size);
            losses.psl = Some(psl::loss(&logits, &targets, recommended.as_ref(), alpha) * weight);
            Keywords { attention, targets, logits }
        });

        let seen = Alignment {
            image_embeds,
            image_feat,
            text_feat,
            image_feat_m: teacher.image_feat,
            text_feat_m: teacher.text_feat,
            similarities,
            itm_logits,
            mlm_logits,
            keywords,
            masked_embeds_m: teacher.masked_embeds,
        };
        (losses, seen)
    }

    /// The momentum model on the unmasked pair, and on masked words where they are distilled. Without dropout: its targets
    /// carry no noise of their own.
    fn teach(&self, b: &Inputs, image: &Tensor, bias: &Tensor, alpha: f64, objectives: Objectives) -> Teacher {
        let (towers, w) = (&self.towers, &self.momentum);
        let (image_embeds, masked_embeds) = self.seen_by_teacher(b, image, alpha > 0.0 && objectives.mim);
        let words = towers.text.embed_words(w, &b.ids, 0.0);
        let text_embeds = towers.text_embeds(w, &words, bias, Rows::Cls, 0.0);
        let mut teacher = Teacher {
            image_feat: towers.image_feat(w, &image_embeds),
            text_feat: towers.text_feat(w, &text_embeds),
            keyword_attention: None,
            mlm_logits: None,
            masked_embeds,
        };
        let mut groups = Vec::with_capacity(2);
        if objectives.psl {
            groups.push(words);
        }
        let distil_words = alpha > 0.0 && objectives.mlm;
        if distil_words {
            groups.push(towers.text.embed_words(w, &b.mlm_ids, 0.0));
        }
        if groups.is_empty() {
            return teacher;
        }
        let context = towers.image_context(w, &image_embeds);
        let own_image = Some(Reading::own(&context));
        let count = groups.len() as i64;
        let biases = join_groups(&groups.iter().map(|_| bias.shallow_clone()).collect::<Vec<_>>());
        let x = towers.text.lower(w, &join_groups(&groups), Some(&biases), own_image, 0.0);
        if objectives.psl {
            let attention = towers.text.last_attention(w, &some_groups(&x, count, 0, 1), Rows::Cls, Some(bias));
            teacher.keyword_attention = Some(attention.squeeze_dim(2));
        }
        if distil_words {
            let masked = some_groups(&x, count, count - 1, 1);
            let hidden = towers.text.last(w, &masked, Rows::At(&b.words.rows), Some(bias), own_image, 0.0);
            teacher.mlm_logits = Some(towers.word_head.logits(w, &b.words.select(&hidden)));
        }
        teacher
    }

    /// The momentum model's E_v of the whole images; on a GPU in one pass with that of the masked ones, if they `are_reconstructed`.
    fn seen_by_teacher(&self, b: &Inputs, image: &Tensor, are_reconstructed: bool) -> (Tensor, Option<Tensor>) {
        let (vision, w) = (&self.towers.vision, &self.momentum);
        if !are_reconstructed || w.device() == Device::Cpu {
            return (vision.forward(w, image, None), None);
        }
        let hidden = &b.patches.hidden;
        let hidden = Tensor::cat(&[&hidden.zeros_like(), hidden], 0);
        let mut both = vision.forward(w, &Tensor::cat(&[image, image], 0), Some(&hidden)).chunk(2, 0);
        let masked = both.pop();
        (both.remove(0), masked)
    }

    fn keyword_targets(&self, b: &Inputs, attention: &Tensor) -> Tensor {
        let c = &self.config;
        let special = b.ids.eq(c.special.cls).logical_or(&b.ids.eq(c.special.sep)).logical_or(&b.mask.eq(0));
        let barred = match &self.psl.never {
            Some(never) => special.logical_or(&never.index_select(0, &b.ids.flatten(0, -1)).view_as(&special)),
            None => special,
        };
        psl::keyword_targets(attention, &barred, &b.ids, c.keywords, c.vocab_size)
    }

    /// MIM, with its graph; and its logits `[n, visual vocabulary]`.
    pub fn reconstruct(&self, b: &Inputs, alpha: f64) -> (Tensor, Tensor) {
        self.reconstruct_with(b, alpha, None)
    }

    /// The same, where the momentum model may have seen the masked images.
    fn reconstruct_with(&self, b: &Inputs, alpha: f64, seen_by_teacher: Option<&Tensor>) -> (Tensor, Tensor) {
        let labels = b.patch_labels.as_ref().expect("the labels of MIM");
        let image = b.image.to_kind(self.online.kind());
        let see = |w: &Weights| self.towers.vision.forward(w, &image, Some(&b.patches.hidden));
        let teacher = (alpha > 0.0).then(|| {
            no_grad(|| {
                let image_embeds = seen_by_teacher.map_or_else(|| see(&self.momentum), Tensor::shallow_clone);
                self.patch_logits(b, &self.momentum, &image_embeds, 0.0)
            })
        });
        let logits = self.patch_logits(b, &self.online, &see(&self.online), self.config.dropout);
        (xmm::loss(&logits, labels, teacher.as_ref(), alpha), logits)
    }

    /// Masked patches, as E_v gives them, as queries of the whole caption's raw word embeddings (appendix 1.2).
    fn patch_logits(&self, b: &Inputs, w: &Weights, image_embeds: &Tensor, p: f64) -> Tensor {
        let towers = &self.towers;
        let words = towers.text.embed_words(w, &b.ids, p);
        let context = towers.text.keys_values(w, &words, Some(&b.mask));
        let queries = towers.text.embed_patches(w, image_embeds, p);
        // [CLS] stands before the patches.
        let rows = &b.patches.rows + 1;
        let hidden = towers.text.encode(w, &queries, Rows::At(&rows), None, Some(Reading::own(&context)), p);
        towers.mim_head.forward(w, &b.patches.select(&hidden)).to_kind(Kind::Float)
    }
}
