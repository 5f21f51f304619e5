//! The queues of 2.1: the last momentum features of each modality, as negatives for the contrast.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use simla_train::weights::{WeightsError, check};

/// The images' name in a checkpoint, the authors'.
const IMAGE_IDS: &str = "idx_queue";
/// The image of a queued pair that is not known: no image of any data.
const UNKNOWN: i64 = -100;

/// Features of each modality. New ones replace the oldest; the queue wraps at any size.
#[derive(Debug)]
pub struct Queues {
    /// `[E, room + size]`: room for a batch's features, then the queue. So the contrast reads both as one matrix without a copy.
    image: Tensor,
    text: Tensor,
    room: i64,
    /// `[1, size]`: which image each pair shows, where the queue is to know it (in fine-tuning).
    image_ids: Option<Tensor>,
    next: i64,
}

impl Queues {
    /// Random directions.
    pub fn new(embed_dim: i64, size: i64, device: Device) -> Self {
        let random = || {
            let x = Tensor::randn([embed_dim, size], (Kind::Float, Device::Cpu));
            (&x / x.norm_scalaropt_dim(2.0, [0].as_slice(), true)).to(device)
        };
        Self { image: random(), text: random(), room: 0, image_ids: None, next: 0 }
    }

    /// Features of each modality.
    pub fn size(&self) -> i64 {
        self.image.size()[1] - self.room
    }

    /// The queue itself: `[E, size]`.
    fn queued(&self, features: &Tensor) -> Tensor {
        features.narrow(1, self.room, self.size())
    }

    /// From here on batches of up to `batch` pairs have room before the queue: [`Queues::after_features`] copies it no more.
    pub fn make_room(&mut self, batch: i64) {
        let missing = batch - self.room;
        if missing <= 0 {
            return;
        }
        for features in [&mut self.image, &mut self.text] {
            let room = Tensor::zeros([features.size()[0], missing], (Kind::Float, features.device()));
            *features = Tensor::cat(&[&room, features], 1);
        }
        self.room = batch;
    }

    /// The features `[B, E]` of images and texts, then those of the queue: `[E, B + size]` each. They may be views, which the next
    /// call or push changes: the backward pass comes before.
    pub fn after_features(&self, image_feat: &Tensor, text_feat: &Tensor) -> [Tensor; 2] {
        [(&self.image, image_feat), (&self.text, text_feat)].map(|(features, new)| {
            let (batch, new) = (new.size()[0], new.detach().transpose(0, 1));
            if batch > self.room {
                return Tensor::cat(&[new, self.queued(features)], 1);
            }
            let all = features.narrow(1, self.room - batch, batch + self.size());
            all.narrow(1, 0, batch).copy_(&new);
            all
        })
    }

    /// From here on knows which image each new pair shows.
    pub fn remember_images(&mut self) {
        let options = (Kind::Int64, self.image.device());
        self.image_ids = Some(Tensor::full([1, self.size()], UNKNOWN, options));
    }

    /// The images `[B]` of a batch, then those of the queue: `[B + size]`.
    ///
    /// # Panics
    /// If the queue was not told to [remember](Self::remember_images) them.
    pub fn after_images(&self, image_ids: &Tensor) -> Tensor {
        let queued = self.image_ids.as_ref().expect("images are remembered");
        Tensor::cat(&[image_ids, &queued.get(0)], 0)
    }

    /// Puts in the features `[B, E]` of a batch, and which images `[B]` its pairs show where that is known; of a batch larger than
    /// the queue, its last ones remain.
    pub fn push(&mut self, image_feat: &Tensor, text_feat: &Tensor, image_ids: Option<&Tensor>) {
        let (size, batch) = (self.size(), image_feat.size()[0]);
        let kept = batch.min(size);
        let start = (self.next + batch - kept) % size;
        let before_end = kept.min(size - start);
        let features = [
            (self.queued(&self.image), image_feat.transpose(0, 1)),
            (self.queued(&self.text), text_feat.transpose(0, 1)),
        ];
        let ids = self.image_ids.as_ref().map(|queue| {
            let new = match image_ids {
                Some(ids) => ids.unsqueeze(0),
                None => Tensor::full([1, batch], UNKNOWN, (Kind::Int64, queue.device())),
            };
            (queue.shallow_clone(), new)
        });
        no_grad(|| {
            for (queue, new) in features.into_iter().chain(ids) {
                let new = new.detach().narrow(1, batch - kept, kept);
                queue.narrow(1, start, before_end).copy_(&new.narrow(1, 0, before_end));
                if kept > before_end {
                    queue.narrow(1, 0, kept - before_end).copy_(&new.narrow(1, before_end, kept - before_end));
                }
            }
        });
        self.next = (self.next + batch) % size;
    }

