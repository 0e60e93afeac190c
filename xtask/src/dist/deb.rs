//! Builds the Debian package.

use std::path::PathBuf;

use anyhow::Result;

use super::program::Program;
use super::tree::Tree;
use super::{VERSION, command, fill, folder};

/// The path where Debian's zsh looks for completion scripts from packages.
const ZSH: &str = "share/zsh/vendor-completions/_understudy";

/// The content of the file `copyright`, which Debian's policy requires (section 12.5, `copyright-format/1.0`).
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Understudy

Files: *
Copyright: the authors of Understudy
License: Apache-2.0
 The whole text is beside this file, in LICENSE, and on Debian in /usr/share/common-licenses/Apache-2.0.
";

/// Builds the package from the tree of files that the package installs, and returns the path of the package.
pub(super) fn package(program: &Program, epoch: u64) -> Result<PathBuf> {
    let tree = Tree::new(&folder().join("tree/deb"))?;
    fill(&tree.below("usr"), program, ZSH)?;
    tree.file("usr/share/doc/understudy/copyright", COPYRIGHT.as_bytes())?;
    let size = tree.kibibytes()?;
    tree.file("DEBIAN/control", control(&program.depends()?, size).as_bytes())?;
    tree.stamp(epoch)?;
    let file = folder().join(format!("understudy_{VERSION}_amd64.deb"));
    // dpkg-deb writes no time later than SOURCE_DATE_EPOCH.
    command("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(tree.path())
        .arg(&file)
        .run()?;
    Ok(file)
}

fn control(depends: &str, kibibytes: u64) -> String {
    format!(
        "Package: understudy\n\
         Version: {VERSION}\n\
         Architecture: amd64\n\
         Maintainer: the authors of Understudy\n\
         Installed-Size: {kibibytes}\n\
         Depends: {depends}\n\
         Suggests: postgresql-client\n\
         Section: database\n\
         Priority: optional\n\
         Description: creates replicas of PostgreSQL from backups\n\
        \x20Understudy tries a list of methods in order of priority, as Patroni does, and\n\
        \x20stops at the first that creates the replica. Every method but pg_basebackup is a\n\
        \x20WebAssembly component in a sandbox: it can use the data directory and what the\n\
        \x20configuration grants, and nothing else of the machine.\n\
        \x20.\n\
        \x20This package has the program and the methods tarball, mirror, pgbackrest,\n\
        \x20barman, walg and command.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_has_one_field_per_line_and_indents_continuation_lines() {
        let control = control("libc6 (>= 2.34)", 7);
        for line in control.lines() {
            let field = line.split_once(": ").is_some_and(|(name, _)| !name.contains(' '));
            assert!(field || line.starts_with(' '), "{line:?}");
        }
        assert!(control.contains("\nDepends: libc6 (>= 2.34)\n"), "{control}");
        assert!(control.ends_with("command.\n"), "{control}");
    }
}
