//! Settings of extensions and languages, whose names have a dot. PostgreSQL accepts any such name. The library uses the setting when it is
//! loaded, and a function in a restored database may load it.
//!
//! Sources: the manual's appendix "Additional Supplied Modules and Extensions" and its chapters on the procedural languages (13 to 18);
//! for other extensions their own manuals. `pgaudit.` is the prefix of two extensions, pgaudit and pgauditlogtofile, whose settings are
//! listed from the README files of both: the second one writes a log.

use super::Class::{
    self, Code, Command, Harmless, LibraryRoot, LogDirectory, LogFileMode, LogFilename, MayNameFiles, Reads,
    ToldUnless, WritesIn,
};
use super::Values::{AtLeast, Flag, Milliseconds, SomeClass};
use super::table::MOST;

/// The known settings. A name that ends with a dot stands for all settings of the extension.
#[rustfmt::skip] // One line for each setting, even if rustfmt would break it.
const KNOWN: &[(&str, Class)] = &[
    ("auth_delay.milliseconds", ToldUnless(Milliseconds(1, MOST), "nothing slows down the guessing of passwords")),
    ("auto_explain.", Harmless),
    ("basebackup_to_shell.command", Command),
    ("basebackup_to_shell.required_role", Harmless),
    ("basic_archive.archive_directory", WritesIn),
    ("extwlist.custom_path", LibraryRoot),
    ("isn.weak", Harmless),
    ("passwordcheck.min_password_length", ToldUnless(AtLeast(8), "shorter passwords are accepted than by default")),
    ("pg_prewarm.", Harmless),
    ("pg_stat_statements.", Harmless),
    ("pg_trgm.", Harmless),
    ("pgaudit.log", ToldUnless(SomeClass, "pgaudit records nothing")),
    ("pgaudit.log_autoclose_minutes", Harmless),
    ("pgaudit.log_catalog", Harmless),
    ("pgaudit.log_client", Harmless),
    ("pgaudit.log_compression", Harmless),
    ("pgaudit.log_compression_level", Harmless),
    ("pgaudit.log_connections", Harmless),
    ("pgaudit.log_directory", LogDirectory),
    ("pgaudit.log_disconnections", Harmless),
    ("pgaudit.log_execution_memory", Harmless),
    ("pgaudit.log_execution_time", Harmless),
    ("pgaudit.log_file_mode", LogFileMode),
    ("pgaudit.log_filename", LogFilename),
    ("pgaudit.log_format", Harmless),
    ("pgaudit.log_level", Harmless),
    ("pgaudit.log_parameter", Harmless),
    ("pgaudit.log_parameter_max_size", Harmless),
    ("pgaudit.log_relation", Harmless),
    ("pgaudit.log_rotation_age", Harmless),
    ("pgaudit.log_rows", Harmless),
    ("pgaudit.log_statement", Harmless),
    ("pgaudit.log_statement_once", Harmless),
    ("pgaudit.role", Harmless),
    ("pgcrypto.builtin_crypto_enabled", Harmless),
    ("pgsodium.getkey_script", Command),
    ("pljava.", Code),
    ("pllua.", Code),
    ("plperl.on_init", Code),
    ("plperl.on_plperl_init", Code),
    ("plperl.on_plperlu_init", Code),
    ("plperl.use_strict", Harmless),
    ("plpgsql.", Harmless),
    ("plrust.", Code),
    ("pltcl.start_proc", Code),
    ("pltclu.start_proc", Code),
    ("plv8.boot_proc", Code),
    ("plv8.start_proc", Code),
    ("postgis.gdal_datapath", Reads),
    ("postgres_fdw.application_name", Harmless),
    ("sepgsql.debug_audit", Harmless),
    ("sepgsql.permissive", ToldUnless(Flag(false), "sepgsql forbids nothing")),
    ("session_exec.login_name", Code),
    ("supautils.extension_custom_scripts_path", LibraryRoot),
    ("vault.getkey_script", Command),
];

/// If the name of an unknown extension's setting contains one of these words, the setting may run a command or load a library.
const WORDS: [&str; 14] = [
    "command",
    "script",
    "librar",
    "preload",
    "program",
    "exec",
    "on_init",
    "_init",
    "start_proc",
    "classpath",
    "vmoptions",
    "module",
    "plugin",
    "shell",
];

/// If the name of an unknown extension's setting contains one of these words, the setting may name a file, a directory, a server or options
/// of a program.
const WORDS_OF_FILES: [&str; 5] = ["file", "dir", "path", "conn", "flags"];

/// Returns the class of an extension's setting; `None` if the name is not known and contains none of the words.
pub(super) fn class(name: &str) -> Option<Class> {
    let known = |(known, class): &(&str, Class)| {
        let fits = if known.ends_with('.') { name.starts_with(known) } else { name == *known };
        fits.then_some(*class)
    };
    KNOWN.iter().find_map(known).or_else(|| {
        let (_, of_extension) = name.split_once('.')?;
        let has_one_of = |words: &[&str]| words.iter().any(|word| of_extension.contains(word));
        if has_one_of(&WORDS) {
            return Some(Code);
        }
        has_one_of(&WORDS_OF_FILES).then_some(MayNameFiles)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extensions_setting_is_classed_by_its_name_or_by_the_words_in_it() {
        for (name, expected) in [
            ("plperl.on_init", Some(Code)),
            ("plperl.on_plperlu_init", Some(Code)),
            ("plperl.use_strict", Some(Harmless)),
            ("pltclu.start_proc", Some(Code)),
            ("plv8.boot_proc", Some(Code)),
            ("extwlist.custom_path", Some(LibraryRoot)),
            ("pljava.libjvm_location", Some(Code)),
            ("basic_archive.archive_directory", Some(WritesIn)),
            ("auto_explain.log_min_duration", Some(Harmless)),
            ("other.archive_command", Some(Code)),
            ("other.on_init", Some(Code)),
            ("other.preload_libraries", Some(Code)),
            ("other.key_file", Some(MayNameFiles)),
            ("other.data_dir", Some(MayNameFiles)),
            ("other.search_path", Some(MayNameFiles)),
            ("other.node_conninfo", Some(MayNameFiles)),
            ("other.cflags", Some(MayNameFiles)),
            ("profile.threshold", None),
            ("pgaudit.log_relation", Some(Harmless)),
            ("pgaudit.log_directory", Some(LogDirectory)),
            ("pgaudit.log_filename", Some(LogFilename)),
            ("pgaudit.other", None),
            ("other.threshold", None),
            ("plperlx.on", None),
            ("auto_explainx.log", None),
        ] {
            assert_eq!(class(name), expected, "{name}");
        }
    }
}
