//! The tasks against the reference: every activation, loss, gradient and prediction of two optimiser steps of tiny models, the weights
//! after them, and which pre-trained parameter each starts from. `SIMLA_TASKS_DIR` names a folder of other cases.

mod classify;
mod common;
mod golden;
mod grounding;
mod nlvr;
mod positions;
mod retrieval;
mod vqa;
