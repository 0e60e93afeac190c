//! Step 3, accept: plans for a cluster other than the source's, and sources that cannot be queried.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::Secret;
use replica::datadir::Contents;
use replica::source::{Conninfo, SourceConfig, SourceError};
use replica::{Bytes, ListedMethod, Plan, Rule, RunResult, Source, Tablespace};
use tests::server::{BIN_DIR, Playground, PostgresServer, REPLICATOR_PASSWORD};
use tokio_util::sync::CancellationToken;

use crate::setup::*;

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_plan_of_another_cluster_timeline_or_version_is_rejected_and_old_data_stays() {
    let wrong = [
        ("system identifier", Plan { system_identifier: Some(OTHER_CLUSTER), ..Plan::default() }),
        ("timeline", Plan { timeline: Some(9), ..Plan::default() }),
        ("major version", Plan { postgresql_major: Some(16), ..Plan::default() }),
        ("space", Plan { bytes: Some(Bytes(u64::MAX)), ..Plan::default() }),
        (
            "tablespaces",
            Plan {
                tablespaces: vec![Tablespace {
                    oid: 16384,
                    name: None,
                    location: PathBuf::from("/old/fast"),
                }],
                ..Plan::default()
            },
        ),
    ];
    for (rule, plan) in wrong {
        let setup = LoopSetup::with_old_data().with_source(Ok(facts()));
        let report = setup.run(&[candidate(never("a").planning(plan))]).await;
        assert_eq!(outcomes(&report), [("a", "rejected")], "{rule}");
        assert_eq!(report.attempts[0].rule.map(Rule::word), Some(rule));
        assert!(setup.has("global/pg_control") && setup.has("base/old"), "{rule}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn an_unreachable_source_is_retry_later_for_a_method_that_needs_it() {
    let gone = || Err(SourceError::transient("connection refused"));
    let setup = LoopSetup::with_old_data().with_source(gone());
    let needs = |name| ListedMethod { no_leader: false, ..candidate(never(name)) };
    let report = setup.run(&[needs("a"), needs("b")]).await;
    assert_eq!(outcomes(&report), [("a", "retry-later"), ("b", "retry-later")]);
    assert_eq!(report.result.exit_code(), 75);
    assert!(setup.has("global/pg_control"));

    let setup = LoopSetup::with_old_data().with_source(gone());
    let report = setup.run(&[needs("a"), candidate(restores("archive"))]).await;
    assert_eq!(report.result, RunResult::Created);
    assert!(report.attempts[1].findings.iter().any(|finding| finding.check == Rule::Source));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_plan_is_compared_with_a_source_that_answers_again() {
    let playground = Playground::new("loop").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let config = SourceConfig {
        conninfo: Conninfo::parse(&server.conninfo()).unwrap(),
        password: Some(Secret::new(REPLICATOR_PASSWORD)),
        passfile: None,
    };
    let mut setup = LoopSetup::with_old_data();
    let cancel = CancellationToken::new();
    let source = Source::connect(&config, Path::new(BIN_DIR), &setup.root.path().join("run"), &cancel).await;
    let restarting = Err(SourceError::transient("the database system is starting up"));
    setup.job.source = Some(Arc::new(Source { facts: restarting, ..source.unwrap() }));

    let another_cluster = Plan { system_identifier: Some(OTHER_CLUSTER), ..Plan::default() };
    let needs = ListedMethod { no_leader: false, ..candidate(never("a").planning(another_cluster)) };
    let report = setup.run(&[needs]).await;
    assert_eq!(report.attempts[0].rule, Some(Rule::SystemIdentifier), "{:?}", report.attempts);
    assert!(setup.has("global/pg_control"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_25_data_of_another_cluster_is_removed_only_with_force() {
    // The source names the cluster, so no method is tried.
    let mut setup = LoopSetup::with_data_of(OTHER_CLUSTER).with_source(Ok(facts()));
    let report = setup.run(&[candidate(never("a"))]).await;
    assert_eq!((report.result.exit_code(), report.attempts.len()), (3, 0));
    let message = report.message.unwrap();
    assert!(message.contains("--force") && message.contains(&OTHER_CLUSTER.to_string()), "{message}");
    assert!(setup.has("global/pg_control") && setup.has("base/old"));
    setup.job.force = true;
    let report = setup.run(&[candidate(restores("a"))]).await;
    assert_eq!(report.result, RunResult::Created);
    let findings = &report.attempts[0].findings;
    assert!(
        findings.iter().any(|one| one.check == Rule::OldData && one.message.contains("--force was given")),
        "{findings:?}"
    );

    // Without a source the plan names the cluster.
    let setup = LoopSetup::with_data_of(OTHER_CLUSTER);
    let plan = || Plan { system_identifier: Some(CLUSTER), ..Plan::default() };
    let report = setup.run(&[candidate(never("a").planning(plan()))]).await;
    assert_eq!(outcomes(&report), [("a", "rejected")]);
    assert_eq!(report.attempts[0].rule, Some(Rule::AnotherCluster));
    assert_eq!(report.result.exit_code(), 3);
    assert!(setup.has("global/pg_control") && setup.has("base/old"));

    // Neither the source nor the plan names the cluster: the identifiers are not compared, and a finding says so.
    let report = setup.run(&[candidate(restores("a"))]).await;
    assert_eq!(report.result, RunResult::Created);
    let findings = &report.attempts[0].findings;
    assert!(
        findings.iter().any(|one| one.check == Rule::OldData && one.message.contains("not compared")),
        "{findings:?}"
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_25_unfinished_data_counts_as_data_of_no_cluster() {
    let setup = LoopSetup::new().with_source(Ok(facts()));
    let keeps = with_keep_data(fails("a").planning(plan_on_old_data()));
    assert_eq!(setup.run(&[keeps]).await.result.exit_code(), 1);
    assert_eq!(setup.contents(), Contents::Unfinished);
    let report = setup.run(&[candidate(restores("b"))]).await;
    assert_eq!(report.result, RunResult::Created);
    assert!(report.attempts[0].findings.iter().all(|one| one.check != Rule::OldData));
}
