//! The file of a granted program: checks whether the file may be run, and finds the other files that the kernel executes for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foundation::way::{Changeable, ChangeableBy, changeable_by_others};
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::fs::{Access, access, getxattr};
use rustix::io::Errno;

/// The kernel's limit for chains of interpreters (`exec_binprm` in fs/exec.c).
const DEPTH: usize = 5;

/// How much of a file the kernel reads for its first line (`BINPRM_BUF_SIZE`).
const FIRST_LINE: u64 = 256;

const SET_ID: u32 = 0o6000;

/// What is executed when a program is run.
#[derive(Debug, Default)]
pub(super) struct Executed {
    /// The real paths of the files.
    pub(super) files: Vec<PathBuf>,
    /// The paths that determine which files these are: each path as written, before its links are resolved, and the directories that
    /// `/usr/bin/env` searches.
    pub(super) decided_by: Vec<PathBuf>,
}

/// Returns the files that are executed when the program at `path` is run: the program, the interpreter of a script's first line, and the
/// dynamic linker of each. `search` is the `PATH` in which `/usr/bin/env` would find an interpreter.
///
/// # Errors
/// Why the program must not or cannot be run, with the file and what to do.
pub(super) fn executed(path: &Path, search: &OsStr) -> Result<Executed, String> {
    let Executed { mut files, mut decided_by } = Executed::default();
    let mut next = vec![path.to_owned()];
    while let Some(path) = next.pop() {
        if files.len() >= 2 * DEPTH {
            return Err(format!(
                "{}: its interpreters are themselves scripts, too many levels deep: name a program",
                path.display()
            ));
        }
        let real = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        if files.contains(&real) {
            decided_by.push(path);
            continue;
        }
        judge(&path, &real)?;
        next.extend(interpreters(&real, search, &mut decided_by)?);
        files.push(real);
        decided_by.push(path);
    }
    Ok(Executed { files, decided_by })
}

/// Refuses a file that cannot be executed, that raises privileges, or that users other than root and this one may change.
fn judge(path: &Path, real: &Path) -> Result<(), String> {
    let shown = real.display();
    let metadata = real.metadata().map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file: name the program itself"));
    }
    if metadata.mode() & SET_ID != 0 {
        return Err(format!(
            "{shown} is setuid or setgid (mode {:04o}), and a granted program gains no privileges: name a program that needs none",
            metadata.mode() & 0o7777
        ));
    }
    match getxattr(real, "security.capability", &mut [0_u8; 64]) {
        Err(Errno::NODATA | Errno::NOTSUP) => {}
        Ok(_) | Err(Errno::RANGE) => {
            return Err(format!(
                "{shown} has file capabilities, and a granted program gains no privileges: name a program that needs none"
            ));
        }
        Err(error) => return Err(format!("{shown}: its capabilities cannot be read: {error}")),
    }
    if let Err(error) = access(real, Access::EXEC_OK) {
        return Err(format!("{shown} is not executable for the user that runs it ({error}): `chmod +x` it"));
    }
    let changeable = changeable_by_others(path, None).map_err(|error| error.to_string())?;
    let Some(Changeable { path, by, .. }) = changeable.first() else { return Ok(()) };
    let shown = path.display();
    Err(match by {
        ChangeableBy::Owner(owner) => format!(
            "{shown} belongs to user {owner}, who would decide what runs: `chown` it to root or to the user that runs it"
        ),
        ChangeableBy::Mode(mode) => format!(
            "{shown} may be changed by others (mode {mode:04o}), who would decide what runs: `chmod go-w` it"
        ),
    })
}

/// Returns the files that the kernel executes to run this one: the interpreter of a script, or the dynamic linker of a binary. Adds the
/// directories that are searched to `searched`.
fn interpreters(real: &Path, search: &OsStr, searched: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    let shown = real.display();
    let failed = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    let file = File::open(real).map_err(failed)?;
    let mut begin = Vec::new();
    (&file).take(FIRST_LINE).read_to_end(&mut begin).map_err(failed)?;
    if let Some(line) = begin.strip_prefix(b"#!") {
        return script(real, line, search, searched);
    }
    if !begin.starts_with(&object::elf::ELFMAG) {
        return Err(format!(
            "{shown} is neither a program nor a script with a first line such as `#!/bin/sh`: write that line"
        ));
    }
    let linker =
        dynamic_linker(file).map_err(|why| format!("{shown} is not a program of this machine: {why}"))?;
    Ok(linker.into_iter().collect())
}

