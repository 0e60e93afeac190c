//! Checks that what a component needs is granted.

use foundation::nearest::nearest;
use replica::{Refusal, Rule};

use super::{CAPABILITIES, Remedies};
use crate::inspection::{Description, Need};
use crate::options::Setting;
use crate::{Grants, OptionValue};

/// Checks that what the component needs is granted.
///
/// A need of a directory, a store or a key is bound by the option of the same name, where the component has one and it
/// is set: for a directory its value is a path that must lie in a granted directory, for a store the name of a granted
/// one or such a path, for a key the name of a granted one. Every option of the kind `secret` names a granted key. A
/// required directory without such an option is met by any granted directory; a store or a key without one must be
/// granted under the name of the need.
///
/// # Errors
/// A [`Refusal`] of the rule `grant` that names every need that is not met, with the line that grants the first.
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

/// Asks whether one of `names` was meant by `name`; empty if none is near.
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
    /// The text of an option that is set.
    pub(super) fn option(&self, name: &str) -> Option<&'a str> {
        match &self.settings.iter().find(|setting| setting.name == name)?.value {
            OptionValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Takes down a need that is not met, and the line that would meet it.
    pub(super) fn unmet(&mut self, why: String, remedy: Option<String>) {
        self.unmet.push(why);
        self.remedy = self.remedy.take().or(remedy);
    }

    /// Takes down a need that nothing can meet, where the component cannot do without.
    pub(super) fn cannot_be_granted(&mut self, need: &Need) {
        if need.required {
            let what = format!("it needs the {} {} ({})", need.kind.word(), need.name, need.reason);
            self.unmet(format!("{what}, and this version of the program cannot grant one"), None);
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

    /// A store `repo` and a key `repo`, and `/mnt` to read.
    pub(in crate::capability) fn granted() -> Grants {
        Grants {
            stores: [("repo".to_owned(), StoreConfig::new("file:///srv"))].into(),
            keys: [("repo".to_owned(), KeyGrant::new(Secret::new("x"), ["repo".to_owned()]))].into(),
            read: vec!["/mnt".into()],
            ..Grants::default()
        }
    }
}
