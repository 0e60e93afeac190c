//! Tests against the SDK's stand-in for the host, which runs real programs.

use std::fs;
use std::path::Path;

use understudy::log::Level;
use understudy::native::{Host, Record};
use understudy::{Context, NeedKind};

use super::*;

/// Returns a request with Patroni's four parameters, as the host makes it.
fn request(datadir: &Path) -> Request {
    let context = Context {
        scope: "batman".to_owned(),
        role: "replica".to_owned(),
        datadir: datadir.to_str().unwrap().to_owned(),
        connstring: "host=10.0.0.1 user=replicator".to_owned(),
    };
    Request::new(Some(context), false, Vec::new()).with("program", "restore")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Runs `create` with a shell as the granted program. The shell runs `script`, in which `$1` and the following are the program's arguments.
fn run_script(request: Request, script: &str) -> (Result<(), Failure>, Record) {
    let request = request.with("arguments", texts(&["-c", script, "sh"]));
    Host::new("/data").program("restore", "/bin/sh").run(|| Command::create(&request, &Plan::default()))
}

#[test]
fn rule_09_patronis_parameters_follow_and_override_the_methods_own() {
    let request = request(Path::new("/data"))
        .with("arguments", texts(&["--stanza=demo", "restore"]))
        .with("parameters", texts(&["retries=2", "scope=other", "url=s3://a/b?c=d", "empty="]));
    assert_eq!(
        arguments::of(&request).unwrap(),
        [
            "--stanza=demo",
            "restore",
            "--retries=2",
            "--url=s3://a/b?c=d",
            "--empty=",
            "--scope=batman",
            "--role=replica",
            "--datadir=/data",
            "--connstring=host=10.0.0.1 user=replicator",
        ]
    );
}

#[test]
fn rule_10_with_no_params_the_program_gets_only_the_methods_own() {
    let request = Request::default()
        .with("program", "restore")
        .with("arguments", texts(&["restore"]))
        .with("parameters", texts(&["scope=other"]));
    assert_eq!(arguments::of(&request).unwrap(), ["restore", "--scope=other"]);
    const { assert!(!Command::NEEDS_PARAMETERS) };
}

#[test]
fn rule_04_without_a_source_the_connection_string_is_empty() {
    let mut request = request(Path::new("/data"));
    request.context.as_mut().unwrap().connstring = String::new();
    assert_eq!(arguments::of(&request).unwrap().last().unwrap(), "--connstring=");
}

#[test]
fn the_plan_refuses_a_parameter_that_patronis_configuration_cannot_have() {
    for (parameters, says) in [
        (&["s3cret"][..], "has no `=`"),
        (&["=s3cret"], "no key"),
        (&["--retries=s3cret"], "begins with `-`"),
        (&["retries=s3cret", "retries=3"], "`retries` twice"),
    ] {
        let request = request(Path::new("/data")).with("parameters", texts(parameters));
        let host = Host::new("/data").program("restore", "/bin/false");
        let (planned, _) = host.run(|| Command::plan(&request));
        let failure = planned.unwrap_err().to_string();
        assert!(failure.contains(says) && !failure.contains("s3cret"), "{failure}");
    }
}

#[test]
fn the_plan_has_no_facts_about_the_backup_and_runs_no_program() {
    let request = request(Path::new("/data"));
    let (plan, record) = Host::new("/data").program("restore", "/bin/false").run(|| Command::plan(&request));
    let expected = Plan { backup: "what the program `restore` restores".to_owned(), ..Plan::default() };
    assert_eq!(plan, Ok(expected));
    assert!(record.programs.is_empty(), "{:?}", record.programs);
    assert!(
        matches!(record.log.as_slice(), [(Level::Info, line)] if line.contains("with the source at the end"))
    );
}

#[test]
fn rule_17a_the_plan_builds_on_old_data_only_if_the_operator_says_so() {
    for says_so in [false, true] {
        let request = request(Path::new("/data")).with("builds-on-existing", says_so);
        let host = Host::new("/data").program("restore", "/bin/false");
        let (plan, _) = host.run(|| Command::plan(&request));
        assert_eq!(plan.unwrap().builds_on_existing, says_so);
    }
}

#[test]
fn rule_12_exit_code_0_of_the_program_is_success() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "for argument; do case $argument in --datadir=*) echo 15 >${argument#*=}/PG_VERSION ;; esac; done";
    let (result, record) = run_script(request(dir.path()), script);
    assert_eq!(result, Ok(()));
    assert_eq!(fs::read_to_string(dir.path().join("PG_VERSION")).unwrap(), "15\n");
    assert_eq!(record.phases, ["running restore"]);
    let [(name, arguments)] = record.programs.as_slice() else { panic!("{:?}", record.programs) };
    assert_eq!((name.as_str(), arguments.len()), ("restore", 3 + 4));
}

#[test]
fn rule_12_a_failure_for_any_other_exit_code_names_the_code_and_the_last_line() {
    for (script, says) in [
        ("echo 'no backup'; echo; exit 3", "the program `restore` exited with code 3: no backup"),
        ("echo to stderr >&2; exit 1", "the program `restore` exited with code 1: to stderr"),
        ("exit 255", "the program `restore` exited with code 255: it printed nothing"),
        (r"printf 'bin\377ary\n'; exit 2", "the program `restore` exited with code 2: bin\u{fffd}ary"),
    ] {
        let (result, _) = run_script(request(Path::new("/data")), script);
        assert_eq!(result, Err(Failure::failed(says)));
    }
}

#[test]
fn a_signal_is_a_failure_with_its_number() {
    let (result, _) = run_script(request(Path::new("/data")), "echo working; kill -9 $$");
    assert_eq!(result, Err(Failure::failed("the program `restore` was ended by signal 9: working")));
}

#[test]
fn a_long_last_line_is_cut() {
    let script = "head -c 100000 /dev/zero | tr '\\0' x; exit 1";
    let (result, _) = run_script(request(Path::new("/data")), script);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("exited with code 1: xxx") && message.len() < 1000, "{}", message.len());
}

#[test]
fn a_missing_grant_and_a_cancelled_run_are_distinct_failures() {
    let request = request(Path::new("/data"));
    let (results, _) = Host::new("/data")
        .run(|| (Command::plan(&request).map(drop), Command::create(&request, &Plan::default())));
    for result in [results.0, results.1] {
        assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("denied")));
    }
    let host = Host::new("/data").program("restore", "/bin/true").cancel_after(0);
    let (result, _) = host.run(|| Command::create(&request, &Plan::default()));
    assert_eq!(result, Err(Failure::Cancelled));
}

#[test]
fn the_option_program_names_the_program_that_the_method_needs() {
    let description = Command::describe();
    let need = &description.needs[0];
    assert_eq!((need.kind, need.required), (NeedKind::Program, true));
    let option = description.options.iter().find(|option| option.name == need.name).unwrap();
    assert!(option.required);
}