/// Returns the dynamic linker that a binary names; `None` if it is linked statically.
fn dynamic_linker(file: File) -> Result<Option<PathBuf>, String> {
    let data = ReadCache::new(file);
    let header = FileHeader64::<LittleEndian>::parse(&data).map_err(|error| error.to_string())?;
    let machine = header.e_machine.get(LittleEndian);
    let own = match std::env::consts::ARCH {
        "x86_64" => object::elf::EM_X86_64,
        "aarch64" => object::elf::EM_AARCH64,
        "riscv64" => object::elf::EM_RISCV,
        other => return Err(format!("programs cannot be confined on {other}")),
    };
    if machine != own {
        return Err(format!("it is for the machine type {machine}"));
    }
    let segments = header.program_headers(LittleEndian, &data).map_err(|error| error.to_string())?;
    for segment in segments {
        if let Some(path) = segment.interpreter(LittleEndian, &data).map_err(|error| error.to_string())? {
            return Ok(Some(PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    Ok(None)
}

/// Returns the interpreter that a script's first line names, and the program that `env` would find.
fn script(
    real: &Path,
    line: &[u8],
    search: &OsStr,
    searched: &mut Vec<PathBuf>,
) -> Result<Vec<PathBuf>, String> {
    let shown = real.display();
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return Err(format!(
            "the first line of {shown} is longer than {FIRST_LINE} bytes or has no end: shorten it"
        ));
    };
    let line = line[..end].trim_ascii();
    let blank = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, argument) = (OsStr::from_bytes(&line[..blank]), line[blank..].trim_ascii());
    let interpreter = PathBuf::from(interpreter);
    if !interpreter.is_absolute() {
        return Err(format!(
            "the first line of {shown} does not name an absolute path: write, for example, `#!/bin/sh`"
        ));
    }
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Ok(vec![interpreter]);
    }
    let name = Path::new(OsStr::from_bytes(argument));
    let is_name = !argument.is_empty()
        && !argument.iter().any(|byte| matches!(byte, b'-' | b'=' | b'/' | b' ' | b'\t'));
    searched.extend(std::env::split_paths(search));
    let found =
        std::env::split_paths(search).map(|directory| directory.join(name)).find(|path| path.is_file());
    match found.filter(|_| is_name) {
        Some(found) => Ok(vec![interpreter, found]),
        None => Err(format!(
            "the first line of {shown} has `env` look for {}, which is not found in {}: name the interpreter by its path",
            String::from_utf8_lossy(argument).escape_debug(),
            search.to_string_lossy()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn files(path: &Path, search: &OsStr) -> Result<Vec<PathBuf>, String> {
        executed(path, search).map(|executed| executed.files)
    }

    fn search() -> &'static OsStr {
        OsStr::new("/usr/local/bin:/usr/bin:/bin")
    }

    /// Creates a file with this content and mode in a new directory.
    fn file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn names(path: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        files(path, search()).unwrap().into_iter().map(name).collect()
    }

    fn refused(content: &str, mode: u32) -> String {
        let (_folder, path) = file(content, mode);
        files(&path, search()).unwrap_err()
    }

    #[test]
    fn a_binary_brings_its_dynamic_linker() {
        let found = names(Path::new("/bin/cat"));
        assert_eq!(found[0], "cat");
        assert!(found.len() == 2 && found[1].starts_with("ld-linux"), "{found:?}");
    }

    #[test]
    fn a_script_brings_its_interpreter_and_the_linker_of_that() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        for first in ["#!/bin/sh\n", "#! /bin/sh -eu\n", "#!/bin/sh\t\n"] {
            let (_folder, path) = file(first, 0o755);
            let found = files(&path, search()).unwrap();
            assert_eq!((found[0].file_name(), &found[1]), (path.file_name(), &shell), "{first:?}");
            assert_eq!(found.len(), 3, "{found:?}");
        }
        let (_folder, path) = file("#!/usr/bin/env bash\n", 0o755);
        let found = names(&path);
        assert!(found.contains(&"env".to_owned()) && found.contains(&"bash".to_owned()), "{found:?}");
    }

    #[test]
    fn the_links_and_the_searched_directories_decide_what_is_executed() {
        let (folder, path) = file("#!/usr/bin/env sh\n", 0o755);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let decided_by = executed(&link, search()).unwrap().decided_by;
        for path in
            [link.as_path(), Path::new("/usr/bin/env"), Path::new("/usr/local/bin"), Path::new("/bin")]
        {
            assert!(decided_by.iter().any(|decides| decides == path), "{} in {decided_by:?}", path.display());
        }
    }

    #[test]
    fn a_script_may_be_the_interpreter_of_another_but_not_without_end() {
        let (_one, inner) = file("#!/bin/sh\n", 0o755);
        let (_two, outer) = file(&format!("#!{}\n", inner.display()), 0o755);
        assert_eq!(names(&outer).len(), 4);
        let (folder, path) = file("", 0o755);
        fs::write(&path, format!("#!{}\n", folder.path().join("0").display())).unwrap();
        for number in 0..2 * DEPTH {
            let next = folder.path().join((number + 1).to_string());
            let script = folder.path().join(number.to_string());
            fs::write(&script, format!("#!{}\n", next.display())).unwrap();
            fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        }
        assert!(files(&path, search()).unwrap_err().contains("too many levels deep"));
    }

    #[test]
    fn what_cannot_be_run_says_why_and_what_to_do() {
        for (content, mode, says) in [
            ("echo hello\n", 0o755, "write that line"),
            ("", 0o755, "write that line"),
            ("#!/bin/sh\n", 0o644, "`chmod +x` it"),
            ("#!/bin/sh\n", 0o4755, "is setuid or setgid"),
            ("#!/bin/sh\n", 0o2755, "is setuid or setgid"),
            ("#!/bin/sh\n", 0o777, "`chmod go-w` it"),
            ("#!/bin/sh", 0o755, "has no end"),
            ("#!sh\n", 0o755, "does not name an absolute path"),
            ("#!\n", 0o755, "does not name an absolute path"),
            ("#!/nowhere/sh\n", 0o755, "/nowhere/sh: No such file"),
            ("#!/usr/bin/env no-such-interpreter\n", 0o755, "name the interpreter by its path"),
            ("#!/usr/bin/env -S sh -e\n", 0o755, "name the interpreter by its path"),
            ("#!/usr/bin/env\n", 0o755, "name the interpreter by its path"),
            ("\u{7f}ELF\u{1}\u{1}\u{1}", 0o755, "not a program of this machine"),
        ] {
            let why = refused(content, mode);
            assert!(why.contains(says), "{content:?}: {why}");
        }
        assert!(files(Path::new("/nowhere/x"), search()).unwrap_err().contains("No such file"));
        assert!(files(Path::new("/usr/bin"), search()).unwrap_err().contains("is not a file"));
    }

    #[test]
    fn a_program_in_a_directory_that_others_may_write_is_refused_unless_it_is_sticky() {
        let (folder, path) = file("#!/bin/sh\n", 0o755);
        for (mode, is_refused) in [(0o777, true), (0o1777, false), (0o755, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(files(&path, search()).is_err(), is_refused, "{mode:o}");
        }
        // A link in such a directory can be pointed at another program.
        let (open, _) = file("", 0o644);
        let link = open.path().join("link");
        symlink(&path, &link).unwrap();
        files(&link, search()).unwrap();
        fs::set_permissions(open.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(files(&link, search()).unwrap_err().contains("`chmod go-w` it"));
    }

    #[test]
    fn a_link_that_another_user_can_point_elsewhere_is_refused_also_between_two_other_links() {
        let (_folder, path) = file("#!/bin/sh\n", 0o755);
        let (outer, between) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, current) = (outer.path().join("link"), between.path().join("current"));
        symlink(&path, &current).unwrap();
        symlink(&current, &link).unwrap();
        let (_script, script) = file(&format!("#!{}\n", link.display()), 0o755);
        for path in [&link, &script] {
            files(path, search()).unwrap();
        }
        fs::set_permissions(between.path(), Permissions::from_mode(0o757)).unwrap();
        for path in [&link, &script] {
            let why = files(path, search()).unwrap_err();
            let directory = between.path().canonicalize().unwrap();
            assert!(why.starts_with(&format!("{} may be changed by others", directory.display())), "{why}");
        }
    }

    #[test]
    fn a_program_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_folder, path) = file("#!/bin/sh\n", 0o755);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(files(&path, search()).unwrap_err().contains("belongs to user 65534"));
    }

    #[test]
    fn file_capabilities_are_refused() {
        let (_folder, path) = file("#!/bin/sh\n", 0o755);
        // VFS_CAP_REVISION_2 with CAP_NET_RAW, effective (linux/capability.h).
        let mut capability = [0_u8; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(&path, "security.capability", &capability, flags).is_err() {
            eprintln!("only root can set file capabilities: nothing to try");
            return;
        }
        assert!(files(&path, search()).unwrap_err().contains("has file capabilities"));
    }
}
