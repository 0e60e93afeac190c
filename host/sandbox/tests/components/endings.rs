//! How a component ends, and which outcome the attempt gets.

use replica::{Level, Lsn, Outcome};
use sandbox::OptionValue;

use crate::stage::{Stage, text};

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn each_end_has_its_outcome() {
    for (behave, outcome, says) in [
        ("fail", Outcome::Failed, "the method fails"),
        ("retry-later", Outcome::RetryLater, "tried later"),
        ("not-applicable", Outcome::NotApplicable, "finds nothing"),
        ("trap", Outcome::Trapped, "trapped"),
        ("panic", Outcome::Trapped, "the method panicked: the method panics ("),
        ("exit", Outcome::Failed, "exit status 0"),
        ("recursion", Outcome::Trapped, "trapped: "),
        ("memory", Outcome::OutOfMemory, "only 268435456 are granted"),
    ] {
        for stage in [Stage::hostile(behave), Stage::hostile(behave).in_plan()] {
            let message = stage.fails(outcome).await;
            assert!(message.contains(says), "{behave}: {message}");
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_panic_is_found_in_the_log() {
    let stage = Stage::hostile("panic");
    let message = stage.fails(Outcome::Trapped).await;
    assert!(message.starts_with("the method panicked: the method panics"), "the panic is first: {message}");
    assert!(!message.contains("unreachable"), "{message}");
    let trap = Stage::hostile("trap").fails(Outcome::Trapped).await;
    assert!(trap.contains(" (in "), "the message says where: {trap}");
    assert!(
        stage
            .lines()
            .iter()
            .any(|(origin, _, line)| origin == "stderr" && line.contains("the method panics"))
    );
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_long_reason_is_cut_and_terminal_escapes_are_filtered() {
    assert!(Stage::hostile("fail-at-length").fails(Outcome::Failed).await.len() < 20_000);
    let stage = Stage::hostile("terminal");
    let message = stage.fails(Outcome::Failed).await;
    let reported: Vec<_> = stage.lines().into_iter().map(|(_, _, line)| line).chain([message]).collect();
    assert!(reported.iter().filter(|line| line.contains("owned")).count() >= 4, "{reported:?}");
    for line in reported {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn memory_is_bounded_by_the_grant() {
    let stage = Stage::hostile("memory").grant(|grants| grants.memory = replica::Bytes(32 << 20));
    assert!(stage.fails(Outcome::OutOfMemory).await.contains("only 33554432 are granted"));
    // Less than the initial memory of the component.
    let stage = Stage::hostile("nothing").grant(|grants| grants.memory = replica::Bytes(1 << 16));
    stage.fails(Outcome::OutOfMemory).await;
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_plan_is_what_the_component_says() {
    let stage = Stage::hostile("nothing")
        .option("system-identifier", text("7301234567890123456"))
        .option("timeline", OptionValue::Integer(3))
        .option("tablespaces", OptionValue::Texts(vec!["16384=/srv/fast".to_owned()]))
        .option("builds-on-existing", OptionValue::Flag(true));
    let plan = stage.plan().await.unwrap();
    assert_eq!(plan.backup, "hostile");
    assert_eq!(plan.system_identifier, Some(7_301_234_567_890_123_456));
    assert_eq!(plan.timeline, Some(3));
    assert_eq!(plan.tablespaces[0].location.to_str(), Some("/srv/fast"));
    assert_eq!(plan.start_lsn.unwrap_or(Lsn(0)), plan.start_lsn.unwrap_or_default());
    assert!(plan.builds_on_existing);
    stage.create().await.unwrap();
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn an_invalid_plan_is_rejected() {
    for (name, value, says) in [
        ("timeline", OptionValue::Integer(0), "timeline is 0"),
        ("backup", text(""), "backup's name"),
        (
            "tablespaces",
            OptionValue::Texts(vec!["5=/a".to_owned(), "5=/b".to_owned()]),
            "identifier 5 of a tablespace",
        ),
        ("tablespaces", OptionValue::Texts(vec!["5=a".to_owned()]), "absolute path"),
    ] {
        let failure = Stage::hostile("nothing").option(name, value).plan().await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::Rejected, "{failure}");
        assert!(failure.message.contains(says), "{failure}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_log_says_which_landlock_abi_is_enforced() {
    let stage = Stage::hostile("nothing");
    stage.plan().await.unwrap();
    let (_, level, _) = stage.lines().into_iter().find(|(_, _, line)| line.contains("Landlock")).unwrap();
    assert_eq!(level, Level::Debug);
}
