//! What a run and a query are: whatever asks, a command line, a page or a program.
//!
//! - A run: its [`settings`] and [`inputs`], opened by [`sources`], started by [`init`], trained by [`fit`] with a [`tokenizer`] before it,
//!   looked at by [`watch`] on [`held_out`] pairs, shown by [`progress`] and [`console`], ended by [`stop`]; its folder is [`lock`]ed meanwhile.
//!   It may be of several processes ([`compute`], [`launch`]), of which the first writes and talks.
//! - A run of a [`downstream`] task, whose model is [`asking`]'s then.
//! - A query: of a [`photo`], or of a [`collection`] that is searched; [`queries`] answers it.
//! - A measurement: of [`classes`], of [`products`]; for other programs, a [`run_file`] and features ([`embed`]).

#![warn(missing_docs, unreachable_pub)]
#![deny(clippy::print_stdout, clippy::print_stderr)] // console does it

pub mod asking;
pub mod classes;
pub mod collection;
pub mod compute;
pub mod console;
pub mod downstream;
pub mod embed;
pub mod fit;
pub mod grounding;
pub mod held_out;
pub mod init;
pub mod inputs;
#[cfg(unix)]
pub mod launch;
pub mod lock;
pub mod memory;
pub mod output;
pub mod photo;
pub mod products;
pub mod progress;
pub mod queries;
pub mod run_file;
pub mod settings;
pub mod sources;
pub mod stop;
pub mod tokenizer;
pub mod watch;
