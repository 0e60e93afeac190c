//! A method in one page: finds the newest of several cold copies of a data directory in `directory`, one subdirectory for each day, and
//! copies it. README.md says how to build and use it.

use std::fs;
use std::path::{Path, PathBuf};

use understudy::{AtPath, Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request};
use understudy::{log, progress};

struct Hello;

impl Method for Hello {
    fn describe() -> Description {
        Description::new("hello", env!("CARGO_PKG_VERSION"), "copies the newest of several cold copies")
            .option(
                OptionSpec::text("directory").required().doc("the folder that holds one copy for each day"),
            )
            .need(Need::new(NeedKind::Directory, "directory", "the copies are read from there"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let directory: String = request.require("directory")?;
        let newest = newest(Path::new(&directory))?
            .ok_or_else(|| Failure::not_applicable(format!("there is no copy in {directory}")))?;
        let version = newest.join("PG_VERSION");
        let major = fs::read_to_string(&version).at(&version)?.trim().parse().ok();
        log::info!("the newest copy is {}", newest.display());
        Ok(Plan { backup: newest.display().to_string(), postgresql_major: major, ..Plan::default() })
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        progress::phase("copying");
        copy(Path::new(&plan.backup), "", &Datadir::of(request)?)
    }
}

understudy::export!(Hello);

/// Returns the subdirectory whose name sorts last: `2026-11-23` comes after `2026-11-22`. `None` if there is none.
fn newest(directory: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(directory).at(directory)? {
        copies.push(entry.at(directory)?.path());
    }
    copies.sort();
    Ok(copies.pop())
}

/// Copies `folder`, whose path in the data directory is `name`. `Datadir` maps each name to its path, reports the progress, and fails
/// once the run is cancelled.
fn copy(folder: &Path, name: &str, datadir: &Datadir) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let last = path
            .file_name()
            .and_then(|last| last.to_str())
            .ok_or_else(|| Failure::failed("a name is not UTF-8"))?;
        let name = if name.is_empty() { last.to_owned() } else { format!("{name}/{last}") };
        if path.is_dir() {
            datadir.create_dir(&name)?;
            copy(&path, &name, datadir)?;
        } else {
            datadir.write(&name, &mut fs::File::open(&path).at(&path)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use understudy::native::Host;

    use super::*;

    #[test]
    fn the_newest_copy_is_copied() {
        let root = tempfile::tempdir().unwrap();
        let (copies, datadir) = (root.path().join("copies"), root.path().join("data"));
        for day in ["2026-11-22", "2026-11-23"] {
            fs::create_dir_all(copies.join(day).join("global")).unwrap();
            fs::write(copies.join(day).join("PG_VERSION"), "15\n").unwrap();
            fs::write(copies.join(day).join("global/pg_control"), day).unwrap();
        }
        fs::create_dir(&datadir).unwrap();
        let request = Request::default()
            .with("directory", copies.to_str().unwrap())
            .for_datadir(datadir.to_str().unwrap());
        let (result, record) = Host::new(&datadir).run(|| Hello::create(&request, &Hello::plan(&request)?));
        assert_eq!(result, Ok(()));
        assert_eq!(record.files, 2);
        // The host renames this file once everything is checked.
        let control = fs::read_to_string(datadir.join(understudy::UNFINISHED_CONTROL_FILE)).unwrap();
        assert_eq!(control, "2026-11-23");
    }
}
