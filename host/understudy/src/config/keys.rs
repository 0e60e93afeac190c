//! The keys of the configuration. The module that reads a section has a table of the section's keys. The tables serve three purposes: the
//! reader rejects keys that are in no table, a problem with a key in the wrong section names the right one, and the tables of the manual
//! are made from them.

use super::{basebackup, component, grants, replica, source};

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The key's name.
    pub(super) name: &'static str,
    /// Other names of the same key.
    pub(super) also: &'static [&'static str],
    /// Whether the value is a table whose keys are names that the operator chooses.
    pub(super) has_names: bool,
    /// The type of the value, in the words of the manual.
    pub(super) form: &'static str,
    /// The default, in the words of the manual.
    pub(super) default: &'static str,
    /// The meaning, in the words of the manual.
    pub(super) doc: &'static str,
}

impl Key {
    pub(super) const fn new(
        name: &'static str,
        form: &'static str,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self { name, also: &[], has_names: false, form, default, doc }
    }

    /// Returns the key with further names.
    pub(super) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// Returns the key as a table whose keys are names that the operator chooses.
    pub(super) const fn with_names(self) -> Self {
        Self { has_names: true, ..self }
    }
}

/// Returns all names of these keys, including the further names.
pub(super) fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().flat_map(|key| [key.name].into_iter().chain(key.also.iter().copied())).collect()
}

/// A section of the configuration.
pub(super) struct SectionKeys {
    /// The section's head. `NAME` is a placeholder for a name that the operator chooses.
    pub(super) head: &'static str,
    /// The section's keys.
    pub(super) keys: fn() -> Vec<Key>,
}

/// Every section.
pub(super) const SECTIONS: [SectionKeys; 13] = [
    SectionKeys { head: "", keys: || super::KEYS.to_vec() },
    SectionKeys { head: "replica", keys: || replica::KEYS.to_vec() },
    SectionKeys { head: "source", keys: || source::KEYS.to_vec() },
    SectionKeys { head: "method.NAME", keys: || component::KEYS.to_vec() },
    SectionKeys { head: "method.basebackup", keys: || basebackup::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants", keys: || grants::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.stores.NAME", keys: grants::stores::keys },
    SectionKeys { head: "method.NAME.grants.stores.NAME.credentials", keys: grants::stores::credentials },
    SectionKeys { head: "method.NAME.grants.keys.NAME", keys: || grants::keys::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.programs.NAME", keys: || grants::programs::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.disk", keys: || grants::disk::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.network.NAME", keys: || grants::network::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.log", keys: || grants::log::KEYS.to_vec() },
];
