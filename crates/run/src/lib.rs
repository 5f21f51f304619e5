//! What a run and a query are: whatever asks, a command line, a page or a program.
//!
//! - A run: its [`settings`] and [`inputs`], opened by [`sources`], started by [`init`], trained by [`fit`] with a [`tokenizer`] before it,
//!   looked at by [`watch`] on [`held_out`] pairs, shown by [`progress`], ended by [`stop`].
//! - A run of a [`downstream`] task, whose model is [`asking`]'s then.
//! - A query: of a [`photo`], or of a [`collection`] that is searched; [`queries`] answers it.

pub mod asking;
pub mod collection;
pub mod downstream;
pub mod fit;
pub mod held_out;
pub mod init;
pub mod inputs;
pub mod photo;
pub mod progress;
pub mod queries;
pub mod settings;
pub mod sources;
pub mod stop;
pub mod tokenizer;
pub mod watch;
