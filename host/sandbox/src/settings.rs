//! The operator's settings for the sandbox, and for one method.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replica::Redactor;
use replica::process::GuardExecutable;
use serde::{Deserialize, Serialize};

use crate::{Compiler, ComponentSource, Grants, Resolve, SystemResolver};

/// Settings of the sandbox that apply to every method.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// The lowest Landlock ABI that the kernel must offer (`require_landlock = N`): 1 to 7. If this is `None`, the sandbox uses what
    /// the kernel offers, and logs the ABI. Debian 12 has 2, Linux 6.7 has 4, Linux 6.12 has 6.
    pub require_landlock: Option<u32>,
    /// Removes every secret of the run from texts. The sandbox adds the secrets that it gets or derives, and redacts every text for a
    /// component. The event sinks redact the events.
    pub redactor: Redactor,
    /// How components are compiled to machine code.
    pub compiler: Compiler,
    /// The directory in which compiled components and their descriptions are cached. It is created if it is missing, and ignored if
    /// other users can access it. `None` if nothing is cached.
    pub cache: Option<PathBuf>,
    /// Resolves the names of the servers that methods connect to.
    pub resolver: Arc<dyn Resolve>,
    /// The executable that becomes the guard of a native program.
    pub guard: GuardExecutable,
}

impl SandboxSettings {
    /// Returns settings with this compiler and the defaults for everything else.
    pub fn new(compiler: Compiler) -> Self {
        Self {
            require_landlock: None,
            redactor: Redactor::default(),
            compiler,
            cache: None,
            resolver: Arc::new(SystemResolver),
            guard: GuardExecutable::this(),
        }
    }
}

/// The configuration of one method that is a component.
#[derive(Clone, Debug)]
pub struct MethodSettings {
    /// Its name in the operator's list, which is also the name of its section: `[method.NAME]`.
    pub name: String,
    /// Where its component is.
    pub component: ComponentSource,
    /// `[method.NAME.options]`, in the operator's order. Checked against what the component describes.
    pub options: Vec<(String, OptionValue)>,
    /// Where the options are written, for messages about them.
    pub written: Written,
    /// How much processor time one attempt may use on the component's own thread (`cpu`); `None` if there is no limit.
    pub cpu: Option<Duration>,
    /// `[method.NAME.grants]`.
    pub grants: Grants,
}

/// Where a method's section and its options are written: `FILE:LINE:COLUMN`, or a flag.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The section; `None` if the method has none.
    pub section: Option<String>,
    /// The place of each option, by the option's name.
    pub options: BTreeMap<String, String>,
}

impl Written {
    /// Prefixes a message about an option with the place of the option, or with the place of the section if the option is missing.
    pub(crate) fn at(&self, option: &str, message: String) -> String {
        match self.options.get(option).or(self.section.as_ref()) {
            Some(place) => format!("{place}: {message}"),
            None => message,
        }
    }
}

/// A value of an option, as the operator wrote it. Serialized as the bare value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Text from a command line, which has no types. It is converted to the kind that the component describes.
    Untyped(String),
}
