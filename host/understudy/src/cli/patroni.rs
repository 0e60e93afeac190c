//! Patroni's calling convention: it appends every key of a method's section as `--key=value` (Patroni's
//! `Bootstrap.create_replica`), so what is no flag of this program is an option of a method, and the keys that Patroni keeps
//! for itself may come along (semantics rule 7).

use std::ffi::OsString;

use clap::{Args, Command};

/// Keys of Patroni's own that reach a method's command line. The configuration file has their counterparts; what
/// Patroni passes is accepted, whatever Python made of its value, and ignored.
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

/// The verbs that Patroni's convention holds for.
const VERBS: [&str; 2] = ["create", "check"];

/// Takes every `--key=value` out of the arguments whose key is no flag of the verb.
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
    fn what_patroni_passes_to_a_method_is_understood() {
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
    fn rule_04_an_empty_connstring_is_kept_as_empty() {
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
    fn a_flag_that_is_repeated_counts_last_because_patroni_appends() {
        assert_eq!(create(&["--scope=old", "--scope=new"]).unwrap().scope.as_deref(), Some("new"));
    }

    #[test]
    fn usage_errors_stay_usage_errors() {
        for arguments in
            [&["--role=primary"][..], &["--stanza"], &["stray"], &["--timeout=never"], &["--progress=loud"]]
        {
            let error = create(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn other_verbs_take_no_options_of_methods() {
        let arguments = ["understudy", "inspect", "x.wasm", "--stanza=main"].map(Into::into);
        assert_eq!(Cli::read(arguments).unwrap_err().exit_code(), 2);
    }
}
