//! The files of a new project. They are in the folder `templates` of this crate, which is a project that builds: the name of the method, the
//! licence and the place of the SDK are replaced, and nothing else.

use std::path::PathBuf;

use super::name::Name;
use super::sdk::Sdk;
use crate::cli::{Language, Licence};

/// The name of the method in the templates.
const NAME: &str = "my-method";

/// The name of its library in Rust.
const NAME_IN_RUST: &str = "my_method";

/// The dependency in `templates/rust/Cargo.toml`.
const SDK: &str = "understudy-sdk = { path = \"../../../../plugins/sdk\" }";

/// The licence in `templates/rust/Cargo.toml`.
const LICENCE: &str = "license = \"Apache-2.0\"\n";

/// A file of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProjectFile {
    /// The path in the project.
    pub(super) path: PathBuf,
    /// The content.
    pub(super) text: String,
    /// Whether the file is a program.
    pub(super) is_script: bool,
}

/// Files that do not depend on the language: the path in a project, and the content.
const COMMON: [(&str, &str); 3] = [
    ("make-backup.sh", include_str!("../../../templates/common/make-backup.sh")),
    ("sandbox-test.sh", include_str!("../../../templates/common/sandbox-test.sh")),
    ("understudy.toml", include_str!("../../../templates/common/understudy.toml")),
];

const RUST: [(&str, &str); 8] = [
    (".github/workflows/ci.yml", include_str!("../../../templates/rust/ci.yml")),
    (".gitignore", include_str!("../../../templates/rust/gitignore")),
    ("Cargo.toml", include_str!("../../../templates/rust/Cargo.toml")),
    ("README.md", include_str!("../../../templates/rust/README.md")),
    ("rustfmt.toml", include_str!("../../../templates/rust/rustfmt.toml")),
    ("src/index.rs", include_str!("../../../templates/rust/src/index.rs")),
    ("src/lib.rs", include_str!("../../../templates/rust/src/lib.rs")),
    ("src/tests.rs", include_str!("../../../templates/rust/src/tests.rs")),
];

/// Returns the files of a project.
pub(super) fn project(language: Language, name: &Name, licence: Licence, sdk: &Sdk) -> Vec<ProjectFile> {
    let of_language: &[(&str, &str)] = match language {
        Language::Rust => &RUST,
    };
    let (in_manifest, in_readme, text) = match licence {
        Licence::Apache2 => {
            let text = include_str!("../../../../../LICENSE");
            ("license = \"Apache-2.0\"\n", "Apache-2.0, see `LICENSE`.", Some(text))
        }
        Licence::Mit => {
            let text = include_str!("../../../templates/common/LICENSE-MIT");
            ("license = \"MIT\"\n", "MIT, see `LICENSE`.", Some(text))
        }
        Licence::None => ("", "All rights reserved.", None),
    };
    let named = |text: &str| text.replace(NAME, name.as_str()).replace(NAME_IN_RUST, &name.in_rust());
    let file = |(path, text): &(&str, &str)| {
        let text = match *path {
            // The path of the SDK may contain the name in the templates, so it is inserted last.
            "Cargo.toml" => named(&text.replace(LICENCE, in_manifest)).replace(SDK, &sdk.dependency()),
            "README.md" => format!("{}\n## Licence\n\n{in_readme}\n", named(text)),
            _ => named(text),
        };
        ProjectFile { path: PathBuf::from(path), text, is_script: path.ends_with(".sh") }
    };
    let licence = text.map(|text| ("LICENSE", text));
    COMMON.iter().chain(of_language).chain(&licence).map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(licence: Licence, sdk: &Sdk) -> Vec<ProjectFile> {
        project(Language::Rust, &Name::parse("acme-restore").unwrap(), licence, sdk)
    }

    fn text(files: &[ProjectFile], path: &str) -> String {
        files.iter().find(|file| file.path.as_os_str() == path).unwrap().text.clone()
    }

    #[test]
    fn the_name_is_replaced_everywhere() {
        for ProjectFile { path, text, .. } in files(Licence::Apache2, &Sdk::Released) {
            for name in [NAME, NAME_IN_RUST, "../"] {
                assert!(!text.contains(name), "{} has {name}", path.display());
            }
        }
        let readme = text(&files(Licence::Apache2, &Sdk::Released), "README.md");
        assert!(readme.contains("release/acme_restore.wasm"), "{readme}");
    }

    #[test]
    fn the_manifest_has_the_licence_and_the_sdk() {
        let sdk = Sdk::Directory("/srv/my-method/sdk".into());
        for (licence, in_manifest, begins) in [
            (Licence::Apache2, Some("Apache-2.0"), Some("Apache License")),
            (Licence::Mit, Some("MIT"), Some("MIT License")),
            (Licence::None, None, None),
        ] {
            let files = files(licence, &sdk);
            let manifest: toml::Table = text(&files, "Cargo.toml").parse().unwrap();
            let package = manifest["package"].as_table().unwrap();
            assert_eq!(package["name"].as_str(), Some("acme-restore"));
            assert_eq!(package.get("license").and_then(|licence| licence.as_str()), in_manifest);
            assert_eq!(
                manifest["dependencies"]["understudy-sdk"]["path"].as_str(),
                Some("/srv/my-method/sdk")
            );
            let licence = files.iter().find(|file| file.path.as_os_str() == "LICENSE");
            assert_eq!(licence.is_some(), begins.is_some());
            assert!(licence.is_none_or(|file| file.text.trim_start().starts_with(begins.unwrap())));
        }
    }

    #[test]
    fn the_program_files_alone_are_executable() {
        let files = files(Licence::None, &Sdk::Released);
        let scripts: Vec<_> = files.iter().filter(|file| file.is_script).map(|file| &file.path).collect();
        assert_eq!(scripts, [&PathBuf::from("make-backup.sh"), &PathBuf::from("sandbox-test.sh")]);
        assert!(files.iter().all(|file| file.is_script == file.text.starts_with("#!")));
    }
}
