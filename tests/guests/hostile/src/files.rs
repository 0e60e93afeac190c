//! Behaviours that try to reach files without a grant.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use understudy::{AtPath, Datadir, Failure, Request};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};

use crate::{escaped, refused, verdict};

pub(crate) type Attempts = Vec<(String, Result<(), String>)>;

/// Writes a file at the absolute path `path`, which is outside every granted directory.
pub(crate) fn write_outside(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    match fs::write(&path, "written from inside the sandbox") {
        Ok(()) => Err(escaped(&format!("wrote {path}"))),
        Err(error) => Err(refused(&format!("writing {path}"), error)),
    }
}

/// Reads `path`, which is outside every granted directory.
pub(crate) fn read_outside(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    match fs::read(&path) {
        Ok(_) => Err(escaped(&format!("read {path}"))),
        Err(error) => Err(refused(&format!("reading {path}"), error)),
    }
}

/// Tries to change `path`, a directory granted for reading: creates, overwrites, truncates, renames, links, removes. The directory must
/// contain a file `victim`.
pub(crate) fn write_granted(request: &Request) -> Result<(), Failure> {
    let directory: String = request.require("path")?;
    let directory = Path::new(&directory);
    let victim = directory.join("victim");
    let datadir = request.datadir()?;
    fs::read(&victim).at(&victim)?;
    let mut attempts = Attempts::new();
    let mut attempt = |what: &str, answer: std::io::Result<()>| {
        attempts.push((what.to_owned(), answer.map_err(|error| error.to_string())));
    };
    attempt("make a file", fs::write(directory.join("new"), "x"));
    attempt("make a folder", fs::create_dir(directory.join("folder")));
    attempt("append", File::options().append(true).open(&victim).and_then(|mut file| file.write_all(b"x")));
    attempt("truncate by opening", File::options().write(true).truncate(true).open(&victim).map(drop));
    attempt("truncate an open file", File::open(&victim).and_then(|file| file.set_len(0)));
    attempt("change times", File::open(&victim).and_then(|file| file.set_modified(std::time::UNIX_EPOCH)));
    attempt("rename inside", fs::rename(&victim, directory.join("renamed")));
    attempt("rename into the data directory", fs::rename(&victim, datadir.join("renamed")));
    attempt("link into the data directory", fs::hard_link(&victim, datadir.join("linked")));
    attempt("remove", fs::remove_file(&victim));
    Err(verdict(attempts))
}

/// Tries to reach `path`, an existing file outside the data directory: with `..`, through links that the component creates, with trailing
/// slashes.
pub(crate) fn traverse(request: &Request) -> Result<(), Failure> {
    let target: String = request.require("path")?;
    let datadir = request.datadir()?;
    let up = format!("{}{}", "../".repeat(datadir.components().count()), target.trim_start_matches('/'));
    let mut attempts = Attempts::new();
    attempts.push(("std: ..".to_owned(), reads(&datadir.join(&up))));

    let root = preopened(datadir)?;
    attempts.push(("open-at ..".to_owned(), opens(&root, &up)));
    attempts.push(("open-at absolute".to_owned(), opens(&root, &target)));
    attempts.push(("open-at ../".to_owned(), opens_directory(&root, "../")));
    let (folder, file) = target.rsplit_once('/').unwrap_or(("", &target));
    let folder_up =
        format!("{}{}", "../".repeat(datadir.components().count()), folder.trim_start_matches('/'));
    for (number, to) in
        [target.as_str(), folder, up.as_str(), folder_up.as_str(), "..", "../", "/"].into_iter().enumerate()
    {
        let link = format!("link{number}");
        if let Err(error) = root.symlink_at(to, &link) {
            attempts.push((format!("link to {to}"), Err(format!("{error:?}"))));
            continue;
        }
        for path in [
            link.clone(),
            format!("{link}/"),
            format!("{link}//"),
            format!("{link}/."),
            format!("{link}/{file}"),
            format!("{link}//{file}"),
            format!("./{link}/./{file}"),
        ] {
            attempts.push((format!("open-at {path} -> {to}"), opens(&root, &path)));
            attempts.push((format!("open directory {path} -> {to}"), opens_directory(&root, &path)));
        }
        let planted = format!("{link}/planted");
        attempts.push((format!("make {planted} -> {to}"), makes(&root, &planted)));
        attempts.push((format!("folder {planted} -> {to}"), text(root.create_directory_at(&planted))));
        attempts.push((
            format!("link {link}/ -> {to} by another name"),
            text(root.link_at(PathFlags::SYMLINK_FOLLOW, &link, &root, &format!("hard{number}"))),
        ));
        attempts.push((
            format!("rename {link}/ -> {to}"),
            text(root.rename_at(&format!("{link}/"), &root, &format!("moved{number}")))
                .and_then(|()| opens_directory(&root, &format!("moved{number}/"))),
        ));
    }
    Err(verdict(attempts))
}

/// Opens `path`, a FIFO, which would block forever.
pub(crate) fn fifo(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    match File::open(&path) {
        Ok(_) => Err(escaped(&format!("opened {path}"))),
        Err(error) => Err(refused(&format!("opening {path}"), error)),
    }
}

