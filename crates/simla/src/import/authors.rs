//! The authors' own checkpoints.

use std::path::Path;

use simla_weights::{Node, TensorRef};

use super::{
    ImportError, Tensors, bert, is_index, load, open, optimizer, renamed, require, state_dict,
};

const KIND: &str = "a checkpoint of the authors' SIMLA";

/// What a checkpoint of the authors holds.
#[derive(Debug)]
pub struct Authors {
    /// Model, momentum model (`_m`), queues and whatever heads a fine-tuned model has, under our names.
    pub weights: Tensors,
    /// AdamW's state as [`crate::optim::AdamW::load`] takes it; `None` when the file has none.
    pub optimizer: Option<Tensors>,
    /// The last epoch that was finished, counted from 0.
    pub epoch: Option<i64>,
    /// What was left out, for the user to know.
    pub notes: Vec<String>,
}

/// Reads a SIMLA checkpoint of the authors: pre-trained, or fine-tuned without `bert.` in its names. Learning-rate schedule
/// and configuration, objects of classes that we do not know, are ignored.
///
/// # Errors
/// A file that cannot be read or is not SIMLA's. An optimiser whose state cannot be matched with the parameters is left
/// out, with a note that says why.
pub fn authors(path: &Path) -> Result<Authors, ImportError> {
    let archive = open(path)?;
    let model = state_dict(&archive);
    let tensors = renamed(path, model.tensors()?, our_name)?;
    require(path, &tensors, KIND, "visual_encoder.pos_embed")?;
    require(
        path,
        &tensors,
        KIND,
        "text_encoder.bert.embeddings.word_embeddings.weight",
    )?;

    let mut weights = Tensors::new();
    for top in ["text_encoder.", "text_encoder_m."] {
        let part = tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(top)?.to_owned(), *tensor)));
        weights.extend(bert::encoder(path, &part.collect(), top)?);
    }
    for (name, tensor) in &tensors {
        let is_text = name.starts_with("text_encoder.") || name.starts_with("text_encoder_m.");
        let is_weight = name == "queue_ptr" || !is_index(tensor);
        if is_weight && !is_text {
            weights.insert(name.clone(), load(tensor)?);
        }
    }

    let root = archive.root();
    let mut notes = Vec::new();
    let optimizer = match root
        .get("optimizer")
        .map(|state| optimizer::adamw(state, &parameters(model), &weights))
    {
        None => None,
        Some(Ok(state)) => state,
        Some(Err(optimizer::Unmatched::Read(error))) => return Err(error.into()),
        Some(Err(optimizer::Unmatched::Because(why))) => {
            notes.push(format!(
                "{}: the optimiser's state is left out: {why}",
                path.display()
            ));
            None
        }
    };
    let epoch = root.get("epoch").and_then(Node::as_i64);
    Ok(Authors {
        weights,
        optimizer,
        epoch,
        notes,
    })
}

/// `text_encoder.encoder.layer...` of fine-tuned models to `text_encoder.bert.encoder.layer...`, the wrapper of a distributed
/// run removed.
fn our_name(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    for top in ["text_encoder.", "text_encoder_m."] {
        if let Some(rest) = name.strip_prefix(top)
            && bert::is_bare(rest)
        {
            return format!("{top}bert.{rest}");
        }
    }
    name.to_owned()
}

/// The model's floating-point tensors in the order in which its modules register them, under our names.
fn parameters<'a>(model: Node<'a>) -> Vec<(String, TensorRef<'a>)> {
    const BUFFERS: [&str; 2] = ["image_queue", "text_queue"];
    let entries = model.entries().into_iter();
    entries
        .filter_map(|(name, value)| Some((our_name(name.as_str()?), value.as_tensor()?)))
        .filter(|(name, tensor)| !is_index(tensor) && !BUFFERS.contains(&name.as_str()))
        .collect()
}
