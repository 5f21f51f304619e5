//! Gradients of a model's parameters, summed over the losses and batches of a step.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use super::recompute::Segment;
use super::{Flat, Layout, Weights};
use crate::seed::draw_seed;
use crate::torch::operations::{add_all, copy_all};

/// Adds a gradient to a sum of gradients. On the CPU by rows: torch makes a copy of a gradient of another type in the sum's first, and
/// that of some rows stays in the cache.
fn accumulate(sum: &Tensor, gradient: &Tensor) {
    const ELEMENTS: i64 = 1 << 17;
    let rows = sum.size().first().copied().unwrap_or(1);
    if sum.device() != Device::Cpu || gradient.kind() == sum.kind() || rows == 1 {
        let _ = sum.shallow_clone().g_add_(gradient);
        return;
    }
    let at_once = (ELEMENTS * rows / sum.numel() as i64).max(1);
    for (mut sum, gradient) in sum.split(at_once, 0).into_iter().zip(gradient.split(at_once, 0)) {
        let _ = sum.g_add_(&gradient);
    }
}

/// Gradients of every parameter, in f32, laid out as the parameters are.
#[derive(Debug)]
pub struct Gradients {
    flat: Flat,
    layout: Layout,
    /// Of each leaf, in `flat`.
    sums: Vec<Tensor>,
    /// Which leaves hold a gradient of the present step.
    touched: Vec<bool>,
}

impl Gradients {
    /// Zeros of the size of these weights.
    pub fn new(weights: &Weights) -> Self {
        let flat = Flat::zeros(&weights.layout, Kind::Float, weights.device());
        let leaves = &weights.layout.leaves;
        Self {
            sums: leaves.iter().map(|leaf| flat.view(leaf)).collect(),
            flat,
            touched: vec![false; leaves.len()],
            layout: weights.layout.clone(),
        }
    }

    /// Adds the gradient of `loss`, and frees its graph.
    pub fn backward(&mut self, loss: &Tensor, weights: &Weights) {
        let seed = draw_seed();
        let mut segments = weights.segments().map(RefCell::take).unwrap_or_default();
        let mut of_others = Vec::new();
        self.add(loss, weights, &mut segments);
        while let Some(segment) = segments.pop() {
            if segment.reached() {
                self.add(&segment.loss(weights), weights, &mut segments);
            } else {
                of_others.insert(0, segment);
            }
        }
        if let Some(segments) = weights.segments() {
            segments.replace(of_others);
        }
        tch::manual_seed(seed);
    }

    /// Adds what of the gradient of `loss` lies between it and the leaves of the segments `before` it.
    fn add(&mut self, loss: &Tensor, weights: &Weights, before: &mut [Segment]) {
        let leaves = before.iter().flat_map(|segment| &segment.leaves);
        let inputs: Vec<&Tensor> = weights.leaves().chain(leaves).collect();
        let of_weights = weights.leaves().count();
        let mut gradients = Tensor::run_backward(&[loss], &inputs, false, false).into_iter();
        no_grad(|| {
            let of_leaves: Vec<Tensor> = gradients.by_ref().take(of_weights).collect();
            for of_leaves in of_leaves.chunks(self.sums.len()) {
                match weights.device() {
                    Device::Cpu => self.gather_one_by_one(of_leaves),
                    _ => self.gather_at_once(of_leaves),
                }
            }
            let sums = before.iter_mut().flat_map(|segment| &mut segment.gradients);
            for (sum, gradient) in sums.zip(gradients).filter(|(_, g)| g.defined()) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        });
    }

    /// Adds the gradients of leaves, where they are defined; the first of a step takes the place of the sum.
    fn gather_one_by_one(&mut self, gradients: &[Tensor]) {
        for ((sum, touched), gradient) in self.sums.iter_mut().zip(&mut self.touched).zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            if std::mem::replace(touched, true) {
                accumulate(sum, gradient);
            } else {
                sum.copy_(gradient);
            }
        }
    }

    /// The same in a few operations: on a GPU, starting one for each leaf takes longer than what it does.
    fn gather_at_once(&mut self, gradients: &[Tensor]) {
        // Of one type each: else libtorch takes one after the other.
        let mut lists: [Vec<(&Tensor, &Tensor)>; 4] = Default::default();
        for ((sum, touched), gradient) in self.sums.iter().zip(&mut self.touched).zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            let (is_sum, is_converted) = (std::mem::replace(touched, true), gradient.kind() != sum.kind());
            lists[2 * usize::from(is_sum) + usize::from(is_converted)].push((sum, gradient));
        }
        for (list, operation) in lists.into_iter().zip([copy_all, copy_all, add_all, add_all]) {
            let (sums, gradients): (Vec<_>, Vec<_>) = list.into_iter().unzip();
            operation(&sums, &gradients);
        }
    }

    /// Forgets the gradients: the next [`Gradients::backward`] starts a sum anew.
    pub fn clear(&mut self) {
        self.touched.fill(false);
    }

    /// The sums, with zeros where no loss reached a parameter.
    pub fn flat(&mut self) -> &mut Flat {
        no_grad(|| {
            for (sum, touched) in self.sums.iter_mut().zip(&mut self.touched) {
                if !std::mem::replace(touched, true) {
                    let _ = sum.zero_();
                }
            }
        });
        &mut self.flat
    }

    /// Every gradient under its parameter's published name.
    pub fn named(&mut self) -> BTreeMap<String, Tensor> {
        self.flat();
        self.flat.named(&self.layout)
    }
}
