//! A component's description of itself, after its checks.

use serde::{Deserialize, Serialize};

use crate::OptionValue;

/// What can be known about a component without granting it anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The name that the component gives itself.
    pub name: String,
    /// The digest of its file: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The size of its file in bytes.
    pub size: u64,
    /// The version of the contract that it was built for, such as `0.1.0`.
    pub contract: String,
    /// What the component says about itself.
    pub description: Description,
    /// Every interface that the component imports. The component cannot call any other. It may need fewer: see `description.needs`.
    pub imports: Vec<String>,
}

/// A component's answer to `describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The name that the component gives itself, lower case with hyphens.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One sentence on what it does.
    pub summary: String,
    /// The options that it reads, in the order in which it lists them.
    pub options: Vec<OptionSpec>,
    /// What it needs the operator to grant.
    pub needs: Vec<Need>,
}

/// An option that a component reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionSpec {
    /// Its name, lower case with hyphens or underscores.
    pub name: String,
    /// What values it takes.
    pub kind: Kind,
    /// Whether the operator must give it.
    pub required: bool,
    /// The value if the operator gives none.
    pub default: Option<OptionValue>,
    /// What the option is for.
    pub doc: String,
}

/// What values an option takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A string.
    Text,
    /// One of these strings.
    Choice(Vec<String>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list of strings.
    Texts,
    /// A size such as `"256MiB"`, which the component gets in bytes.
    Size,
    /// A duration such as `"90s"`, which the component gets in milliseconds.
    Duration,
    /// The name of a key that the operator granted.
    Secret,
}

/// Something that a component needs the operator to grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// What kind of thing it needs.
    pub kind: NeedKind,
    /// The component's name for it.
    pub name: String,
    /// Whether the component cannot work without it.
    pub required: bool,
    /// Why the component needs it.
    pub reason: String,
}

/// What a component can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeedKind {
    /// A store that holds backups.
    Store,
    /// A key or password.
    Key,
    /// A directory to read.
    Directory,
    /// A host to connect to.
    Network,
    /// A program to run.
    Program,
    /// An environment variable.
    Environment,
}

impl NeedKind {
    /// Every kind.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] =
        [Self::Store, Self::Key, Self::Directory, Self::Network, Self::Program, Self::Environment];

    /// Returns the name of the kind, as `inspect` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Key => "key",
            Self::Directory => "directory",
            Self::Network => "network",
            Self::Program => "program",
            Self::Environment => "environment",
        }
    }
}
