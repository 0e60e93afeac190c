//! The methods that are included in the program, so that one file is enough to run it.

/// Names and components.
pub type Methods = &'static [(&'static str, &'static [u8])];

/// The methods that come with the program; none in a build without optimization and in one without the feature `methods`: see
/// `build.rs`.
pub const METHODS: Methods = include!(concat!(env!("OUT_DIR"), "/included.rs"));
