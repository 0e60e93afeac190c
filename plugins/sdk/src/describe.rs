//! The description of a method.

use crate::Value;

/// The description of a method: its name, its options and its needs. The description is static. It only names stores, keys and
/// directories; the operator configures them.
///
/// ```
/// use understudy::{Description, Need, NeedKind, OptionSpec};
///
/// let description = Description::new("acme", "1.0.0", "restores backups of Acme")
///     .option(OptionSpec::text("backup").doc("the backup to restore; the newest if not set"))
///     .option(OptionSpec::choice("verify", ["all", "changed"]).default("all").doc("which files are compared"))
///     .need(Need::new(NeedKind::Store, "backups", "the backups are read from there"));
/// assert_eq!(description.options.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The method's name, such as `tarball`.
    pub name: String,
    /// The method's version.
    pub version: String,
    /// What the method does, in one line.
    pub summary: String,
    /// The options of the method. Any other option is a configuration error.
    pub options: Vec<OptionSpec>,
    /// What the method needs in addition to the data directory.
    pub needs: Vec<Need>,
}

impl Description {
    /// Makes a description without options and needs.
    pub fn new(name: impl Into<String>, version: impl Into<String>, summary: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), summary: summary.into(), ..Self::default() }
    }

    /// Adds an option.
    #[must_use]
    pub fn option(mut self, option: OptionSpec) -> Self {
        self.options.push(option);
        self
    }

    /// Adds a need.
    #[must_use]
    pub fn need(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }
}

/// The type of an option's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// Exactly one of these texts.
    Choice(Vec<String>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// Several texts.
    Texts,
    /// A size such as `"64MiB"`, which the method gets in bytes.
    Size,
    /// A duration such as `"5 s"`, which the method gets in milliseconds.
    Duration,
    /// A secret. The method gets its name, never its bytes.
    Secret,
}

/// One option of a method.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionSpec {
    /// The key in the method's `options`.
    pub name: String,
    /// The type of the values.
    pub kind: Kind,
    /// Whether the operator must set the option.
    pub required: bool,
    /// The value that the host passes if the operator does not set the option.
    pub default: Option<Value>,
    /// The purpose of the option, in one sentence.
    pub doc: String,
}

impl OptionSpec {
    /// Makes an optional option of `kind`.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind, required: false, default: None, doc: String::new() }
    }

    /// Makes an option that takes a text.
    pub fn text(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Text)
    }

    /// Makes an option that takes several texts.
    pub fn texts(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Texts)
    }

    /// Makes an option that takes yes or no.
    pub fn flag(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Flag)
    }

    /// Makes an option that takes a whole number.
    pub fn integer(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// Makes an option that takes one of `choices`.
    pub fn choice<S: Into<String>>(name: impl Into<String>, choices: impl IntoIterator<Item = S>) -> Self {
        Self::new(name, Kind::Choice(choices.into_iter().map(Into::into).collect()))
    }

    /// Makes the option required.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the default value.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// Sets the documentation: what the option is for.
    #[must_use]
    pub fn doc(mut self, doc: impl Into<String>) -> Self {
        self.doc = doc.into();
        self
    }
}

/// The kind of a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedKind {
    /// An object store (`grants.stores.NAME`).
    Store,
    /// A key (`grants.keys.NAME`).
    Key,
    /// A directory to read (`grants.read`). The name of the need is the name of the option that holds the path.
    Directory,
    /// A host and port (`grants.network`).
    Network,
    /// A program (`grants.programs.NAME`).
    Program,
    /// An environment variable (`grants.environment`).
    Environment,
}

/// Something that the operator must grant to the method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The kind.
    pub kind: NeedKind,
    /// The name that the operator uses in the grant.
    pub name: String,
    /// Whether the method cannot run without this grant.
    pub required: bool,
    /// Why the method needs this grant, for the operator who decides.
    pub reason: String,
}

impl Need {
    /// Makes a need without which the method cannot run.
    pub fn new(kind: NeedKind, name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, name: name.into(), required: true, reason: reason.into() }
    }

    /// Makes the need optional.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}
