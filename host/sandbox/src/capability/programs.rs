//! Running native programs: `programs.NAME`. The interface is linked, but this version cannot grant it: every call is denied, and the
//! configuration refuses the key.

use replica::CapabilityKind;
use std::convert::Infallible;

use super::Capability;
use crate::answer::Answer;
use crate::inspection::NeedKind;
use crate::state::State;

/// The capability to run native programs.
pub(crate) struct Programs;

impl Capability for Programs {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Program
    }

    fn key(&self) -> &'static str {
        "programs"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Program)
    }
}

impl State {
    /// Denies every call.
    ///
    /// # Errors
    /// Always `Denied`.
    pub(crate) fn run_program(&mut self, name: &str) -> Answer<Infallible> {
        let call = self.reporter.call(CapabilityKind::Program, "program.run", || name.to_owned());
        call.end(Err(self.not_granted(&Programs, name).into()))
    }
}