    /// Under the names of the checkpoint; none of an empty queue.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        if self.size() == 0 {
            return BTreeMap::new();
        }
        let mut named = BTreeMap::from([
            ("image_queue".into(), self.queued(&self.image)),
            ("text_queue".into(), self.queued(&self.text)),
            ("queue_ptr".into(), Tensor::from_slice(&[self.next])),
        ]);
        let ids = self.image_ids.as_ref();
        named.extend(ids.map(|ids| (IMAGE_IDS.into(), ids.shallow_clone())));
        named
    }

    /// Images are taken where they are remembered; of a queue without them, as pre-training leaves it, none is known.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape, not finite, or a pointer outside of the queue.
    pub fn load(&mut self, source: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        if self.size() == 0 {
            return Ok(());
        }
        let get = |name: &str, shape: &[i64]| {
            let tensor = source.get(name).ok_or_else(|| WeightsError::Missing(name.into()))?;
            check(name, tensor, shape).map(|()| tensor)
        };
        let shape = [self.image.size()[0], self.size()];
        let (image, text) = (get("image_queue", &shape)?, get("text_queue", &shape)?);
        let next = get("queue_ptr", &[1])?.int64_value(&[0]);
        let ids = match source.contains_key(IMAGE_IDS) {
            true => Some(get(IMAGE_IDS, &[1, self.size()])?),
            false => None,
        };
        if !(0..self.size()).contains(&next) {
            return Err(WeightsError::Pointer { found: next, size: self.size() });
        }
        no_grad(|| {
            self.queued(&self.image).copy_(image);
            self.queued(&self.text).copy_(text);
            if let Some(known) = &mut self.image_ids {
                match ids {
                    Some(ids) => known.copy_(ids),
                    None => drop(known.fill_(UNKNOWN)),
                }
            }
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
        Tensor::arange_start(first, first + count, (Kind::Float, Device::Cpu)).unsqueeze(1).repeat([1, 2])
    }

    fn content(queues: &Queues, features: &Tensor) -> Vec<f32> {
        Vec::try_from(queues.queued(features).get(0)).unwrap()
    }

    #[test]
    fn wraps_at_a_size_that_no_batch_divides() {
        let mut queues = Queues::new(2, 7, Device::Cpu);
        for batch in 0..5 {
            queues.push(&numbered(3 * batch, 3), &numbered(100 + 3 * batch, 3), None);
        }
        // 15 features went in: the last seven are 8 to 14, and 14 lies in slot 14 % 7.
        assert_eq!(content(&queues, &queues.image), [14.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0]);
        assert_eq!(content(&queues, &queues.text), [114.0, 108.0, 109.0, 110.0, 111.0, 112.0, 113.0]);
        assert_eq!(queues.next, 1);
    }

    #[test]
    fn images_stay_beside_their_features_through_wrapping_and_checkpoints() {
        let mut queues = Queues::new(2, 7, Device::Cpu);
        queues.push(&numbered(0, 3), &numbered(0, 3), None);
        let of_pretraining = queues.named();
        assert!(!of_pretraining.contains_key("idx_queue"));

        let ids = |queues: &Queues| Vec::<i64>::try_from(queues.after_images(&Tensor::from(7).view(1)));
        let mut tuned = Queues::new(2, 7, Device::Cpu);
        tuned.remember_images();
        tuned.load(&of_pretraining).unwrap();
        assert_eq!(ids(&tuned).unwrap(), [7, -100, -100, -100, -100, -100, -100, -100]);
        // 3 to 8 are in slots 3 to 6, 0 and 1; each shows image 10 x itself.
        for first in [3, 6] {
            let new = numbered(first, 3);
            let ids = (new.select(1, 0) * 10).to_kind(Kind::Int64);
            tuned.push(&new, &new, Some(&ids));
        }
        assert_eq!(content(&tuned, &tuned.text)[..2], [7.0, 8.0]);
        assert_eq!(ids(&tuned).unwrap(), [7, 70, 80, -100, 30, 40, 50, 60]);

        let mut again = Queues::new(2, 7, Device::Cpu);
        again.remember_images();
        again.load(&tuned.named()).unwrap();
        again.push(&numbered(9, 1), &numbered(9, 1), None);
        assert_eq!(ids(&again).unwrap(), [7, 70, 80, -100, 30, 40, 50, 60]);
        again.push(&numbered(10, 1), &numbered(10, 1), None);
        assert_eq!(ids(&again).unwrap(), [7, 70, 80, -100, -100, 40, 50, 60]);
    }

    #[test]
    fn a_batch_stands_before_the_queue_with_room_and_without() {
        let mut queues = Queues::new(2, 7, Device::Cpu);
        queues.push(&numbered(0, 7), &numbered(100, 7), None);
        let (image, text) = (numbered(20, 3), numbered(120, 3));
        let expected = |start: i64| {
            let row = [20, 21, 22, 0, 1, 2, 3, 4, 5, 6].map(|k| (start + k) as f32);
            Tensor::from_slice2(&[row, row])
        };
        for room in [0, 3, 5, 2] {
            queues.make_room(room);
            let [images, texts] = queues.after_features(&image, &text);
            assert!(images.equal(&expected(0)), "{room}");
            assert!(texts.equal(&expected(100)), "{room}");
            assert_eq!(queues.size(), 7);
        }
        queues.push(&image, &text, None);
        assert_eq!(content(&queues, &queues.text), [120.0, 121.0, 122.0, 103.0, 104.0, 105.0, 106.0]);
        let mut again = Queues::new(2, 7, Device::Cpu);
        again.load(&queues.named()).unwrap();
        assert_eq!(content(&again, &again.text), content(&queues, &queues.text));
    }

    #[test]
    fn a_batch_larger_than_the_queue_leaves_its_last_features() {
        let mut queues = Queues::new(2, 4, Device::Cpu);
        queues.push(&numbered(0, 10), &numbered(0, 10), None);
        assert_eq!(content(&queues, &queues.image), [8.0, 9.0, 6.0, 7.0]);
        assert_eq!(queues.next, 2);
    }
}
