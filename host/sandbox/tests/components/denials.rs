//! What no grant covers is denied, and the denial is reported with the line that would allow it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use replica::Outcome;
use sandbox::Secret;

use crate::stage::{Stage, redactor, text};

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn reading_a_file_elsewhere_is_denied_and_no_remedy_grants_more_than_was_requested() {
    let stage = Stage::hostile("read-outside");
    let outside = stage.directory("outside");
    let granted = stage.directory("granted");
    let secret = outside.join("secret");
    fs::write(&secret, "secret").unwrap();
    let stage = stage.path(&secret).grant(|grants| grants.read.push(granted.clone()));
    let message = stage.fails(Outcome::Denied).await;
    let denials = stage.denials();
    assert_eq!(denials.len(), 1, "{denials:?}");
    let what = format!("{} (not a directory, and `read` grants only directories)", secret.display());
    assert_eq!((denials[0].capability.word(), denials[0].what.as_str()), ("read", what.as_str()));
    assert_eq!(denials[0].remedy, None, "its directory is more than the component asked for");
    assert!(message.contains("ermission denied"), "the component gets EACCES: {message}");

    for (asked, remedy) in [
        (outside.as_path(), Some(format!(r#"[method.hostile.grants] read = ["{}"]"#, outside.display()))),
        (Path::new("/"), None),
        (Path::new("/etc/passwd"), None),
        (outside.join("absent").as_path(), None),
    ] {
        let stage = Stage::hostile("read-outside").path(asked);
        stage.fails(Outcome::Denied).await;
        let denials = stage.denials();
        assert_eq!(denials[0].remedy, remedy, "{}: {denials:?}", asked.display());
    }

    // A grant of the directory allows it; the component then reports the read as an escape.
    let stage = stage.grant(|grants| grants.read.push(outside));
    assert!(stage.create().await.unwrap_err().message.contains("ESCAPED"));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn writing_elsewhere_is_denied_and_nothing_would_allow_it() {
    let stage = Stage::hostile("write-outside");
    let target = stage.directory("outside").join("file");
    let stage = stage.path(&target);
    stage.fails(Outcome::Denied).await;
    assert!(!target.exists());
    let denials = stage.denials();
    assert_eq!((denials[0].capability.word(), denials[0].what.as_str()), ("write", target.to_str().unwrap()));
    assert_eq!(denials[0].remedy, None);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_directory_that_does_not_exist_is_not_found_rather_than_denied() {
    let stage = Stage::hostile("read-outside");
    let absent = PathBuf::from("/understudy-test-absent");
    let stage = stage.path(&absent.join("backup")).grant(|grants| grants.read.push(absent));
    let message = stage.fails(Outcome::Failed).await;
    assert!(message.contains("o such file"), "{message}");
    assert_eq!(stage.denials(), []);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn there_is_no_environment_no_argument_and_no_input() {
    let stage = Stage::hostile("environment");
    let message = stage.fails(Outcome::Failed).await;
    assert!(message.contains("all are empty"), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_environment_has_the_granted_variables_and_no_others() {
    for stage in [Stage::hostile("environment"), Stage::hostile("environment").in_plan()] {
        let stage = stage.grant(|grants| grants.environment.set("BACKUP_REGION", "eu 1").unwrap());
        let message = stage.create().await.unwrap_err().message;
        assert!(message.contains(r#"saw ["BACKUP_REGION=eu 1"] [] and 0 bytes"#), "{message}");
        assert_eq!(stage.denials(), []);
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_variable_that_holds_a_secret_is_refused_before_the_component_runs() {
    redactor().add(&Secret::new("the-s3cret-of-another-method")).unwrap();
    let value = "https://host/the-s3cret-of-another-method";
    let stage = Stage::hostile("environment").grant(|grants| grants.environment.set("URL", value).unwrap());
    let refusal = stage.preflight().await.unwrap_err();
    assert!(refusal.policy && refusal.message.contains("`environment.URL` holds a secret"), "{refusal}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn there_is_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stage = Stage::hostile("network").option("address", text(&address));
    stage.fails(Outcome::Denied).await;
    assert!(listener.accept().is_err());
    let denied: Vec<_> =
        stage.denials().into_iter().map(|denial| (denial.capability.word(), denial.what)).collect();
    let network = |what: &str| ("network", what.to_owned());
    assert_eq!(
        denied,
        [
            network(&address),
            network("to bind a TCP socket to an address"),
            network("a UDP socket"),
            network("the address of localhost")
        ]
    );
    let remedies: Vec<_> = stage.denials().into_iter().filter_map(|denial| denial.remedy).collect();
    let line = |server: &str| format!("[method.hostile.grants] network = [\"{server}\"]");
    assert_eq!(remedies, [line(&address), line("localhost:PORT")]);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn interfaces_that_need_a_grant_answer_denied() {
    let stage = Stage::hostile("ungranted");
    let message = stage.fails(Outcome::Denied).await;
    assert_eq!(message.matches("Denied").count(), 4, "{message}");
    let denied: Vec<_> =
        stage.denials().into_iter().map(|denial| (denial.capability.word(), denial.what)).collect();
    for expected in [
        ("key", "the key key"),
        ("store", "the store repo"),
        ("program", "the program sh"),
        ("write", "the setting restore_command in postgresql.auto.conf"),
    ] {
        assert!(denied.contains(&(expected.0, expected.1.to_owned())), "{expected:?} in {denied:?}");
    }
}
