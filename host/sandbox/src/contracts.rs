//! The versions of the contract that this host speaks: one table, by which components are linked, recognised and refused.

use async_trait::async_trait;
use replica::{Plan, Request};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::ended::Ended;
use crate::inspection::Description;
use crate::options::Setting;
use crate::state::State;
use crate::v0_1;

/// The package of the contract, before the name of an interface.
const PACKAGE: &str = "understudy:method/";

/// The interface that every component exports.
const EXPORT: &str = "replica-method";

/// Names that are listed in a message.
const NAMES: usize = 8;

/// Adds an interface to what components may import.
pub(crate) type Link = fn(&mut Linker<State>) -> wasmtime::Result<()>;

/// A version of the contract.
pub(crate) struct Contract {
    /// Its first two numbers: every patch of it is the same contract.
    pub(crate) version: &'static str,
    /// The interfaces that it gives components: the name alone of each, and what links it.
    pub(crate) interfaces: &'static [(&'static str, Link)],
    /// Finds the exports of a linked component.
    pub(crate) exports: fn(InstancePre<State>) -> wasmtime::Result<Box<dyn Exports>>,
}

/// Every version that this host speaks.
pub(crate) const CONTRACTS: &[Contract] = &[
    v0_1::CONTRACT,
    #[cfg(test)]
    crate::v0_2::CONTRACT,
];

/// What a linked component exports, in the host's types. Each call has an instance of its own.
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
    ) -> wasmtime::Result<Result<Plan, Ended>>;

    /// Calls `create-replica`.
    async fn create_replica(
        &self,
        store: &mut Store<State>,
        request: &Request,
        settings: &[Setting],
        plan: &Plan,
    ) -> wasmtime::Result<Result<(), Ended>>;
}

impl Contract {
    /// Finds the contract of a version such as `0.1.9`.
    pub(crate) fn of(version: &str) -> Option<&'static Self> {
        let is_patch = |contract: &&Self| {
            version.strip_prefix(contract.version).is_some_and(|patch| patch.starts_with('.'))
        };
        CONTRACTS.iter().find(is_patch)
    }

    /// Finds the contract by which a component exports its method, and the version that it names.
    ///
    /// # Errors
    /// What it exports instead.
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

/// Adds every version of the contract to what components may import.
///
/// # Errors
/// Where two versions give one interface.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let interfaces = CONTRACTS.iter().flat_map(|contract| contract.interfaces);
    interfaces.map(|(_, link)| link).try_for_each(|link| link(linker))
}

/// The name alone of an interface of the contract that this host gives; `None` for any other import.
pub(crate) fn interface(import: &str) -> Option<&str> {
    let (name, version) = split(import)?;
    Contract::of(version)?.interfaces.iter().any(|(known, _)| *known == name).then_some(name)
}

/// Says which imports are of the contract's package and in no version of it that this host speaks; `None` where all are.
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

/// The name and the version of an interface of the contract's package.
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
    fn a_patch_is_the_same_contract_and_another_version_is_none() {
        for version in ["0.1.0", "0.1.9", "0.1.10"] {
            assert_eq!(Contract::of(version).map(|contract| contract.version), Some("0.1"), "{version}");
        }
        for version in ["0.10.0", "0.1", "1.0.1", "0.3.0", ""] {
            assert!(Contract::of(version).is_none(), "{version}");
        }
    }

    #[test]
    fn an_import_of_the_contract_is_known_by_the_version_that_has_it() {
        assert_eq!(interface("understudy:method/keys@0.1.7"), Some("keys"));
        for import in ["understudy:method/keys@0.3.0", "understudy:method/keys", "acme:method/keys@0.1.0"] {
            assert_eq!(interface(import), None, "{import}");
        }
        assert_eq!(interface("understudy:method/teleport@0.1.0"), None);
        let told = unknown(&names(&[
            "wasi:io/poll@0.2.12",
            "understudy:method/keys@0.1.0",
            "understudy:method/teleport@0.1.0",
        ]));
        let told = told.unwrap();
        assert!(
            told.starts_with("understudy:method/teleport@0.1.0 (this program speaks version 0.1"),
            "{told}"
        );
        assert_eq!(unknown(&names(&["understudy:method/keys@0.1.0", "acme:secret/door@1.0.0"])), None);
    }

    #[test]
    fn what_a_component_exports_instead_is_told() {
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
