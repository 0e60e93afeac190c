//! Checks the major version: PG_VERSION, pg_control, the catalogs, the plan, the source and the programs in `bin_dir` must agree.

use std::path::Path;

use foundation::rooted::{Directory, RelativePath};
use postgres_formats::control_file::{ControlFile, Release};
use postgres_formats::{names, version};

use super::problem::{During, Findings, Problem, shown};
use crate::Rule;
use crate::program_version::{TIMEOUT, major_version};

const CHECK: Rule = Rule::Version;
const PG_VERSION: RelativePath = RelativePath::literal(names::PG_VERSION);

/// Other sources of the major version.
pub(super) struct Others<'a> {
    /// The directory of PostgreSQL's programs.
    pub(super) bin_dir: &'a Path,
    /// The plan's major version.
    pub(super) planned: Option<u32>,
    /// The source's major version.
    pub(super) source: Option<u32>,
}

/// Reads PG_VERSION.
pub(super) fn read(top: &Directory) -> Result<u32, Problem> {
    let bytes = top.read(&PG_VERSION, version::LIMIT).during(CHECK)?;
    version::major_version(&bytes).ok_or_else(|| {
        let message =
            format!("PG_VERSION contains `{}`, which is not a major version from 10 on", shown(&bytes));
        Problem::new(CHECK, message)
    })
}

/// Compares the major version in PG_VERSION with all other sources.
pub(super) fn check(
    major: u32,
    control: &ControlFile,
    others: &Others<'_>,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let differs = |what: String| Err(Problem::new(CHECK, format!("PG_VERSION says {major}, but {what}")));
    let Some(release) = Release::of_major(major) else {
        let message = format!("PG_VERSION says {major}; this program knows the files of PostgreSQL 13 to 18");
        return Err(Problem::new(CHECK, message));
    };
    if control.control_version != release.control {
        return differs(format!(
            "global/pg_control has format {} where PostgreSQL {major} writes {}",
            control.control_version, release.control
        ));
    }
    if control.catalog_version != release.catalog {
        match Release::of_catalog(control.catalog_version) {
            Some(other) => {
                return differs(format!("global/pg_control has the catalogs of PostgreSQL {}", other.major));
            }
            None => findings.add(
                CHECK,
                format!(
                    "the catalogs have version {}, which no released PostgreSQL {major} has ({}): only the \
                     server that wrote them can read them",
                    control.catalog_version, release.catalog
                ),
            ),
        }
    }
    if let Some(planned) = others.planned
        && planned != major
    {
        return differs(format!("the plan said {planned}"));
    }
    if let Some(source) = others.source
        && source != major
    {
        return differs(format!("the source runs PostgreSQL {source}"));
    }
    let postgres = others.bin_dir.join("postgres");
    let program = postgres.display();
    let installed = major_version(&postgres, TIMEOUT).map_err(|error| {
        Problem::new(CHECK, format!("cannot run `{program} --version`: {error}; correct `bin_dir`"))
    })?;
    if installed != major {
        return differs(format!(
            "`{program}` belongs to PostgreSQL {installed}: set `bin_dir` to the programs of PostgreSQL {major}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use postgres_formats::written::ControlFile as Written;

    use super::*;
    use crate::program_version::tests::programs;

    fn checked(major: u32, written: &Written, script: &str) -> Result<Findings, Problem> {
        let programs = programs(script);
        let control = ControlFile::parse(&written.bytes).unwrap();
        let mut findings = Findings::default();
        let others = Others { bin_dir: programs.path(), planned: None, source: None };
        check(major, &control, &others, &mut findings).map(|()| findings)
    }

    const FIFTEEN: &str = "echo 'postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'";

    #[test]
    fn versions_that_agree_pass() {
        assert!(checked(15, &Written::in_production(7), FIFTEEN).unwrap().into_list().is_empty());
    }

    #[test]
    fn rule_30_a_major_version_that_disagrees_is_refused() {
        let written = Written::in_production(7);
        for (major, script, expected) in [
            (16, FIFTEEN, "catalogs of PostgreSQL 15"),
            (17, FIFTEEN, "format 1300"),
            (12, FIFTEEN, "13 to 18"),
            (15, "echo 'postgres (PostgreSQL) 16.2'", "`bin_dir`"),
        ] {
            let message = checked(major, &written, script).unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
        let control = ControlFile::parse(&written.bytes).unwrap();
        for (planned, source) in [(Some(14), None), (None, Some(14))] {
            let others = Others { bin_dir: Path::new("/nonexistent"), planned, source };
            let message = check(15, &control, &others, &mut Findings::default()).unwrap_err().message;
            assert!(message.contains("14"), "{message}");
        }
    }

    #[test]
    fn a_catalog_version_of_no_release_is_reported() {
        let mut written = Written::in_production(7);
        written.put32(12, 202_299_999);
        assert_eq!(checked(15, &written, FIFTEEN).unwrap().into_list().len(), 1);
    }

    #[test]
    fn a_program_that_does_not_print_its_version_is_named() {
        for script in ["exit 3", "echo hello", "true"] {
            let message = checked(15, &Written::in_production(7), script).unwrap_err().message;
            assert!(message.contains("bin_dir"), "{message}");
        }
    }

    #[test]
    fn pg_version_is_one_number() {
        let place = tempfile::tempdir().unwrap();
        let top = Directory::open(place.path()).unwrap();
        assert!(read(&top).is_err());
        for (text, major) in
            [("15\n", Some(15)), ("15", Some(15)), ("9.6\n", None), ("", None), ("15\n15\n", None)]
        {
            fs::write(place.path().join("PG_VERSION"), text).unwrap();
            assert_eq!(read(&top).ok(), major, "{text:?}");
        }
        fs::write(place.path().join("PG_VERSION"), "1".repeat(65)).unwrap();
        assert!(read(&top).is_err());
    }
}
