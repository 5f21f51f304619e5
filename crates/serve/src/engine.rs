//! The model, alone in a thread of its own behind a bounded queue.
//!
//! Three lanes: short work (words and pictures to features, matching), of which all that waits is done at once; long work (a phrase in
//! a picture, concepts, attention, questions), one at a time; and pictures of the index, when nothing else waits. What finds its lane
//! full is refused at once, what waits for longer than [`PATIENCE`] is given up, and what nobody waits for any more is not begun.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use simla::model::Simla;
use simla::tasks::search::{Seen, caption_features, match_probabilities, see_views};
use tokio::sync::oneshot;

use crate::models::Models;
use crate::refusal::Refusal;

/// How long work may wait for the model, and be worked on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Short work that may wait. Each has a client on a connection.
const SHORT: usize = 256;
/// Long work that may wait: at a second each, more could not be done within [`PATIENCE`].
const LONG: usize = 32;
/// Words, pictures or pairs that are computed at a time.
const TOGETHER: usize = 64;
/// Turns of short work, after which long work that waits has one.
const FAIR: usize = 4;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Short work.
enum Short {
    /// The contrastive features of texts.
    Words(Vec<Vec<i64>>, Reply<Vec<Vec<f32>>>),
    /// What is kept of pictures.
    Views(Vec<Vec<u8>>, Reply<Vec<Seen>>),
    /// Probabilities that words match pictures.
    Match(Vec<i64>, Vec<Vec<u8>>, Reply<Vec<f32>>),
}

impl Short {
    fn abandoned(&self) -> bool {
        match self {
            Self::Words(_, reply) => reply.is_closed(),
            Self::Match(_, _, reply) => reply.is_closed(),
            Self::Views(_, reply) => reply.is_closed(),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Words(texts, _) => texts.len(),
            Self::Views(views, _) => views.len(),
            Self::Match(_, patches, _) => patches.len(),
        }
    }
}

type Work = Box<dyn FnOnce(&mut Models) + Send>;

/// Pictures that are to be indexed, the bytes of their files, and who waits for it.
type ToIndex = (Vec<Vec<u8>>, Reply<Vec<Seen>>);

#[derive(Default)]
struct Waiting {
    short: VecDeque<(Instant, Short)>,
    long: VecDeque<(Instant, Work)>,
    index: Option<ToIndex>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock; and if it did, the lists would be whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done next.
enum Turn {
    Short(Vec<Short>),
    Long(Work),
    Index(Vec<Vec<u8>>, Reply<Vec<Seen>>),
}

/// The way to the model.
pub struct Engine {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Gives the models a thread.
    pub fn start(mut models: Models) -> Self {
        let queue = Arc::<Queue>::default();
        let own = Arc::clone(&queue);
        let work = move || {
            let mut turns = 0;
            while let Some(turn) = next(&own, &mut turns) {
                // A defect ends what it was met in, not the server: those who wait are told when their reply is dropped.
                _ = catch_unwind(AssertUnwindSafe(|| match turn {
                    Turn::Short(all) => short(&models.model.simla, all),
                    Turn::Long(work) => work(&mut models),
                    Turn::Index(views, reply) => {
                        let views: Vec<&[u8]> = views.iter().map(Vec::as_slice).collect();
                        _ = reply.send(see_views(&models.model.simla, &views).map_err(Refusal::server));
                    }
                }));
            }
        };
        let thread = thread::Builder::new().name("model".into()).spawn(work).expect("a thread");
        Self { queue, thread: Mutex::new(Some(thread)) }
    }

    /// The contrastive feature of words, given as token ids.
    pub async fn words(&self, ids: Vec<i64>) -> Result<Vec<f32>, Refusal> {
        Ok(self.many_words(vec![ids]).await?.swap_remove(0))
    }

    /// The contrastive features of texts, each given as token ids.
    pub async fn many_words(&self, texts: Vec<Vec<i64>>) -> Result<Vec<Vec<f32>>, Refusal> {
        self.short(|reply| Short::Words(texts, reply)).await
    }

    /// What is kept of a picture, given as a view.
    pub async fn view(&self, view: Vec<u8>) -> Result<Seen, Refusal> {
        Ok(self.many_views(vec![view]).await?.swap_remove(0))
    }

    /// What is kept of pictures, each given as a view.
    pub async fn many_views(&self, views: Vec<Vec<u8>>) -> Result<Vec<Seen>, Refusal> {
        if views.is_empty() {
            return Ok(vec![]);
        }
        self.short(|reply| Short::Views(views, reply)).await
    }

    /// Probabilities that words, given as token ids, belong to each of these pictures.
    pub async fn matching(&self, ids: Vec<i64>, patches: Vec<Vec<u8>>) -> Result<Vec<f32>, Refusal> {
        if patches.is_empty() {
            return Ok(vec![]);
        }
        self.short(|reply| Short::Match(ids, patches, reply)).await
    }

