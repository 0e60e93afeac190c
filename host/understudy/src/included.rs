//! The methods that are included in the program, so that one file is enough to run it.

/// The name and the component of each method.
pub type Methods = &'static [(&'static str, &'static [u8])];

/// The methods that come with the program; empty in a build without optimization or without the feature `methods`: see `build.rs`.
pub const METHODS: Methods = include!(concat!(env!("OUT_DIR"), "/included.rs"));
