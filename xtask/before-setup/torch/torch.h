// The compiler comes here only where libtorch's own header of this name is missing (.cargo/config.toml).
#error "libtorch is not set up in this checkout: run `cargo xtask setup` first"
