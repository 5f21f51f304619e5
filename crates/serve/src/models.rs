//! What the model's thread has: the model, one for questions where there is one, and the pictures that were
//! looked at last.

use std::collections::VecDeque;

use anyhow::Result;
use simla::inputs::normalized;
use simla::tasks::pretrain::Model;
use simla_run::asking::Asker;
use simla_train::torch::guard::guarded;
use tch::{Tensor, no_grad};

/// Pictures that stay looked at: of one picture, one asks several things.
const RECENT: usize = 8;

/// A picture as the model sees it.
pub struct Looked {
    /// `[1, 3, S, S]`, normalised.
    pub image: Tensor,
    /// E_v's output: `[1, 1 + P, D]`.
    pub embeds: Tensor,
}

/// All that computes.
pub struct Models {
    pub model: Model,
    pub asker: Option<Asker>,
    recent: VecDeque<(blake3::Hash, Looked)>,
}

impl Models {
    pub fn new(model: Model, asker: Option<Asker>) -> Self {
        Self { model, asker, recent: VecDeque::new() }
    }

    /// Looks at a view, RGB bytes `[S, S, 3]`.
    ///
    /// # Errors
    /// What libtorch could not do.
    pub fn look(&mut self, view: &[u8]) -> Result<(&Model, &Looked)> {
        let hash = blake3::hash(view);
        let known = self.recent.iter().position(|(other, _)| *other == hash);
        let entry = match known.and_then(|at| self.recent.remove(at)) {
            Some(entry) => entry,
            None => {
                let simla = &self.model.simla;
                let (w, vision) = (&simla.online, &simla.towers.vision);
                let looked = guarded(|| {
                    let image = normalized(view, 1, simla.config.image_size as usize, w.device());
                    let embeds = no_grad(|| vision.forward(w, &image, None));
                    Looked { image, embeds }
                })?;
                (hash, looked)
            }
        };
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(entry);
        Ok((&self.model, &self.recent[0].1))
    }
}
