//! The part of a report that describes the program, the machine, the configuration, the source and the components.

use std::path::Path;

use replica::method::ComponentFacts;
use replica::{ListedMethod, Redactor, Source};
use serde::Serialize;

/// What stands in place of the configuration file if there is none. It is no absolute path, as that of a file is.
const COMMAND_LINE: &str = "command line";

/// The part of a report that is not about the run itself. It contains no secret.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// This program's version.
    pub version: &'static str,
    /// The machine.
    pub host: Machine,
    /// The configuration file; [`COMMAND_LINE`] if the configuration was made from flags.
    pub configuration: String,
    /// The source's `server_version_num`, such as 150018; `None` without a source or if it did not answer.
    pub server_version: Option<u32>,
    /// The methods that are components, in their order.
    pub components: Vec<Component>,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor architecture, such as `x86_64`.
    pub architecture: String,
}

/// A method that is a component, with what is known about the component.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    /// The method's name.
    pub method: String,
    /// Its digest, versions and grants.
    #[serde(flatten)]
    pub facts: ComponentFacts,
}

impl About {
    /// Collects the values that are known before the configuration file is read.
    pub fn of(configuration: &Path) -> Self {
        let path = std::path::absolute(configuration).unwrap_or_else(|_| configuration.to_owned());
        Self::with(path.display().to_string())
    }

    /// Collects the values that are known before flags are read, which are the whole configuration.
    pub fn of_flags() -> Self {
        Self::with(COMMAND_LINE.to_owned())
    }

    fn with(configuration: String) -> Self {
        let system = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            host: Machine {
                name: text(system.nodename()),
                kernel: text(system.release()),
                architecture: text(system.machine()),
            },
            configuration,
            server_version: None,
            components: Vec::new(),
        }
    }

    /// Adds what is known about the source and the components at the end of the run.
    pub fn complete(&mut self, source: Option<&Source>, candidates: &[ListedMethod], redactor: &Redactor) {
        let redact = |text: String| redactor.redact(&text).into_owned();
        self.server_version = source.and_then(|source| Some(source.facts.as_ref().ok()?.server_version));
        let component = |candidate: &ListedMethod| {
            let mut facts = candidate.method.component()?;
            facts.grants =
                facts.grants.into_iter().map(|(name, value)| (redact(name), redact(value))).collect();
            Some(Component { method: candidate.method.name().to_owned(), facts })
        };
        self.components = candidates.iter().filter_map(component).collect();
    }
}
