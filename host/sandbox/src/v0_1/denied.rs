//! What no grant covers, and errors of the data plane, as a component hears of them. Every text that a component gets
//! from the data plane goes through here, and leaves its secrets here.

use replica::Denial;
use transfer::error::Kind;

use super::interfaces::types::Error;
use crate::plane::Plane;
use crate::reporter::LINE_CHARACTERS;
use crate::state::State;
use crate::text::printable;

/// Characters of a name in a message.
const NAME: usize = 64;

/// A thing by the name that a component gave it.
pub(super) fn named(what: &str, name: &str) -> String {
    format!("the {what} {}", printable(name, NAME))
}

impl State {
    /// The data plane; none in `describe`.
    pub(super) fn plane(&self) -> Option<&Plane> {
        // Whoever asks for the plane reads, looks or hands it work.
        self.reporter.activity().mark();
        self.job.plane.as_ref()
    }

    /// Answers that `what` is denied, and tells it, with the line that would allow it where there is one.
    pub(super) fn denied(&self, capability: &'static str, what: String, remedy: Option<String>) -> Error {
        let message = match &remedy {
            Some(line) => format!("no grant covers {what}; to allow it: {line}"),
            None => format!("no grant covers {what}, and none would"),
        };
        self.reporter.denied(Denial { capability, what, remedy: remedy.unwrap_or_default() });
        Error::Denied(self.told(&message))
    }

    /// An error of the data plane.
    pub(super) fn error(&self, error: transfer::error::Error) -> Error {
        let text = self.told(&error.message);
        match error.kind {
            Kind::Denied => Error::Denied(text),
            Kind::NotFound => Error::NotFound(text),
            Kind::Invalid => Error::Invalid(text),
            Kind::Transient => Error::Transient(text),
            Kind::Corrupt => Error::Corrupt(text),
            Kind::Limit => Error::Limit(text),
            Kind::Failed => Error::Failed(text),
            Kind::Cancelled => Error::Cancelled,
        }
    }

    /// A text for the component: without secrets first, for what is cut off afterwards could be the end of one.
    fn told(&self, text: &str) -> String {
        match self.plane() {
            Some(plane) => printable(&plane.without_secrets(text), LINE_CHARACTERS),
            None => printable(text, LINE_CHARACTERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::interfaces::{keys, program, store, transfer};
    use super::*;
    use crate::Grants;
    use crate::files::Files;
    use crate::grants::Remedies;
    use crate::reporter::Reporter;

    /// What `describe` has.
    fn state() -> State {
        let (events, _) = unbounded_channel();
        let files = Files::none(Remedies::new("", &Grants::default())).unwrap();
        State::fixed(files, 0, Reporter::new("describe", events))
    }

    #[tokio::test]
    async fn describe_is_denied_every_store_key_transfer_and_program() {
        let mut state = state();
        assert!(matches!(keys::HostKey::named(&mut state, "k".into()).unwrap(), Err(Error::Denied(_))));
        for name in ["repo", "/", "/proc/self"] {
            let opened = store::HostBucket::open(&mut state, name.into()).await.unwrap();
            assert!(matches!(opened, Err(Error::Denied(_))), "{name}");
        }
        let job = transfer::HostJob::new(&mut state, true).await.unwrap();
        let again = || wasmtime::component::Resource::new_own(job.rep());
        assert!(matches!(
            transfer::HostJob::fetch(&mut state, again(), vec![]).await.unwrap(),
            Err(Error::Denied(_))
        ));
        assert!(transfer::HostJob::wait(&mut state, again(), u32::MAX).await.unwrap().idle);
        let run = program::Host::run(&mut state, "sh".into(), vec![]).unwrap();
        assert!(matches!(run, Err(Error::Denied(_))));
        let denied: Vec<_> = state.reporter.denials().into_iter().map(|denial| denial.capability).collect();
        assert_eq!(denied, ["key", "store", "store", "store", "write", "program"]);
    }

    #[test]
    fn an_error_of_the_data_plane_keeps_its_kind_and_is_fit_for_a_log() {
        let state = state();
        let of = |kind| state.error(::transfer::error::Error::new(kind, "\u{1b}[2J"));
        assert!(matches!(of(Kind::Corrupt), Error::Corrupt(text) if text == "\\u{1b}[2J"));
        assert!(matches!(of(Kind::NotFound), Error::NotFound(_)));
        assert!(matches!(of(Kind::Cancelled), Error::Cancelled));
    }
}
