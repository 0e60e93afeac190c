//! What a method says of itself.

use crate::Value;

/// What a method is, which options it takes and what it needs. Static: it names things, the operator says which they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The method's name, such as `tarball`.
    pub name: String,
    /// The method's version.
    pub version: String,
    /// What it does, in one line.
    pub summary: String,
    /// Its options. Any other option is a configuration error.
    pub options: Vec<OptionSpec>,
    /// What it needs besides the data directory.
    pub needs: Vec<Need>,
}

impl Description {
    /// A description without options or needs.
    pub fn new(name: impl Into<String>, version: impl Into<String>, summary: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), summary: summary.into(), ..Self::default() }
    }

    /// The same with one more option.
    #[must_use]
    pub fn option(mut self, option: OptionSpec) -> Self {
        self.options.push(option);
        self
    }

    /// The same with one more need.
    #[must_use]
    pub fn need(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }
}

/// What an option takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// Several texts.
    Texts,
    /// A size such as `"64MiB"`; arrives as bytes.
    Size,
    /// A duration such as `"5 s"`; arrives as milliseconds.
    Duration,
    /// A secret; arrives as its name, never its bytes.
    Secret,
}

/// One option of a method.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionSpec {
    /// The key in the method's `options`.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// Whether the method cannot run without it.
    pub required: bool,
    /// What the host passes where the operator sets nothing.
    pub default: Option<Value>,
    /// What it is for, in a sentence.
    pub doc: String,
}

impl OptionSpec {
    /// An option of `kind` that may be left out.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind, required: false, default: None, doc: String::new() }
    }

    /// An option that takes a text.
    pub fn text(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Text)
    }

    /// An option that takes several texts.
    pub fn texts(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Texts)
    }

    /// An option that takes yes or no.
    pub fn flag(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Flag)
    }

    /// An option that takes a whole number.
    pub fn integer(name: impl Into<String>) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// An option that takes one of `choices`.
    pub fn choice<S: Into<String>>(name: impl Into<String>, choices: impl IntoIterator<Item = S>) -> Self {
        Self::new(name, Kind::Choice(choices.into_iter().map(Into::into).collect()))
    }

    /// The same, but the operator has to set it.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The same with the value that stands where the operator sets none.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// The same with what it is for.
    #[must_use]
    pub fn doc(mut self, doc: impl Into<String>) -> Self {
        self.doc = doc.into();
        self
    }
}

/// What a need is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedKind {
    /// An object store (`grants.stores.NAME`).
    Store,
    /// A key (`grants.keys.NAME`).
    Key,
    /// A directory to read (`grants.read`); its name is that of the option that holds the path.
    Directory,
    /// A host and port (`grants.network`).
    Network,
    /// A program (`grants.programs.NAME`).
    Program,
    /// An environment variable (`grants.environment`).
    Environment,
}

/// One thing that the method asks the operator to grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is.
    pub kind: NeedKind,
    /// The name that the operator binds.
    pub name: String,
    /// Whether the method cannot run without it.
    pub required: bool,
    /// What it is for, for the operator who decides.
    pub reason: String,
}

impl Need {
    /// A need without which the method cannot run.
    pub fn new(kind: NeedKind, name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, name: name.into(), required: true, reason: reason.into() }
    }

    /// The same, but the method can do without.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}
