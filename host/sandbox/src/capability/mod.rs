//! Capabilities: what a component can be allowed to do. Each capability has a module, which contains the operator's grant, the check of
//! the component's needs, the configuration line that would grant the capability, the directories that it opens, the WASI interfaces that
//! it links, and the host functions with their denials. A new capability needs a module and an entry in [`CAPABILITIES`].
//!
//! Everything that a capability does not allow is denied: the default methods of [`Capability`] grant nothing.

mod check;
pub(crate) mod datadir;
mod environment;
mod keys;
pub(crate) mod network;
pub(crate) mod programs;
pub(crate) mod read;
mod remedies;
pub(crate) mod stores;

use std::path::PathBuf;

use foundation::secret::Secret;
use replica::{CapabilityKind, Denial, Directories, Redactor, Refusal};
use wasmtime::component::Linker;
use wasmtime_wasi::WasiCtxBuilder;

use crate::Grants;
use crate::files::{Place, Step};
use crate::inspection::{Need, NeedKind, OptionSpec};
use crate::state::State;

pub(crate) use check::{Check, check_needs};
pub(crate) use datadir::Datadir;
pub use datadir::DiskBudget;
pub(crate) use environment::Environment;
pub use environment::{NotAVariable, Variables};
pub use keys::KeyGrant;
pub(crate) use keys::Keys;
pub(crate) use network::{Connections, Http, Network, NetworkUse, Sockets, Tls, uses_http};
pub use network::{NotAServer, Resolve, Server, ServerGrant, SystemResolver};
pub use programs::{ArgumentPattern, EnvironmentValue, NotAPattern, PATRONI, ProgramGrant};
pub(crate) use programs::{ProgramCalls, ProgramRunner, Programs, readable_by_programs};
pub(crate) use read::Read;
pub(crate) use remedies::Remedies;
pub(crate) use stores::Stores;

/// Every capability.
pub(crate) const CAPABILITIES: [&dyn Capability; 7] =
    [&Datadir, &Read, &Stores, &Keys, &Programs, &Network, &Environment];

/// Something that a component can be allowed to do.
pub(crate) trait Capability: Sync {
    /// Returns the kind, which names the capability in denials.
    fn kind(&self) -> CapabilityKind;

    /// Returns the key in `[method.NAME.grants]`.
    fn key(&self) -> &'static str;

    /// Returns the kind of need that the capability meets; `None` if every method has the capability.
    fn meets(&self) -> Option<NeedKind>;

    /// Checks that the grants meet a need of this kind, and reports to `check` if they do not.
    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        check.cannot_be_granted(need);
    }

    /// Checks an option whose value may name a grant of this capability. `needs` are all needs of the component.
    fn check_option(&self, _option: &OptionSpec, _needs: &[Need], _check: &mut Check<'_>) {}

    /// Checks the grants themselves, without the component. `redactor` knows every secret of the run.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `grant`.
    fn check_grant(
        &self,
        _grants: &Grants,
        _remedies: &Remedies,
        _redactor: &Redactor,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// Returns the configuration line that would grant `name`; `None` if no line would.
    fn remedy(&self, _remedies: &Remedies, _name: &str) -> Option<String> {
        None
    }

    /// Returns the denial of `what`, with the line that would allow it, if there is one.
    fn denies(&self, what: String, remedy: Option<String>) -> Denial {
        Denial { capability: self.kind(), what, remedy }
    }

    /// Lists the directories that a run gets. The host opens each directory for the component, and allows access to it in the thread's
    /// Landlock domain.
    fn places(&self, _step: Step, _directories: &Directories, _grants: &Grants) -> Vec<Place> {
        Vec::new()
    }

    /// Lists the directories of this machine that the capability lets the method read, each with the key that grants it.
    fn reads(&self, _grants: &Grants) -> Vec<(PathBuf, String)> {
        Vec::new()
    }

    /// Lists the directories of this machine that the method's programs may write in addition to the data directory and the mapped places,
    /// each with the key that grants it.
    fn writes(&self, _grants: &Grants) -> Vec<(PathBuf, String)> {
        Vec::new()
    }

    /// Lists the files and directories that determine which native code is executed for the method, each with its description in messages.
    fn trusts(&self, _grants: &Grants) -> Vec<(PathBuf, String)> {
        Vec::new()
    }

    /// Lists the secrets in the grants.
    fn secrets<'g>(&self, _grants: &'g Grants) -> Vec<&'g Secret> {
        Vec::new()
    }

    /// Lists the grants as the report shows them: each name below `[method.NAME.grants]` with a text without secrets and credentials.
    fn report_entries(&self, _grants: &Grants) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Lists the interfaces of the contract, without version, whose functions use the data plane. A run whose component imports none of
    /// them has no data plane.
    fn data_plane_interfaces(&self) -> &'static [&'static str] {
        &[]
    }

    /// Adds what the grants allow to a run's WASI context. Not called for `describe`.
    fn set_up(&self, _grants: &Grants, _wasi: &mut WasiCtxBuilder) {}

    /// Links the WASI interfaces that belong to the capability.
    ///
    /// # Errors
    /// Fails if the linker has one of them already.
    fn link(&self, _linker: &mut Linker<State>) -> wasmtime::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::files::Access;

    #[test]
    fn each_kind_of_need_has_one_capability() {
        for kind in NeedKind::ALL {
            let of = CAPABILITIES.iter().filter(|capability| capability.meets() == Some(kind)).count();
            assert_eq!(of, 1, "{}", kind.word());
        }
    }

    #[test]
    fn capabilities_differ_in_their_words_and_keys() {
        for word in [|of: &&dyn Capability| of.kind().word(), |of: &&dyn Capability| of.key()] {
            let words: BTreeSet<_> = CAPABILITIES.iter().map(word).collect();
            assert_eq!(words.len(), CAPABILITIES.len());
        }
    }

    #[test]
    fn nothing_but_the_data_directory_is_written_and_that_only_in_create() {
        let grants = Grants { read: vec!["/backups".into()], ..Grants::default() };
        let directories =
            Directories { datadir: "/d".into(), wal: Some("/wal".into()), tablespaces: Default::default() };
        let places = |step| {
            let places = CAPABILITIES.iter().flat_map(|of| of.places(step, &directories, &grants));
            places.map(|place| (place.path, place.access)).collect::<Vec<_>>()
        };
        let all = |access| {
            [("/d", access), ("/wal", access), ("/backups", Access::Read)]
                .map(|(path, access)| (PathBuf::from(path), access))
        };
        assert_eq!(places(Step::Plan), all(Access::Read));
        assert_eq!(places(Step::Create), all(Access::Write));
    }
}
