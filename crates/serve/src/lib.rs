//! A page, and an interface over HTTP, to search pictures with a trained model, to ask it and to look at what it sees; and to watch
//! runs.
//!
//! - [`server`]: what is served, its routes, its life. [`guard`](crate::guard): who may ask.
//! - The model is alone in a thread ([`engine`](crate::engine)); the pictures of a folder with their index are a
//!   [`library`](crate::library), brought up to date in the background.
//! - [`api`](crate::api) and [`openai`](crate::openai) answer in JSON, [`runs`](crate::runs) shows runs, `page/` is what a browser gets.
//!
//! Queries are those of [`simla_run::queries`]: nothing is computed here that the command line does not compute.

#![warn(missing_docs, unreachable_pub)]

mod api;
mod engine;
pub mod guard;
mod library;
mod models;
mod openai;
mod page;
mod pictures;
mod refusal;
mod runs;
pub mod server;

#[cfg(test)]
mod tests;
