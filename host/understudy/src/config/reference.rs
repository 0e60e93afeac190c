//! Generates parts of the manual from tables in the code: the keys of the configuration, the kinds of stores, and the environment
//! variables that stores read.

use std::fmt::Write as _;

use sandbox::kinds::{CredentialSet, Gives, KINDS, StoreKind, Tls, Unset, ValueKind};

use super::keys::{Key, SECTIONS};

/// A part of a page of the manual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The path of the page, relative to the folder of the manual.
    pub page: &'static str,
    /// The source that the part is made from: a path relative to the folder of the project, or a description with such a path.
    pub source: &'static str,
    /// The part in Markdown.
    pub text: String,
}

/// How the manual shows the keys of a section.
struct Shown {
    /// The section's head.
    head: &'static str,
    /// The file that has its table.
    source: &'static str,
    /// The prefix of the anchors of the keys.
    anchor: &'static str,
}

/// The sections of the configuration for which the manual has a table.
const SHOWN: [Shown; 12] = [
    Shown { head: "", source: "host/understudy/src/config/mod.rs", anchor: "" },
    Shown { head: "replica", source: "host/understudy/src/config/replica.rs", anchor: "replica-" },
    Shown { head: "source", source: "host/understudy/src/config/source.rs", anchor: "source-" },
    Shown { head: "method.NAME", source: "host/understudy/src/config/component.rs", anchor: "method-" },
    Shown {
        head: "method.NAME.grants",
        source: "host/understudy/src/config/grants/mod.rs",
        anchor: "grants-",
    },
    Shown {
        head: "method.NAME.grants.disk",
        source: "host/understudy/src/config/grants/disk.rs",
        anchor: "disk-",
    },
    Shown {
        head: "method.NAME.grants.log",
        source: "host/understudy/src/config/grants/log.rs",
        anchor: "log-",
    },
    Shown { head: STORES, source: "host/understudy/src/config/grants/stores.rs", anchor: "stores-" },
    Shown {
        head: "method.NAME.grants.keys.NAME",
        source: "host/understudy/src/config/grants/keys.rs",
        anchor: "keys-",
    },
    Shown {
        head: "method.NAME.grants.network.NAME",
        source: "host/understudy/src/config/grants/network.rs",
        anchor: "network-",
    },
    Shown {
        head: "method.NAME.grants.programs.NAME",
        source: "host/understudy/src/config/grants/programs.rs",
        anchor: "programs-",
    },
    Shown {
        head: "method.basebackup",
        source: "host/understudy/src/config/basebackup.rs",
        anchor: "basebackup-",
    },
];

/// The section of a store. Some of its keys belong only to some kinds of stores, so its table has a column for the kinds.
const STORES: &str = "method.NAME.grants.stores.NAME";

/// Returns every part of the manual that is made from a table of this program.
pub fn parts() -> Vec<Part> {
    let of_sections = SHOWN.iter().map(|shown| Part {
        page: "configuration.md",
        source: shown.source,
        text: section(shown),
    });
    let of_stores = [
        ("the settings of host/transfer/src/store/kinds", kinds()),
        ("the variables of host/transfer/src/store/kinds", variables()),
    ];
    let of_stores = of_stores.map(|(source, text)| Part { page: "stores.md", source, text });
    of_sections.chain(of_stores).collect()
}

/// Returns the table of a section's keys.
fn section(shown: &Shown) -> String {
    let keys = SECTIONS.iter().find(|section| section.head == shown.head).map(|section| (section.keys)());
    let kinds = |cell: &str| if shown.head == STORES { format!(" {cell} |") } else { String::new() };
    let rule = if shown.head == STORES { "---|" } else { "" };
    let mut text = format!(
        "\n| Key |{} Type | Default | Meaning and what is refused |\n|---|{rule}---|---|---|\n",
        kinds("For")
    );
    for key in keys.unwrap_or_default() {
        let Key { name, form, default, doc, has_names, .. } = key;
        // The heading of the section in the manual has an anchor already.
        let is_section = shown.head.is_empty() && form == "table";
        let anchor =
            if is_section { String::new() } else { format!("<a id=\"{}{name}\"></a>", shown.anchor) };
        let names = if has_names { ".NAME" } else { "" };
        let _infallible = writeln!(
            text,
            "| {anchor}`{name}{names}` |{} {form} | {default} | {doc} |",
            kinds(&kinds_with(name))
        );
    }
    text
}

