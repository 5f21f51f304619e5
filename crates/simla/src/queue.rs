//! The queues of 2.1: the last momentum features of each modality, as negatives for the contrast.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use crate::weights::{WeightsError, check};

/// Features `[E, size]` of each modality. New ones replace the oldest; the queue wraps at any size.
#[derive(Debug)]
pub struct Queues {
    pub image: Tensor,
    pub text: Tensor,
    next: i64,
}

impl Queues {
    /// Random directions.
    pub fn new(embed_dim: i64, size: i64, device: Device) -> Self {
        let random = || {
            let x = Tensor::randn([embed_dim, size], (Kind::Float, Device::Cpu));
            (&x / x.norm_scalaropt_dim(2.0, [0].as_slice(), true)).to(device)
        };
        Self {
            image: random(),
            text: random(),
            next: 0,
        }
    }

    pub fn size(&self) -> i64 {
        self.image.size()[1]
    }

    /// Puts in the features `[B, E]` of a batch; of a batch larger than the queue, its last ones remain.
    pub fn push(&mut self, image_feat: &Tensor, text_feat: &Tensor) {
        let (size, batch) = (self.size(), image_feat.size()[0]);
        let kept = batch.min(size);
        let first = self.next + batch - kept;
        no_grad(|| {
            for (queue, features) in [(&mut self.image, image_feat), (&mut self.text, text_feat)] {
                let features = features
                    .detach()
                    .narrow(0, batch - kept, kept)
                    .transpose(0, 1);
                let start = first % size;
                let before_end = kept.min(size - start);
                queue
                    .narrow(1, start, before_end)
                    .copy_(&features.narrow(1, 0, before_end));
                queue
                    .narrow(1, 0, kept - before_end)
                    .copy_(&features.narrow(1, before_end, kept - before_end));
            }
        });
        self.next = (self.next + batch) % size;
    }

    /// Under the names of the checkpoint.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("image_queue".into(), self.image.shallow_clone()),
            ("text_queue".into(), self.text.shallow_clone()),
            ("queue_ptr".into(), Tensor::from_slice(&[self.next])),
        ])
    }

    /// # Errors
    /// The first tensor that is missing, of another shape, not finite, or a pointer outside of the queue.
    pub fn load(&mut self, source: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        let get = |name: &str, shape: &[i64]| {
            let tensor = source
                .get(name)
                .ok_or_else(|| WeightsError::Missing(name.into()))?;
            check(name, tensor, shape).map(|()| tensor)
        };
        let shape = self.image.size();
        let (image, text) = (get("image_queue", &shape)?, get("text_queue", &shape)?);
        let next = get("queue_ptr", &[1])?.int64_value(&[0]);
        if !(0..self.size()).contains(&next) {
            return Err(WeightsError::Pointer {
                found: next,
                size: self.size(),
            });
        }
        no_grad(|| {
            self.image.copy_(image);
            self.text.copy_(text);
        });
        self.next = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features that say when they came: the k-th of the run is k in every coordinate.
    fn numbered(first: i64, count: i64) -> Tensor {
        Tensor::arange_start(first, first + count, (Kind::Float, Device::Cpu))
            .unsqueeze(1)
            .repeat([1, 2])
    }

    fn content(queue: &Tensor) -> Vec<f32> {
        Vec::try_from(queue.get(0)).unwrap()
    }

    #[test]
    fn wraps_at_a_size_that_no_batch_divides() {
        let mut queues = Queues::new(2, 7, Device::Cpu);
        for batch in 0..5 {
            queues.push(&numbered(3 * batch, 3), &numbered(100 + 3 * batch, 3));
        }
        // 15 features went in: the last seven are 8 to 14, and 14 lies in slot 14 % 7.
        assert_eq!(
            content(&queues.image),
            [14.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0]
        );
        assert_eq!(
            content(&queues.text),
            [114.0, 108.0, 109.0, 110.0, 111.0, 112.0, 113.0]
        );
        assert_eq!(queues.next, 1);
    }

    #[test]
    fn a_batch_larger_than_the_queue_leaves_its_last_features() {
        let mut queues = Queues::new(2, 4, Device::Cpu);
        queues.push(&numbered(0, 10), &numbered(0, 10));
        assert_eq!(content(&queues.image), [8.0, 9.0, 6.0, 7.0]);
        assert_eq!(queues.next, 2);
    }
}
