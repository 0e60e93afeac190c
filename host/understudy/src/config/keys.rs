//! The keys of the configuration. The module that reads a section has a table of its keys: the reader knows these and no others, a
//! key in the wrong section is told where it belongs by them, and the tables of the manual are made from them.

use super::{basebackup, component, grants, replica, source};

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// Other names of the same.
    pub(super) also: &'static [&'static str],
    /// Whether it is a table whose keys are names of the operator's.
    pub(super) has_names: bool,
    /// What its value is, in the words of the manual.
    pub(super) form: &'static str,
    /// What holds without it, in the words of the manual.
    pub(super) default: &'static str,
    /// What it means, in the words of the manual.
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

    /// The same key with further names.
    pub(super) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// The same key as a table whose keys are names of the operator's.
    pub(super) const fn with_names(self) -> Self {
        Self { has_names: true, ..self }
    }
}

/// All names of these keys.
pub(super) fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().flat_map(|key| [key.name].into_iter().chain(key.also.iter().copied())).collect()
}

/// A section of the configuration.
pub(super) struct SectionKeys {
    /// Its head. `NAME` stands for a name of the operator's.
    pub(super) head: &'static str,
    /// Its keys.
    pub(super) keys: fn() -> Vec<Key>,
}

/// Every section.
pub(super) const SECTIONS: [SectionKeys; 10] = [
    SectionKeys { head: "", keys: || super::KEYS.to_vec() },
    SectionKeys { head: "replica", keys: || replica::KEYS.to_vec() },
    SectionKeys { head: "source", keys: || source::KEYS.to_vec() },
    SectionKeys { head: "method.NAME", keys: || component::KEYS.to_vec() },
    SectionKeys { head: "method.basebackup", keys: || basebackup::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants", keys: || grants::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.stores.NAME", keys: grants::stores::keys },
    SectionKeys { head: "method.NAME.grants.stores.NAME.credentials", keys: grants::stores::credentials },
    SectionKeys { head: "method.NAME.grants.keys.NAME", keys: || grants::keys::KEYS.to_vec() },
    SectionKeys { head: "method.NAME.grants.disk", keys: || grants::disk::KEYS.to_vec() },
];
