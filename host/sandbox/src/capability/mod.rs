//! Capabilities: what a component can be let do. One module each holds the operator's grant, the check of what a component needs, the
//! line that would grant it, the directories that it opens, the interfaces of WASI that it links, what the component calls and
//! what such a call is denied. [`CAPABILITIES`] lists them; a new one is a module and an entry.
//!
//! Whatever a capability does not say is denied: every provided method of [`Capability`] grants nothing.

mod check;
pub(crate) mod datadir;
mod environment;
mod keys;
mod network;
mod programs;
pub(crate) mod read;
mod remedies;
pub(crate) mod stores;

use std::path::PathBuf;

use foundation::secret::Secret;
use replica::{CapabilityKind, Denial, Directories, Refusal};
use wasmtime::component::Linker;

use crate::Grants;
use crate::files::{Place, Step};
use crate::inspection::{Need, NeedKind, OptionSpec};
use crate::state::State;

pub(crate) use check::{Check, check_needs};
pub(crate) use datadir::Datadir;
pub use datadir::DiskBudget;
pub(crate) use environment::Environment;
pub use keys::KeyGrant;
pub(crate) use keys::Keys;
pub(crate) use network::Network;
pub(crate) use programs::Programs;
pub(crate) use read::Read;
pub(crate) use remedies::Remedies;
pub(crate) use stores::Stores;

/// Every capability.
pub(crate) const CAPABILITIES: [&dyn Capability; 7] =
    [&Datadir, &Read, &Stores, &Keys, &Programs, &Network, &Environment];

/// Something that a component can be let do.
pub(crate) trait Capability: Sync {
    /// Which it is.
    fn kind(&self) -> CapabilityKind;

    /// Its key in `[method.NAME.grants]`.
    fn key(&self) -> &'static str;

    /// The kind of need that it meets; `None` for what every method has.
    fn meets(&self) -> Option<NeedKind>;

    /// Whether this version can grant it and hold a component to the grant. What it cannot is denied at every call, and refused in the
    /// configuration.
    fn is_enforced(&self) -> bool {
        false
    }

    /// Checks that a need of its kind is met by what was granted, and tells `check` where it is not.
    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        check.cannot_be_granted(need);
    }

    /// Checks an option by which the operator may name something of this kind; `needs` are all that the component has.
    fn check_option(&self, _option: &OptionSpec, _needs: &[Need], _check: &mut Check<'_>) {}

    /// Checks what was granted by itself.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `grant`.
    fn check_grant(&self, _grants: &Grants, _remedies: &Remedies) -> Result<(), Refusal> {
        Ok(())
    }

    /// Writes the line that would grant what the component calls `name`; `None` where no line would.
    fn remedy(&self, _remedies: &Remedies, _name: &str) -> Option<String> {
        None
    }

    /// Says that `what` is denied, with the line that would allow it where there is one.
    fn denies(&self, what: String, remedy: Option<String>) -> Denial {
        Denial { capability: self.kind(), what, remedy }
    }

    /// Lists the directories that a run gets: each is preopened for it, and open in the Landlock domain of its thread.
    fn places(&self, _step: Step, _directories: &Directories, _grants: &Grants) -> Vec<Place> {
        Vec::new()
    }

    /// Lists the directories of this machine that the method can read by it, each with the key that grants it.
    fn reads(&self, _grants: &Grants) -> Vec<(PathBuf, String)> {
        Vec::new()
    }

    /// Lists the secrets of what was granted.
    fn secrets<'g>(&self, _grants: &'g Grants) -> Vec<&'g Secret> {
        Vec::new()
    }

    /// Lists what was granted for a person, each by its name below `[method.NAME.grants]`: no secret and no credential.
    fn told(&self, _grants: &Grants) -> Vec<(String, String)> {
        Vec::new()
    }

    /// The interfaces of the contract, by name alone, behind which it works on the data plane. A run whose component imports none of
    /// them has no data plane.
    fn on_the_data_plane(&self) -> &'static [&'static str] {
        &[]
    }

    /// Links the interfaces of WASI behind which it is.
    ///
    /// # Errors
    /// Where the linker has one of them already.
    fn link(&self, _linker: &mut Linker<State>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// The keys of `[method.NAME.grants]` that the contract knows and that this version cannot enforce, and so must not pretend to grant.
pub fn not_enforced() -> impl Iterator<Item = &'static str> {
    CAPABILITIES.iter().filter(|capability| !capability.is_enforced()).map(|capability| capability.key())
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

    #[test]
    fn what_this_version_cannot_enforce_opens_nothing() {
        let (grants, remedies) = (Grants::default(), Remedies::new("m", &Grants::default()));
        let directories = Directories { datadir: "/d".into(), wal: None, tablespaces: Default::default() };
        let not_enforced: Vec<_> =
            CAPABILITIES.iter().filter(|capability| !capability.is_enforced()).collect();
        assert_eq!(super::not_enforced().collect::<Vec<_>>(), ["programs", "network", "environment"]);
        for capability in not_enforced {
            assert_eq!(capability.remedy(&remedies, "x"), None);
            assert_eq!(capability.places(Step::Create, &directories, &grants), []);
            assert_eq!(capability.on_the_data_plane(), [""; 0]);
        }
    }
}
