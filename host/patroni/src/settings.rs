//! Patroni's effective settings: those in the local file, which override those in the dynamic configuration
//! (`Config._build_effective_configuration` in `patroni/config.py`).

use crate::yaml::Element;
use crate::{Unreadable, python, template};

/// Keys of `postgresql` that Patroni reads only from the local file (`_safe_copy_dynamic_configuration`).
const LOCAL_ONLY: [&str; 7] =
    ["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];

/// The settings of one member.
#[derive(Debug)]
pub(crate) struct Settings<'d> {
    local: Element<'d>,
    /// The section `postgresql` in the local file.
    postgresql: Setting<'d>,
    dynamic: Option<Dynamic<'d>>,
}

/// The dynamic configuration.
#[derive(Clone, Copy, Debug)]
struct Dynamic<'d> {
    root: Element<'d>,
    /// The prefix of its keys in messages: `bootstrap.dcs.` or nothing.
    prefix: &'static str,
}

/// A key that is set, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Setting<'d> {
    /// The full name, such as `postgresql.data_dir`.
    pub(crate) path: String,
    key: Element<'d>,
    pub(crate) value: Element<'d>,
}

impl<'d> Setting<'d> {
    /// Returns the line of the key.
    pub(crate) fn line(&self) -> usize {
        self.key.line()
    }

    pub(crate) fn file(&self) -> &'d str {
        self.key.file()
    }

    /// Returns the key's name as Python prints it.
    pub(crate) fn name(&self) -> String {
        python::str(self.key).unwrap_or_default()
    }

    /// Returns the setting with this name below this one; `None` if the value is not a mapping or does not have the key.
    pub(crate) fn get(&self, name: &str) -> Option<Setting<'d>> {
        let (key, value) = self.value.entry(name)?;
        Some(Setting { path: format!("{}.{name}", self.path), key, value })
    }

    /// Returns every setting below this one; none if the value is not a mapping.
    pub(crate) fn settings(&self) -> Vec<Setting<'d>> {
        let of = |(key, value): (Element<'d>, Element<'d>)| {
            let name = python::str(key).unwrap_or_default();
            Setting { path: format!("{}.{name}", self.path), key, value }
        };
        self.value.pairs().map(|pairs| pairs.map(of).collect()).unwrap_or_default()
    }

    /// Returns each item of a list as a setting; none if the value is not a list.
    pub(crate) fn items(&self) -> Vec<Setting<'d>> {
        let of = |(index, value): (usize, Element<'d>)| Setting {
            path: format!("{}[{index}]", self.path),
            key: value,
            value,
        };
        self.value.items().map(|items| items.enumerate().map(of).collect()).unwrap_or_default()
    }

    /// Returns each key of a mapping as a setting; none if the value is not a mapping.
    pub(crate) fn keys(&self) -> Vec<Setting<'d>> {
        let of = |(key, _): (Element<'d>, Element<'d>)| Setting { path: self.path.clone(), key, value: key };
        self.value.pairs().map(|pairs| pairs.map(of).collect()).unwrap_or_default()
    }

    /// Returns whether the value is true in a Python condition.
    pub(crate) fn is_true(&self) -> bool {
        self.value.is_true()
    }

    /// Returns whether the value is a string that means false to a person, such as `no`, but is true in a Python condition.
    pub(crate) fn is_quoted_false(&self) -> bool {
        let words = ["false", "no", "off", "0", "none", "null", "f", "n"];
        self.value.text().is_some_and(|text| words.contains(&text.trim().to_lowercase().as_str()))
    }

    /// Refuses variables in the value.
    ///
    /// # Errors
    /// Fails with the line of the first variable.
    pub(crate) fn refuse_variables(&self) -> Result<(), Unreadable> {
        template::refuse_variables(self.value)
    }
}

