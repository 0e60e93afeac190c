//! What the operator decides: the settings of the sandbox itself, and of one method.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replica::Redactor;
use replica::process::GuardExecutable;
use serde::{Deserialize, Serialize};

use crate::{Compiler, ComponentSource, Grants, Resolve, SystemResolver};

/// Settings of the sandbox that hold for every method.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// The least Landlock ABI that the kernel must offer (`require_landlock = N`): 1 to 7. None: what the kernel
    /// offers is used, and the log says which it was. Debian 12 has 2, Linux 6.7 has 4, Linux 6.12 has 6.
    pub require_landlock: Option<u32>,
    /// Knows every secret of the run. The sandbox adds those that it is given and those that it derives, and takes them out
    /// of every text that a component is told; who shows the events takes them out of those.
    pub redactor: Redactor,
    /// What turns components into machine code.
    pub compiler: Compiler,
    /// The directory in which compiled components are kept with what they said of themselves; made where it is missing. None:
    /// nothing is kept. It must be this user's alone, or it is not used.
    pub cache: Option<PathBuf>,
    /// What resolves the names of the servers that methods connect to.
    pub resolver: Arc<dyn Resolve>,
    /// The executable that becomes the guard of a native program.
    pub guard: GuardExecutable,
}

impl SandboxSettings {
    /// Nothing but a compiler.
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

/// One method that is a component, as the operator configured it.
#[derive(Clone, Debug)]
pub struct MethodSettings {
    /// Its name in the operator's list, which is also the name of its section: `[method.NAME]`.
    pub name: String,
    /// Where its component is.
    pub component: ComponentSource,
    /// `[method.NAME.options]`, in the operator's order. Checked against what the component describes.
    pub options: Vec<(String, OptionValue)>,
    /// Where the options stand, for what is said of them.
    pub written: Written,
    /// How much processor time one attempt may use on the component's own thread (`cpu`); `None` if there is no limit.
    pub cpu: Option<Duration>,
    /// `[method.NAME.grants]`.
    pub grants: Grants,
}

/// Where a method's section and its options stand: `FILE:LINE:COLUMN`, or a flag.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The section; `None` if the method has none.
    pub section: Option<String>,
    /// Each option, by its name.
    pub options: BTreeMap<String, String>,
}

impl Written {
    /// Puts the place of an option before what is wrong with it, or that of the section where the option is missing.
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
    /// Text from a command line, which has no types: read by the kind that the component describes.
    Untyped(String),
}
