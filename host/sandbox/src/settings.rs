//! What the operator decides: the settings of the sandbox itself, of one method, and what that method is granted.

use std::path::PathBuf;

use replica::Bytes;
use serde::Serialize;

/// Settings of the sandbox that hold for every method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSettings {
    /// The least Landlock ABI that the kernel must offer (`require_landlock = N`): 1 to 7. None: what the kernel
    /// offers is used, and the log says which it was. Debian 12 has 2, Linux 6.7 has 4, Linux 6.12 has 6.
    pub require_landlock: Option<u32>,
}

/// One method that is a component, as the operator configured it.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodSettings {
    /// Its name in the operator's list, which is also the name of its section: `[method.NAME]`.
    pub name: String,
    /// The component's file, absolute.
    pub component: PathBuf,
    /// `[method.NAME.options]`, in the operator's order. Checked against what the component describes.
    pub options: Vec<(String, OptionValue)>,
    /// `[method.NAME.grants]`.
    pub grants: Grants,
}

/// A value of an option, as the operator wrote it. Serialized as the bare value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// A string of the configuration file.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of strings.
    Texts(Vec<String>),
    /// Text from a command line, which has no types: read by the kind that the component describes.
    Untyped(String),
}

/// What a method may use besides the data directory and the directories that the operator maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// How much memory the component may hold at once, over all its memories and tables.
    pub memory: Bytes,
    /// Directories that it may read, absolute.
    pub read: Vec<PathBuf>,
    /// How much it may write; none: as much as the file systems take.
    pub disk: Option<DiskBudget>,
}

impl Default for Grants {
    fn default() -> Self {
        Self { memory: Bytes(256 << 20), read: Vec::new(), disk: None }
    }
}

/// How much one run of a method may write. What it removes is not given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskBudget {
    /// By how many bytes its files may grow in all; none: no limit.
    pub bytes: Option<Bytes>,
    /// How many files, directories and links it may make; none: no limit.
    pub files: Option<u64>,
    /// How much must stay free on the file system that it writes to; none: nothing.
    pub keep_free: Option<Bytes>,
}