impl<'d> Settings<'d> {
    /// Combines the settings in the local file with the dynamic configuration, or with the local file's `bootstrap.dcs` if `dynamic` is
    /// `None`.
    ///
    /// # Errors
    /// Fails if a section that Patroni needs is missing or is not a mapping.
    pub(crate) fn new(local: Element<'d>, dynamic: Option<Element<'d>>) -> Result<Self, Unreadable> {
        require_mapping(local, "the configuration")?;
        let Some(postgresql) = entry(local, "", "postgresql") else {
            let message = "there is no section `postgresql`: pass the configuration file with which Patroni is \
                 started (`patroni FILE`)";
            return Err(Unreadable::whole(local.file(), message));
        };
        require_mapping(postgresql.value, "`postgresql`")?;
        let dynamic = match dynamic {
            Some(root) => {
                require_mapping(root, "the dynamic configuration")?;
                Some(Dynamic { root, prefix: "" })
            }
            None => {
                let dcs = entry(local, "", "bootstrap").and_then(|bootstrap| bootstrap.get("dcs"));
                let dcs = dcs.filter(Setting::is_true);
                if let Some(dcs) = &dcs {
                    require_mapping(dcs.value, "`bootstrap.dcs`")?;
                }
                dcs.map(|dcs| Dynamic { root: dcs.value, prefix: "bootstrap.dcs." })
            }
        };
        if let Some(dynamic) = dynamic {
            for name in ["postgresql", "standby_cluster"] {
                let section = entry(dynamic.root, dynamic.prefix, name).filter(Setting::is_true);
                if let Some(section) = section {
                    require_mapping(section.value, &format!("`{}`", section.path))?;
                }
            }
        }
        Ok(Self { local, postgresql, dynamic })
    }

    /// Returns a top-level setting of the local file.
    pub(crate) fn top(&self, name: &str) -> Option<Setting<'d>> {
        entry(self.local, "", name)
    }

    /// Returns the section `postgresql` in the local file.
    pub(crate) fn local_postgresql(&self) -> &Setting<'d> {
        &self.postgresql
    }

    /// Returns a setting in `postgresql` from the local file, or from the dynamic configuration if the local file does not have it.
    pub(crate) fn postgresql(&self, name: &str) -> Option<Setting<'d>> {
        let dynamic = || self.dynamic_postgresql().filter(|_| !LOCAL_ONLY.contains(&name))?.get(name);
        self.postgresql.get(name).or_else(dynamic)
    }

    /// Returns every effective setting in `postgresql`.
    pub(crate) fn all_of_postgresql(&self) -> Vec<Setting<'d>> {
        let local = self.postgresql.settings();
        let dynamic = self.dynamic_postgresql().map(|section| section.settings()).unwrap_or_default();
        let is_hidden = |setting: &Setting<'d>| {
            let name = setting.name();
            LOCAL_ONLY.contains(&name.as_str()) || self.postgresql.get(&name).is_some()
        };
        let below: Vec<_> = dynamic.into_iter().filter(|setting| !is_hidden(setting)).collect();
        local.into_iter().chain(below).collect()
    }

    fn dynamic_postgresql(&self) -> Option<Setting<'d>> {
        let dynamic = self.dynamic?;
        entry(dynamic.root, dynamic.prefix, "postgresql").filter(Setting::is_true)
    }

    /// Returns the section `standby_cluster` if it makes this a standby cluster (`GlobalConfig.is_standby_cluster`).
    pub(crate) fn standby_cluster(&self) -> Option<Setting<'d>> {
        let dynamic = self.dynamic?;
        let section = entry(dynamic.root, dynamic.prefix, "standby_cluster")?;
        let is_set = |name: &str| section.get(name).is_some_and(|setting| setting.is_true());
        ["host", "port", "restore_command"].into_iter().any(is_set).then_some(section)
    }

    /// Returns the section `bootstrap.dcs` if it is used instead of the dynamic configuration.
    pub(crate) fn bootstrap_dcs(&self) -> Option<Setting<'d>> {
        self.dynamic.filter(|dynamic| !dynamic.prefix.is_empty())?;
        self.top("bootstrap")?.get("dcs")
    }
}

fn entry<'d>(root: Element<'d>, prefix: &str, name: &str) -> Option<Setting<'d>> {
    let (key, value) = root.entry(name)?;
    Some(Setting { path: format!("{prefix}{name}"), key, value })
}

fn require_mapping(element: Element<'_>, what: &str) -> Result<(), Unreadable> {
    match element.pairs() {
        Some(_) => Ok(()),
        None => {
            let message = format!("{what} is not a mapping of keys to values, so Patroni would not start");
            Err(Unreadable::at(element.file(), element.line(), message))
        }
    }
}