/// Returns the schemes of the kinds of stores that have a key.
fn kinds_with(key: &str) -> String {
    let has = |kind: &&&StoreKind| match key {
        "ca_file" => !matches!(kind.tls, Tls::Never),
        "redirects" => kind.redirects,
        "credentials" => !kind.credentials.is_empty(),
        _ => {
            let settings = |kind: &StoreKind| kind.settings.iter().any(|setting| setting.name == key);
            settings(kind) || !KINDS.iter().any(|kind| settings(kind))
        }
    };
    let kinds: Vec<_> = KINDS.iter().filter(has).map(|kind| format!("`{}`", kind.scheme)).collect();
    if kinds.len() == KINDS.len() { "all".to_owned() } else { kinds.join(", ") }
}

/// Returns the table of the kinds of stores.
fn kinds() -> String {
    let mut text = "\n| URL | Settings | Credentials |\n|---|---|---|\n".to_owned();
    for kind in KINDS {
        let settings = kind.settings.iter().map(|setting| match setting.unset {
            Unset::Missing(_) => format!("`{}` (required)", setting.name),
            Unset::Default(_) => format!("`{}`", setting.name),
        });
        let ca_file = (!matches!(kind.tls, Tls::Never)).then(|| "`ca_file`".to_owned());
        let redirects = kind.redirects.then(|| "`redirects`".to_owned());
        let settings: Vec<_> = settings.chain(ca_file).chain(redirects).collect();
        let auto = kind.has_auto().then(|| "`\"auto\"`".to_owned());
        let credentials: Vec<_> = kind.credentials.iter().map(set).chain(auto).collect();
        let _infallible = writeln!(
            text,
            "| `{}` | {} | {} |",
            kind.example,
            settings.join(", "),
            credentials.join("; or ")
        );
    }
    text
}

/// Returns the cell of a set of credentials, with the settings that the set needs.
fn set(set: &CredentialSet) -> String {
    let named = |optional: bool| {
        let credentials = set.credentials.iter().filter(move |credential| credential.optional == optional);
        credentials.map(|credential| format!("`{}`", credential.name)).collect::<Vec<_>>().join(" and ")
    };
    let needs: Vec<_> = set.needs.iter().map(|setting| format!("`{}`", setting.name)).collect();
    let mut text = named(false);
    if set.credentials.iter().any(|credential| credential.optional) {
        let _infallible = write!(text, ", optionally {}", named(true));
    }
    if !needs.is_empty() {
        let _infallible = write!(text, " with the settings {}", needs.join(" and "));
    }
    text
}

/// Returns the table of the environment variables that stores read.
fn variables() -> String {
    let mut text = "\n| Kind | Variable | What it gives |\n|---|---|---|\n".to_owned();
    for kind in KINDS {
        for variable in kind.environment {
            let gives = match &variable.gives {
                Gives::Setting(setting) => format!("the setting `{}`", setting.name),
                Gives::Credential(credential) => format!("the credential `{}`, a secret", credential.name),
                Gives::Chain { value, .. } => format!("for the cloud's library: {}", words(*value)),
            };
            let _infallible = writeln!(text, "| `{}` | `{}` | {gives} |", kind.scheme, variable.name);
        }
    }
    text
}

/// Returns the manual's name for a kind of value.
pub(super) fn words(value: ValueKind) -> &'static str {
    match value {
        ValueKind::Flag => "flag",
        ValueKind::Name | ValueKind::Line | ValueKind::Token => "text",
        ValueKind::Address => "address",
        ValueKind::UrlPath => "path of an address",
        ValueKind::File => "path of a file that holds a secret",
        ValueKind::JsonObject => "JSON object",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_of_every_section_says_what_it_means() {
        let shown: BTreeSet<_> = SHOWN.iter().map(|shown| shown.head).collect();
        for section in &SECTIONS {
            // The keys of credentials are in the table of the kinds of stores.
            let is_shown = !section.head.ends_with(".credentials");
            assert_eq!(shown.contains(section.head), is_shown, "[{}]", section.head);
            for key in (section.keys)().iter().filter(|_| is_shown) {
                assert!(!key.doc.is_empty() && !key.form.is_empty(), "[{}] {}", section.head, key.name);
            }
        }
    }

    #[test]
    fn the_parts_of_the_manual_name_every_setting_and_every_variable() {
        let parts = parts();
        let sources: BTreeSet<_> = parts.iter().map(|part| (part.page, part.source)).collect();
        assert_eq!(sources.len(), parts.len());
        let text: String = parts.into_iter().map(|part| part.text).collect();
        for kind in KINDS {
            let settings = kind.settings.iter().map(|setting| setting.name);
            let variables = kind.environment.iter().map(|variable| variable.name);
            for name in settings.chain(variables).chain(kind.all_credentials().map(|of| of.name)) {
                assert!(text.contains(&format!("`{name}`")), "{name}");
            }
        }
    }
}
