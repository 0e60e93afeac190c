//! Where plugins are looked up by name (semantics rule 6).

use std::path::{Path, PathBuf};

use crate::config::{Environment, Problem, invisible, not_absolute};

/// The variable that names the plugin path where the configuration does not.
pub const VARIABLE: &str = "UNDERSTUDY_PLUGIN_PATH";

/// The plugin path where nothing names another.
pub const DEFAULT: [&str; 2] = ["/usr/local/lib/understudy/plugins", "/usr/lib/understudy/plugins"];

/// The plugin path of the environment, directories between colons, or else the default.
///
/// # Errors
/// A problem where a directory of it is not absolute, or its name has a character that cannot be seen.
pub fn from_environment(environment: Environment<'_>) -> Result<Vec<PathBuf>, Problem> {
    let Some(value) = environment(VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(DEFAULT.map(PathBuf::from).to_vec());
    };
    let directories: Vec<_> = std::env::split_paths(&value).collect();
    if let Some(relative) = directories.iter().find(|directory| !directory.is_absolute()) {
        let why = not_absolute(&relative.to_string_lossy());
        return Err(Problem::with_flag(
            VARIABLE,
            format!("has directories between colons, of which each {why}"),
        ));
    }
    match directories.iter().find_map(|directory| directory.to_str().and_then(invisible)) {
        Some(why) => Err(Problem::with_flag(VARIABLE, format!("names a directory that {why}"))),
        None => Ok(directories),
    }
}

/// The file of the first plugin of this name.
pub fn find(plugin_path: &[PathBuf], name: &str) -> Option<PathBuf> {
    plugin_path.iter().map(|directory| directory.join(format!("{name}.wasm"))).find(|file| file.exists())
}

/// The names of the plugins that are there, of which a wrong one is probably meant to be one.
pub fn names(plugin_path: &[PathBuf]) -> Vec<String> {
    let entries = plugin_path.iter().filter_map(|directory| directory.read_dir().ok());
    let files = entries.flat_map(|entries| entries.take(MOST_NAMES).flatten());
    let name = |file: std::fs::DirEntry| Some(file.file_name().to_str()?.strip_suffix(".wasm")?.to_owned());
    files.filter_map(name).collect()
}

/// So many entries of a directory are looked at for a better name.
const MOST_NAMES: usize = 1000;

/// The directories, for a message.
pub fn shown(plugin_path: &[PathBuf]) -> String {
    let directories: Vec<_> =
        plugin_path.iter().map(|directory| Path::display(directory).to_string()).collect();
    if directories.is_empty() { "an empty plugin path".to_owned() } else { directories.join(" or ") }
}
