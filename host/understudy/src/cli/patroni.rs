//! Patroni's calling convention: Patroni appends every key of a method's section as `--key=value` (`Bootstrap.create_replica` in
//! Patroni). So a `--key=value` that is not a flag of this program is an option of a method, and the arguments may contain keys that only
//! Patroni uses (rule 7).

use std::ffi::OsString;

use clap::{Args, Command};

/// Patroni's own keys, which Patroni passes on a method's command line. The program accepts them with any value and ignores them, because
/// the configuration file has settings with the same names.
#[derive(Debug, Args)]
pub struct Ignored {
    #[arg(long = "keep_data", hide = true, num_args = 0..=1, require_equals = true, value_name = "IGNORED")]
    keep_data: Option<Option<String>>,
    #[arg(long = "no_leader", hide = true, num_args = 0..=1, require_equals = true, value_name = "IGNORED")]
    no_leader: Option<Option<String>>,
    #[arg(long = "no_master", hide = true, num_args = 0..=1, require_equals = true, value_name = "IGNORED")]
    no_master: Option<Option<String>>,
    #[arg(long = "no_params", hide = true, num_args = 0..=1, require_equals = true, value_name = "IGNORED")]
    no_params: Option<Option<String>>,
}

/// The verbs that take arguments by Patroni's convention.
const VERBS: [&str; 2] = ["create", "check"];

/// Splits the arguments into those of the program and every `--key=value` whose key is not a flag of the verb.
pub fn split(
    program: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> (Vec<OsString>, Vec<(String, String)>) {
    let mut arguments = arguments.into_iter();
    let mut ours: Vec<OsString> = arguments.by_ref().take(1).collect();
    let mut further = Vec::new();
    let mut verb: Option<&Command> = None;
    let mut only_values = false;
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        only_values |= text == "--";
        if verb.is_none() && !text.starts_with('-') {
            verb = program.find_subcommand(text).filter(|_| VERBS.contains(&text));
        }
        let option = verb.filter(|_| !only_values).and_then(|verb| {
            let (key, value) = text.strip_prefix("--")?.split_once('=')?;
            let ours = key.is_empty() || verb.get_arguments().any(|flag| flag.get_long() == Some(key));
            (!ours).then(|| (key.to_owned(), value.to_owned()))
        });
        match option {
            Some(option) => further.push(option),
            None => ours.push(argument),
        }
    }
    (ours, further)
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, CreateArgs, JobArgs, Verb};

    fn create(arguments: &[&str]) -> Result<JobArgs, clap::Error> {
        let arguments = ["understudy", "create"].iter().chain(arguments).map(Into::into);
        match Cli::read(arguments)?.verb {
            Verb::Create(CreateArgs { job, .. }) => Ok(job),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_flags_that_patroni_passes_are_parsed() {
        let job = create(&[
            "--config",
            "/etc/u.toml",
            "--scope=batman",
            "--role=replica",
            "--datadir=/data",
            "--connstring=host=10.0.0.1 user='a b'",
        ])
        .unwrap();
        assert_eq!(job.scope.as_deref(), Some("batman"));
        assert_eq!(job.datadir.as_deref(), Some("/data".as_ref()));
        assert_eq!(job.connstring.as_deref(), Some("host=10.0.0.1 user='a b'"));
        assert!(job.further.is_empty());
    }

    #[test]
    fn rule_04_an_empty_connstring_stays_an_empty_string() {
        assert_eq!(create(&["--connstring="]).unwrap().connstring.as_deref(), Some(""));
        assert_eq!(create(&[]).unwrap().connstring, None);
    }

    #[test]
    fn rule_07_patronis_own_keys_are_accepted_with_any_value_and_ignored() {
        for key in ["keep_data", "no_leader", "no_master", "no_params"] {
            for value in ["=True", "=1", "=", "=false", "=on", ""] {
                let job = create(&[&format!("--{key}{value}")]).unwrap();
                assert!(job.further.is_empty(), "--{key}{value}");
            }
        }
    }

    #[test]
    fn any_other_key_and_value_is_an_option_of_a_method() {
        type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)]);
        let cases: [Case<'_>; 5] = [
            (&["--stanza=main"], &[("stanza", "main")]),
            (&["--a=b=c", "--scope=x", "--empty="], &[("a", "b=c"), ("empty", "")]),
            (&["--keep-data=True"], &[("keep-data", "True")]),
            (&["--datadirs=/x"], &[("datadirs", "/x")]),
            (&["--datadir=/x"], &[]),
        ];
        for (arguments, expected) in cases {
            let further = create(arguments).unwrap().further;
            let further: Vec<_> = further.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(further, expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_flag_wins_because_patroni_appends() {
        assert_eq!(create(&["--scope=old", "--scope=new"]).unwrap().scope.as_deref(), Some("new"));
    }

    #[test]
    fn usage_errors_have_exit_code_2() {
        for arguments in
            [&["--role=primary"][..], &["--stanza"], &["stray"], &["--timeout=never"], &["--progress=loud"]]
        {
            let error = create(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn inspect_takes_no_options_of_methods() {
        let arguments = ["understudy", "inspect", "x.wasm", "--stanza=main"].map(Into::into);
        assert_eq!(Cli::read(arguments).unwrap_err().exit_code(), 2);
    }
}
