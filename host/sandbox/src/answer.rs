//! The error type of all host functions, for every capability and every version of the contract. Every text that a component gets
//! from the host or from a store passes through this module, which removes secrets.

use transfer::error::Kind;
use wasmtime::component::{Resource, ResourceTableError};

use crate::capability::Capability;
use crate::plane::Plane;
use crate::reporter::LINE_CHARACTERS;
use crate::state::State;
use crate::text::printable;

/// How many characters of a name appear in a message.
const NAME: usize = 64;

/// The result of a host function.
pub(crate) type Answer<T> = Result<T, CallError>;

/// An error that a component may see: its text is printable and contains no secret. Only [`State`] creates such errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostError {
    kind: Kind,
    text: String,
}

impl HostError {
    /// Returns the kind of the error.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the text for the component.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// How a failed call of a host function ends.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The component gets an error.
    Answer(HostError),
    /// The component ends with a trap.
    Trap(wasmtime::Error),
}

impl CallError {
    /// Returns the error that the component gets.
    ///
    /// # Errors
    /// Returns the trap if the component ends instead.
    pub(crate) fn answer(self) -> wasmtime::Result<HostError> {
        match self {
            Self::Answer(error) => Ok(error),
            Self::Trap(trap) => Err(trap),
        }
    }
}

impl From<HostError> for CallError {
    fn from(error: HostError) -> Self {
        Self::Answer(error)
    }
}

impl From<wasmtime::Error> for CallError {
    fn from(trap: wasmtime::Error) -> Self {
        Self::Trap(trap)
    }
}

/// The component ends with a trap if it uses a handle that it does not have, or opens more handles than it may.
impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl State {
    /// Returns the data plane; `None` in `describe`, and for a component that cannot use it.
    pub(crate) fn plane(&self) -> Option<&Plane> {
        // Every caller reads from the data plane or gives it work, and both count as activity.
        self.reporter.activity().mark();
        self.job.plane.as_ref()
    }

    /// Denies access to the store, key or program `name`, which is not granted. The message has the configuration line that would
    /// grant it, if such a line exists.
    pub(crate) fn not_granted(&self, capability: &dyn Capability, name: &str) -> HostError {
        let remedy = self.plane().and_then(|plane| capability.remedy(&plane.remedies, name));
        self.denied(capability, format!("the {} {}", capability.kind(), printable(name, NAME)), remedy)
    }

    /// Denies `what`. `remedy` is the configuration line that would allow it, if such a line exists.
    pub(crate) fn denied(
        &self,
        capability: &dyn Capability,
        what: String,
        remedy: Option<String>,
    ) -> HostError {
        let message = match &remedy {
            Some(line) => format!("no grant covers {what}; to allow it: {line}"),
            None => format!("no grant covers {what}, and no grant can allow it"),
        };
        self.denied_with(capability, what, remedy, &message)
    }

    /// Denies `what` with the given message, and reports the denial to the operator.
    pub(crate) fn denied_with(
        &self,
        capability: &dyn Capability,
        what: String,
        remedy: Option<String>,
        message: &str,
    ) -> HostError {
        self.reporter.denied(capability.denies(what, remedy));
        self.fails(Kind::Denied, message)
    }

    /// Converts an error of the data plane.
    pub(crate) fn error(&self, error: transfer::error::Error) -> HostError {
        self.fails(error.kind, &error.message)
    }

    /// Makes an error of this kind.
    pub(crate) fn fails(&self, kind: Kind, message: &str) -> HostError {
        HostError { kind, text: self.for_component(message) }
    }

    /// Prepares a text for the component. Removes secrets before it shortens the text, because the cut could leave part of a secret.
    fn for_component(&self, text: &str) -> String {
        match self.plane() {
            Some(plane) => printable(&plane.without_secrets(text), LINE_CHARACTERS),
            None => printable(text, LINE_CHARACTERS),
        }
    }

    /// Drops the resource of a handle.
    pub(crate) fn drop_handle<T: 'static>(&mut self, handle: Resource<T>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::Grants;
    use crate::capability::Remedies;
    use crate::files::Files;
    use crate::reporter::Reporter;

    /// Returns the state of a `describe` call.
    fn state() -> State {
        let (events, _) = unbounded_channel();
        let files = Files::none(Remedies::new("", &Grants::default())).unwrap();
        State::fixed(files, 0, Reporter::new("describe", events))
    }

    fn is_denied<T>(answer: Answer<T>) -> bool {
        matches!(answer, Err(CallError::Answer(error)) if error.kind() == Kind::Denied)
    }

    #[tokio::test]
    async fn describe_is_denied_every_store_key_transfer_and_program() {
        let mut state = state();
        assert!(is_denied(state.granted_key("k")));
        for name in ["repo", "/", "/proc/self"] {
            assert!(is_denied(state.open_store(name.to_owned()).await), "{name}");
        }
        let job = state.new_job(true).unwrap();
        assert!(is_denied(state.fetch_files(&job, vec![]).await));
        assert!(state.wait_for_job(&job, u32::MAX).await.unwrap().idle);
        assert!(is_denied(state.run_program("sh".to_owned(), Vec::new()).await));
        let denied: Vec<_> =
            state.reporter.denials().into_iter().map(|denial| denial.capability.word()).collect();
        assert_eq!(denied, ["key", "store", "store", "store", "write", "program"]);
    }

    #[test]
    fn an_error_of_the_data_plane_keeps_its_kind_and_is_fit_for_a_log() {
        let state = state();
        let of = |kind| state.error(transfer::error::Error::new(kind, "\u{1b}[2J"));
        let corrupt = of(Kind::Corrupt);
        assert_eq!((corrupt.kind(), corrupt.into_text()), (Kind::Corrupt, "\\u{1b}[2J".to_owned()));
        assert_eq!(of(Kind::NotFound).kind(), Kind::NotFound);
        assert_eq!(of(Kind::Cancelled).kind(), Kind::Cancelled);
    }
}
