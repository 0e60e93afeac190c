//! The versions of the contract that this host supports. The host uses this table to recognize, link and refuse components.

use async_trait::async_trait;
use replica::{Plan, Request};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::guest_failure::GuestFailure;
use crate::inspection::Description;
use crate::options::Setting;
use crate::state::State;
use crate::v0_1;

/// The package of the contract, before the name of an interface.
const PACKAGE: &str = "understudy:method/";

/// The interface that every component exports.
const EXPORT: &str = "replica-method";

/// How many names a message lists.
const NAMES: usize = 8;

/// A function that links an interface.
pub(crate) type Link = fn(&mut Linker<State>) -> wasmtime::Result<()>;

/// A version of the contract.
pub(crate) struct Contract {
    /// The first two numbers of the version. Every patch version is the same contract.
    pub(crate) version: &'static str,
    /// The interfaces that components may import: the name of each without version, and the function that links it.
    pub(crate) interfaces: &'static [(&'static str, Link)],
    /// Finds the exports of a linked component.
    pub(crate) exports: fn(InstancePre<State>) -> wasmtime::Result<Box<dyn Exports>>,
}

/// Every version that this host supports.
pub(crate) const CONTRACTS: &[Contract] = &[
    v0_1::CONTRACT,
    #[cfg(test)]
    crate::v0_2::CONTRACT,
];

/// The exports of a linked component, in the host's types. Each call uses a new instance.
#[async_trait]
pub(crate) trait Exports: Send + Sync {
    /// Calls `describe`.
    async fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Description>;

    /// Calls `plan`.
    async fn plan(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
    ) -> wasmtime::Result<Result<Plan, GuestFailure>>;

    /// Calls `create-replica`.
    async fn create_replica(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
        plan: &Plan,
    ) -> wasmtime::Result<Result<(), GuestFailure>>;
}

impl Contract {
    /// Finds the contract for a version such as `0.1.9`.
    pub(crate) fn of(version: &str) -> Option<&'static Self> {
        let is_patch = |contract: &&Self| {
            version.strip_prefix(contract.version).is_some_and(|patch| patch.starts_with('.'))
        };
        CONTRACTS.iter().find(is_patch)
    }

    /// Finds the contract, and the exact version, of the interface that a component exports.
    ///
    /// # Errors
    /// Says what the component exports instead.
    pub(crate) fn exported(exports: &[String]) -> Result<(&'static Self, String), String> {
        let split = exports.iter().filter_map(|name| split(name));
        let versions: Vec<_> =
            split.filter(|(name, _)| *name == EXPORT).map(|(_, version)| version).collect();
        let found = versions.iter().find_map(|version| Some((Self::of(version)?, (*version).to_owned())));
        found.ok_or_else(|| {
            let instead = match exports {
                [] => "it exports nothing".to_owned(),
                _ if !versions.is_empty() => format!("it exports version {}", versions.join(" and ")),
                exports => format!("it exports {}", listed(exports)),
            };
            let wanted: Vec<_> =
                CONTRACTS.iter().map(|contract| format!("{PACKAGE}{EXPORT}@{}", contract.version)).collect();
            format!("does not export {}: {instead}", wanted.join(" or "))
        })
    }
}

/// Links every version of the contract.
///
/// # Errors
/// Fails if two versions have the same interface.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let interfaces = CONTRACTS.iter().flat_map(|contract| contract.interfaces);
    interfaces.map(|(_, link)| link).try_for_each(|link| link(linker))
}

/// Returns the name, without version, of an interface of the contract that this host has; `None` for any other import.
pub(crate) fn interface(import: &str) -> Option<&str> {
    let (name, version) = split(import)?;
    Contract::of(version)?.interfaces.iter().any(|(known, _)| *known == name).then_some(name)
}

/// Names the imports that belong to the contract's package but are in no version that this host supports; `None` if there are none.
pub(crate) fn unknown(imports: &[String]) -> Option<String> {
    let unknown: Vec<_> = imports
        .iter()
        .filter(|import| import.starts_with(PACKAGE) && interface(import).is_none())
        .cloned()
        .collect();
    let spoken: Vec<_> = CONTRACTS.iter().map(|contract| contract.version).collect();
    (!unknown.is_empty()).then(|| {
        format!("{} (this program speaks version {} of the contract)", listed(&unknown), spoken.join(" and "))
    })
}

/// Splits an interface of the contract's package into name and version; `None` for any other name.
fn split(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn listed(names: &[String]) -> String {
    match names {
        names if names.len() > NAMES => {
            format!("{} and {} more", names[..NAMES].join(", "), names.len() - NAMES)
        }
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_patch_version_is_the_same_contract_and_another_version_is_unknown() {
        for version in ["0.1.0", "0.1.9", "0.1.10"] {
            assert_eq!(Contract::of(version).map(|contract| contract.version), Some("0.1"), "{version}");
        }
        for version in ["0.10.0", "0.1", "1.0.1", "0.3.0", ""] {
            assert!(Contract::of(version).is_none(), "{version}");
        }
    }

    #[test]
    fn an_import_is_known_if_a_supported_version_of_the_contract_has_it() {
        assert_eq!(interface("understudy:method/keys@0.1.7"), Some("keys"));
        for import in ["understudy:method/keys@0.3.0", "understudy:method/keys", "acme:method/keys@0.1.0"] {
            assert_eq!(interface(import), None, "{import}");
        }
        assert_eq!(interface("understudy:method/teleport@0.1.0"), None);
        let reported = unknown(&names(&[
            "wasi:io/poll@0.2.12",
            "understudy:method/keys@0.1.0",
            "understudy:method/teleport@0.1.0",
        ]));
        let reported = reported.unwrap();
        assert!(
            reported.starts_with("understudy:method/teleport@0.1.0 (this program speaks version 0.1"),
            "{reported}"
        );
        assert_eq!(unknown(&names(&["understudy:method/keys@0.1.0", "acme:secret/door@1.0.0"])), None);
    }

    #[test]
    fn the_error_says_what_a_component_exports_instead() {
        for (exports, says) in [
            (&["understudy:method/replica-method@0.3.0"][..], "it exports version 0.3.0"),
            (&[], "it exports nothing"),
            (&["acme:method/replica-method@0.1.0"], "it exports acme:method/replica-method@0.1.0"),
        ] {
            let why = Contract::exported(&names(exports)).err().unwrap();
            assert!(why.contains("replica-method@0.1") && why.contains(says), "{why}");
        }
        let (contract, version) =
            Contract::exported(&names(&["understudy:method/replica-method@0.1.4"])).ok().unwrap();
        assert_eq!((contract.version, version.as_str()), ("0.1", "0.1.4"));
    }
}
