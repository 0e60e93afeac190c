//! Where plugins are looked up by name (loop rule 6).

use std::path::{Path, PathBuf};

use foundation::nearest::nearest;
use sandbox::ComponentSource;

use crate::config::{Environment, Problem, invisible, not_absolute};
use crate::included::{METHODS, Methods};

/// The environment variable that names the plugin path if the configuration does not.
pub const VARIABLE: &str = "UNDERSTUDY_PLUGIN_PATH";

/// The plugin path if neither the configuration nor the variable names one.
pub const DEFAULT: [&str; 2] = ["/usr/local/lib/understudy/plugins", "/usr/lib/understudy/plugins"];

/// Returns the directories of the plugin path: those that the variable lists, separated by colons, or [`DEFAULT`] if the variable is not
/// set or is empty.
///
/// # Errors
/// A problem if a directory is not absolute, or if its name has an invisible character.
pub fn from_environment(environment: Environment<'_>) -> Result<Vec<PathBuf>, Problem> {
    let Some(value) = environment(VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(DEFAULT.map(PathBuf::from).to_vec());
    };
    let directories: Vec<_> = std::env::split_paths(&value).collect();
    if let Some(relative) = directories.iter().find(|directory| !directory.is_absolute()) {
        let why = not_absolute(&relative.to_string_lossy());
        return Err(Problem::with_flag(
            VARIABLE,
            format!("is a list of directories, separated by colons, each of which {why}"),
        ));
    }
    match directories.iter().find_map(|directory| directory.to_str().and_then(invisible)) {
        Some(why) => Err(Problem::with_flag(VARIABLE, format!("names a directory that {why}"))),
        None => Ok(directories),
    }
}

/// Returns the first plugin of this name: a file in the plugin path, or otherwise a method that is included in the program.
pub fn find(plugin_path: &[PathBuf], name: &str) -> Option<ComponentSource> {
    find_among(plugin_path, METHODS, name)
}

/// Returns whether a text on the command line is the path of a component's file, and not a name that is looked up.
pub fn is_path(plugin: &str) -> bool {
    plugin.contains('/') || plugin.ends_with(".wasm") || Path::new(plugin).is_file()
}

/// Returns the component that a text on the command line names: a file, or otherwise the plugin of this name in the plugin path or in the
/// program.
///
/// # Errors
/// Fails with a message if there is no plugin of this name.
pub fn named(plugin_path: &[PathBuf], plugin: &str) -> Result<ComponentSource, String> {
    if is_path(plugin) {
        let file = std::path::absolute(plugin).map_err(|error| format!("cannot use {plugin}: {error}"))?;
        return Ok(ComponentSource::File(file));
    }
    find(plugin_path, plugin).ok_or_else(|| {
        let names = names(plugin_path);
        let near = nearest(plugin, names.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("there is no {plugin}.wasm in {}{hint}", shown(plugin_path))
    })
}

/// Returns the names of the plugins that exist, to suggest the one that a misspelt name probably means.
pub fn names(plugin_path: &[PathBuf]) -> Vec<String> {
    names_among(plugin_path, METHODS)
}

/// How many entries of each directory are searched for names.
const MOST_NAMES: usize = 1000;

/// Returns the places where [`find`] looks, for a message.
pub fn shown(plugin_path: &[PathBuf]) -> String {
    shown_with(plugin_path, METHODS)
}

fn find_among(plugin_path: &[PathBuf], included: Methods, wanted: &str) -> Option<ComponentSource> {
    let files = plugin_path.iter().map(|directory| directory.join(format!("{wanted}.wasm")));
    let file = files.into_iter().find(|file| file.exists()).map(ComponentSource::File);
    file.or_else(|| {
        let (name, bytes) = included.iter().copied().find(|(name, _)| *name == wanted)?;
        Some(ComponentSource::Included { name, bytes })
    })
}

fn names_among(plugin_path: &[PathBuf], included: Methods) -> Vec<String> {
    let entries = plugin_path.iter().filter_map(|directory| directory.read_dir().ok());
    let files = entries.flat_map(|entries| entries.take(MOST_NAMES).flatten());
    let name = |file: std::fs::DirEntry| Some(file.file_name().to_str()?.strip_suffix(".wasm")?.to_owned());
    files.filter_map(name).chain(included.iter().map(|(name, _)| (*name).to_owned())).collect()
}

fn shown_with(plugin_path: &[PathBuf], included: Methods) -> String {
    let directories: Vec<_> =
        plugin_path.iter().map(|directory| Path::display(directory).to_string()).collect();
    let mut shown =
        if directories.is_empty() { "an empty plugin path".to_owned() } else { directories.join(" or ") };
    if !included.is_empty() {
        let names: Vec<_> = included.iter().map(|(name, _)| *name).collect();
        shown.push_str(&format!(" or in the program, which includes {}", names.join(", ")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDED: Methods = &[("mirror", b"m"), ("tarball", b"t")];

    #[test]
    fn rule_06_a_file_in_the_plugin_path_counts_before_what_is_included() {
        let directory = tempfile::tempdir().unwrap();
        let path = [directory.path().to_owned()];
        let included = find_among(&path, INCLUDED, "tarball").unwrap();
        assert_eq!(included.to_string(), "tarball (included in the program)");
        assert_eq!(
            find_among(&[], INCLUDED, "mirror").unwrap().to_string(),
            "mirror (included in the program)"
        );
        assert_eq!(find_among(&path, INCLUDED, "acme"), None);
        assert_eq!(find_among(&path, &[], "tarball"), None);
        let file = directory.path().join("tarball.wasm");
        std::fs::write(&file, "").unwrap();
        assert_eq!(find_among(&path, INCLUDED, "tarball"), Some(ComponentSource::File(file)));
    }

    #[test]
    fn included_methods_are_among_the_names_and_among_the_places_that_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("acme.wasm"), "").unwrap();
        let path = [directory.path().to_owned()];
        assert_eq!(names_among(&path, INCLUDED), ["acme", "mirror", "tarball"]);
        let place = directory.path().display();
        assert_eq!(
            shown_with(&path, INCLUDED),
            format!("{place} or in the program, which includes mirror, tarball")
        );
        assert_eq!(shown_with(&path, &[]), place.to_string());
        assert_eq!(shown_with(&[], &[]), "an empty plugin path");
    }
}
