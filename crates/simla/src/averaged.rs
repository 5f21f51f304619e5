//! A model and its moving average, the momentum model (2.1), where all of the model is averaged.

use tch::{Device, Kind, Tensor};

use crate::import::Tensors;
use crate::model::momentum_name;
use simla_train::checkpoint::{Checkpoint, CheckpointError};
use simla_train::weights::{Layout, Weights, WeightsError};

/// Weights that train, and the average of them that teaches.
#[derive(Debug)]
pub struct Averaged {
    /// Those that train.
    pub online: Weights,
    /// Their average.
    pub teacher: Weights,
    /// Share of the old value that the average keeps each step.
    momentum: f64,
}

impl Averaged {
    /// Fresh weights, a function of `seed` alone, and their copy.
    pub fn new(layout: &Layout, momentum: f64, kind: Kind, device: Device, seed: i64) -> Self {
        tch::manual_seed(seed);
        let online = Weights::new(layout, kind, device, true);
        let mut teacher = Weights::zeros(layout, kind, device, false);
        teacher.average(&online, 0.0);
        Self { online, teacher, momentum }
    }

    /// Memory for weights that will be loaded and used, but not trained: without a teacher.
    pub fn for_use(layout: &Layout, kind: Kind, device: Device) -> Self {
        let online = Weights::zeros(layout, kind, device, true);
        Self { online, teacher: Weights::zeros(&Layout::default(), kind, device, false), momentum: 0.0 }
    }

    /// Before a step: the teacher moves towards the online weights.
    pub fn begin_step(&mut self) {
        self.teacher.average(&self.online, self.momentum);
    }

    /// Every tensor of a checkpoint, the teacher's with `_m` after the top-level name, as views in f32.
    pub fn named(&self) -> Tensors {
        let mut named = self.online.named();
        named.extend(self.teacher.named().into_iter().map(|(name, tensor)| (momentum_name(&name), tensor)));
        named
    }

    /// Takes all of [`Averaged::named`] from `source`.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn load(&mut self, source: &Tensors) -> Result<(), WeightsError> {
        self.online.load(source, str::to_owned)?;
        self.teacher.load(source, momentum_name)
    }

    /// Takes what it has from a saved model.
    ///
    /// # Errors
    /// A damaged file, or the first tensor that is missing, of another shape or not finite.
    pub fn load_saved(&mut self, saved: &Checkpoint) -> Result<(), CheckpointError> {
        let wanted = self.named();
        let tensors = saved.model_where(|name| wanted.contains_key(name))?;
        self.load(&tensors).map_err(|e| saved.blame(e))
    }

    /// Starts from the tensors of another model: `origin` says which of them a parameter takes; without one it stays as drawn. The
    /// teacher takes the other model's where `taught`, as far as that has one, and is a copy of the online weights elsewhere.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn start(
        &mut self,
        source: &Tensors,
        origin: impl Fn(&str) -> Option<String>,
        taught: bool,
    ) -> Result<(), WeightsError> {
        take(&mut self.online, source, &origin)?;
        self.teacher.average(&self.online, 0.0);
        if taught {
            let momentum = |name: &str| Some(momentum_name(&origin(name)?)).filter(|name| source.contains_key(name));
            take(&mut self.teacher, source, &momentum)?;
        }
        Ok(())
    }
}

/// Loads what has an origin in `source` from there.
///
/// # Errors
/// See [`Averaged::start`].
pub fn take(
    weights: &mut Weights,
    source: &Tensors,
    origin: &impl Fn(&str) -> Option<String>,
) -> Result<(), WeightsError> {
    let is_new = |name: &String| origin(name).is_none();
    let new = weights.named().into_iter().filter(|(name, _)| is_new(name));
    let mut all: Tensors = source.iter().map(|(name, tensor)| (name.clone(), Tensor::shallow_clone(tensor))).collect();
    all.extend(new);
    weights.load(&all, |name| origin(name).unwrap_or_else(|| name.to_owned()))
}
