//! Checks that what a component needs is granted.

use foundation::nearest::nearest;
use replica::{Refusal, Rule};

use super::{CAPABILITIES, Remedies};
use crate::inspection::{Description, Need};
use crate::options::Setting;
use crate::{Grants, OptionValue};

/// Checks that what the component needs is granted.
///
/// If the component has an option with the same name as a need, and the option is set, its value must name what meets the need:
///
/// * for a directory, a path in a granted directory;
/// * for a store, the name of a granted store or a path in a granted directory;
/// * for a key, the name of a granted key.
///
/// Without such an option, any granted directory meets the need for a directory, and a store or key must be granted under the name of
/// the need. Every option of the kind `secret` must name a granted key.
///
/// # Errors
/// A [`Refusal`] of the rule `grant` that names every unmet need, with the configuration line that meets the first of them.
pub(crate) fn check_needs(
    description: &Description,
    settings: &[Setting],
    grants: &Grants,
    remedies: &Remedies,
) -> Result<(), Refusal> {
    let mut check = Check { settings, grants, remedies, unmet: Vec::new(), remedy: None };
    for need in &description.needs {
        match CAPABILITIES.iter().find(|capability| capability.meets() == Some(need.kind)) {
            Some(capability) => capability.check_need(need, &mut check),
            None => check.cannot_be_granted(need),
        }
    }
    for option in &description.options {
        for capability in CAPABILITIES {
            capability.check_option(option, &description.needs, &mut check);
        }
    }
    check.ended()
}

/// Returns a hint that suggests one of `names` for the misspelled `name`; empty if none is similar.
pub(super) fn near<'n>(name: &str, names: impl Iterator<Item = &'n String>) -> String {
    let near = nearest(name, names.map(String::as_str));
    near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default()
}

/// The check of all needs of one component.
pub(crate) struct Check<'a> {
    settings: &'a [Setting],
    pub(super) grants: &'a Grants,
    pub(super) remedies: &'a Remedies,
    unmet: Vec<String>,
    remedy: Option<String>,
}

impl<'a> Check<'a> {
    /// Returns the text of an option; `None` if the option is not set or is empty.
    pub(super) fn option(&self, name: &str) -> Option<&'a str> {
        match &self.settings.iter().find(|setting| setting.name == name)?.value {
            OptionValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Records an unmet need, and the configuration line that would meet it.
    pub(super) fn unmet(&mut self, why: String, remedy: Option<String>) {
        self.unmet.push(why);
        self.remedy = self.remedy.take().or(remedy);
    }

    /// Records a need that this program cannot meet, if the need is required.
    pub(super) fn cannot_be_granted(&mut self, need: &Need) {
        if need.required {
            let what = format!("it needs the {} {} ({})", need.kind.word(), need.name, need.reason);
            self.unmet(format!("{what}, which this version of the program cannot grant"), None);
        }
    }

    fn ended(self) -> Result<(), Refusal> {
        if self.unmet.is_empty() {
            return Ok(());
        }
        let refusal = Refusal::new(Rule::Grant, self.unmet.join("; ")).by_policy();
        Err(match self.remedy {
            Some(line) => refusal.remedy(line),
            None => refusal,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use foundation::secret::Secret;
    use transfer::store::StoreConfig;

    use super::*;
    use crate::KeyGrant;
    use crate::inspection::{Kind, NeedKind, OptionSpec};

    pub(in crate::capability) fn need(kind: NeedKind, name: &str, required: bool) -> Need {
        Need { kind, name: name.to_owned(), required, reason: "to restore from".to_owned() }
    }

    fn description(needs: &[Need], secrets: &[&str]) -> Description {
        let option = |name: &&str| OptionSpec {
            name: (*name).to_owned(),
            kind: Kind::Secret,
            required: false,
            default: None,
            doc: String::new(),
        };
        Description {
            name: "m".to_owned(),
            version: "1".to_owned(),
            summary: String::new(),
            options: secrets.iter().map(option).collect(),
            needs: needs.to_vec(),
        }
    }

    pub(in crate::capability) fn check_with(
        needs: &[Need],
        settings: &[Setting],
        grants: &Grants,
    ) -> Result<(), Refusal> {
        check_needs(&description(needs, &["pass"]), settings, grants, &Remedies::new("m", grants))
    }

    pub(in crate::capability) fn check(
        needs: &[Need],
        settings: &[Setting],
        read: &[&str],
    ) -> Result<(), Refusal> {
        check_with(
            needs,
            settings,
            &Grants { read: read.iter().map(PathBuf::from).collect(), ..Grants::default() },
        )
    }

    pub(in crate::capability) fn setting(name: &str, value: &str) -> Setting {
        Setting { name: name.to_owned(), value: OptionValue::Text(value.to_owned()) }
    }

    /// Grants the store `repo`, the key `repo`, and read access to `/mnt`.
    pub(in crate::capability) fn granted() -> Grants {
        Grants {
            stores: [("repo".to_owned(), StoreConfig::new("file:///srv"))].into(),
            keys: [("repo".to_owned(), KeyGrant::new(Secret::new("x"), ["repo".to_owned()]))].into(),
            read: vec!["/mnt".into()],
            ..Grants::default()
        }
    }
}