    /// Long work.
    pub async fn long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Models) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.queue.lock();
            if waiting.closed {
                return Err(Refusal::closing());
            }
            if waiting.long.len() >= LONG {
                return Err(Refusal::busy());
            }
            let work: Work = Box::new(move |models| {
                if !reply.is_closed() {
                    _ = reply.send(work(models));
                }
            });
            waiting.long.push_back((Instant::now(), work));
        }
        self.queue.ready.notify_one();
        answered(answer).await
    }

    /// Looks at pictures of the index, given as views, when nobody asks anything; waits for that. Not for a thread of the server.
    ///
    /// # Errors
    /// If the server closes, or what libtorch could not do.
    pub fn index(&self, views: Vec<Vec<u8>>) -> Result<Vec<Seen>, Refusal> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.queue.lock();
            if waiting.closed {
                return Err(Refusal::closing());
            }
            waiting.index = Some((views, reply));
        }
        self.queue.ready.notify_one();
        answer.blocking_recv().unwrap_or_else(|_| Err(Refusal::defect()))
    }

    /// Long work that waits.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.queue.lock().long.len()
    }

    /// Takes no more work, gives up what waits, and waits for what is being done.
    pub fn close(&self) {
        {
            let mut waiting = self.queue.lock();
            *waiting = Waiting { closed: true, ..Waiting::default() };
        }
        self.queue.ready.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            _ = thread.join();
        }
    }

    async fn short<T>(&self, work: impl FnOnce(Reply<T>) -> Short) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.queue.lock();
            if waiting.closed {
                return Err(Refusal::closing());
            }
            if waiting.short.len() >= SHORT {
                return Err(Refusal::busy());
            }
            waiting.short.push_back((Instant::now(), work(reply)));
        }
        self.queue.ready.notify_one();
        answered(answer).await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Err(_) => Err(Refusal::late()),
        Ok(Err(_)) => Err(Refusal::defect()),
        Ok(Ok(answer)) => answer,
    }
}

/// Waits for something to do; `turns` counts those of short work since the last long one. None: closed.
fn next(queue: &Queue, turns: &mut usize) -> Option<Turn> {
    let mut waiting = queue.lock();
    loop {
        if waiting.closed {
            return None;
        }
        waiting.short.retain(|(since, work)| since.elapsed() < PATIENCE && !work.abandoned());
        // Dropped work tells who waits for it.
        waiting.long.retain(|(since, _)| since.elapsed() < PATIENCE);
        let long_first = *turns >= FAIR && !waiting.long.is_empty();
        if !waiting.short.is_empty() && !long_first {
            *turns += 1;
            let (mut all, mut weight) = (vec![], 0);
            while let Some((_, work)) = waiting.short.front() {
                weight += work.weight();
                if weight > TOGETHER && !all.is_empty() {
                    break;
                }
                all.extend(waiting.short.pop_front().map(|(_, work)| work));
            }
            return Some(Turn::Short(all));
        }
        if let Some((_, work)) = waiting.long.pop_front() {
            *turns = 0;
            return Some(Turn::Long(work));
        }
        if let Some((views, reply)) = waiting.index.take() {
            return Some(Turn::Index(views, reply));
        }
        waiting = queue.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Short work of many clients, of one kind together.
fn short(model: &Simla, all: Vec<Short>) {
    let (mut words, mut word_replies) = (vec![], vec![]);
    let (mut views, mut view_replies) = (vec![], vec![]);
    let (mut captions, mut pictures, mut match_replies) = (vec![], vec![], vec![]);
    for work in all {
        match work {
            Short::Words(texts, reply) => {
                word_replies.push((texts.len(), reply));
                words.extend(texts);
            }
            Short::Views(own, reply) => {
                view_replies.push((own.len(), reply));
                views.extend(own);
            }
            Short::Match(ids, patches, reply) => {
                match_replies.push((patches.len(), reply));
                captions.extend(std::iter::repeat_n(ids, patches.len()));
                pictures.extend(patches);
            }
        }
    }
    if !words.is_empty() {
        answer_each(word_replies, caption_features(model, &words));
    }
    if !views.is_empty() {
        let views: Vec<&[u8]> = views.iter().map(Vec::as_slice).collect();
        answer_each(view_replies, see_views(model, &views));
    }
    if !captions.is_empty() {
        let captions: Vec<&[i64]> = captions.iter().map(Vec::as_slice).collect();
        let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        answer_each(match_replies, match_probabilities(model, &pictures, &captions));
    }
}

/// Gives each its part, which is so long, of what was found for all.
fn answer_each<T, E: std::fmt::Display>(replies: Vec<(usize, Reply<Vec<T>>)>, found: Result<Vec<T>, E>) {
    let (counts, replies): (Vec<usize>, Vec<_>) = replies.into_iter().unzip();
    let parts = found.map(|found| {
        let mut found = found.into_iter();
        counts.iter().map(|&count| found.by_ref().take(count).collect()).collect()
    });
    answer(replies, parts);
}

fn answer<T, E: std::fmt::Display>(replies: Vec<Reply<T>>, found: Result<Vec<T>, E>) {
    match found {
        Ok(found) => replies.into_iter().zip(found).for_each(|(reply, found)| _ = reply.send(Ok(found))),
        Err(error) => {
            let refusal = Refusal::server(error);
            replies.into_iter().for_each(|reply| _ = reply.send(Err(refusal.clone())));
        }
    }
}