/// Writes to the data directory, which is allowed in `create` and denied in `plan`.
pub(crate) fn write(request: &Request) -> Result<(), Failure> {
    let path = request.datadir()?.join("written");
    let planning = request.require::<String>("when")? == "plan";
    match fs::write(&path, "x") {
        Ok(()) if planning => Err(escaped("wrote in the data directory while planning")),
        Ok(()) => Ok(()),
        Err(error) => Err(refused("writing in the data directory", error)),
    }
}

/// Tries to create a control file under its final name: with several spellings, by a rename, by a link, by moving a whole directory.
pub(crate) fn control_file(request: &Request) -> Result<(), Failure> {
    let datadir = request.datadir()?;
    let global = datadir.join("global");
    let (name, other) = (global.join("pg_control"), global.join("other"));
    fs::create_dir_all(&global).at(&global)?;
    fs::write(&other, [0; 8192]).at(&other)?;
    let mut attempts = Attempts::new();
    let mut attempt = |what: &str, answer: std::io::Result<()>| {
        attempts.push((what.to_owned(), answer.map_err(|error| error.to_string())));
    };
    attempt("write pg_control", fs::write(&name, [0; 8192]));
    attempt("link to pg_control", fs::hard_link(&other, &name));
    attempt("rename to pg_control", fs::rename(&other, &name));
    attempt("write it elsewhere", fs::write(datadir.join("pg_control"), [0; 8192]));
    attempt("write it in other letters", fs::write(global.join("PG_Control"), [0; 8192]));
    attempt("write it with what is not shown", fs::write(global.join("pg_\u{200b}control"), [0; 8192]));
    attempt("a directory of the name", fs::create_dir(&name));
    attempts.extend(other_global(datadir)?);
    Err(verdict(attempts))
}

/// Tries to make another directory `global`: by a rename, by links.
pub(crate) fn other_global(datadir: &Path) -> Result<Attempts, Failure> {
    let root = preopened(datadir)?;
    let (global, g2) = (datadir.join("global"), datadir.join("g2"));
    fs::create_dir_all(&g2).at(&g2)?;
    fs::write(g2.join("other"), [0; 8192]).at(&g2)?;
    // The name must be free. Otherwise the kernel fails, whatever the host does.
    let aside = datadir.join("aside");
    fs::rename(&global, &aside).at(&global)?;
    let mut attempts = Attempts::new();
    for name in ["global", "./global/", "GLOBAL", "glo\u{ad}bal"] {
        attempts.push((format!("rename g2 to {name:?}"), text(root.rename_at("g2", &root, name))));
        attempts.push((format!("a link {name:?}"), text(root.symlink_at("g2", name))));
    }
    if text(root.symlink_at("g2", "link")).is_ok() {
        let second = root.link_at(PathFlags::empty(), "link", &root, "global");
        attempts.push(("a second name of a link".to_owned(), text(second)));
        attempts.push(("rename a link".to_owned(), text(root.rename_at("link", &root, "global"))));
    }
    attempts.push(("a link to pg_control".to_owned(), text(root.symlink_at("aside/pg_control", "to"))));
    Ok(attempts)
}

/// Writes half a cluster, including the control file, then fails.
pub(crate) fn partial(request: &Request) -> Result<(), Failure> {
    let datadir = Datadir::of(request)?;
    for directory in ["base", "base/5", "global", "pg_wal", "pg_wal/archive_status", "pg_tblspc"] {
        datadir.create_dir(directory)?;
    }
    for (name, size) in [("base/5/1259", 1 << 20), ("base/5/1247", 1 << 20), ("global/pg_control", 8192)] {
        datadir.write(name, &mut std::io::repeat(7).take(size))?;
    }
    datadir.write("PG_VERSION", &mut &b"15\n"[..])?;
    Err(Failure::failed("half of it is missing"))
}

pub(crate) fn preopened(directory: &Path) -> Result<Descriptor, Failure> {
    get_directories()
        .into_iter()
        .find(|(_, name)| Path::new(name) == directory)
        .map(|(descriptor, _)| descriptor)
        .ok_or_else(|| Failure::failed(format!("{} is not preopened", directory.display())))
}

fn reads(path: &Path) -> Result<(), String> {
    fs::read(path).map(drop).map_err(|error| error.to_string())
}

fn opens(root: &Descriptor, path: &str) -> Result<(), String> {
    let file =
        text(root.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ))?;
    text(file.read(1, 0).map(drop))
}

fn opens_directory(root: &Descriptor, path: &str) -> Result<(), String> {
    let directory =
        text(root.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::DIRECTORY, DescriptorFlags::READ))?;
    text(directory.read_directory().map(drop))
}

fn makes(root: &Descriptor, path: &str) -> Result<(), String> {
    text(root.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::CREATE, DescriptorFlags::WRITE).map(drop))
}

fn text<T, E: std::fmt::Debug>(answer: Result<T, E>) -> Result<T, String> {
    answer.map_err(|error| format!("{error:?}"))
}
