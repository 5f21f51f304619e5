//! Small programs that use the library: see `embed_a_folder.rs`, `fine_tune.rs` and `own_task.rs`.
