//! Step 3, the source above all: a plan that is not of its cluster, and a source that cannot be asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::Secret;
use replica::datadir::Contents;
use replica::source::{Conninfo, SourceConfig, SourceError};
use replica::{Bytes, ListedMethod, Plan, Rule, RunResult, Source, Tablespace};
use tests::server::{BIN_DIR, Playground, PostgresServer, REPLICATOR_PASSWORD};
use tokio_util::sync::CancellationToken;

use crate::place::*;

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_plan_of_another_cluster_timeline_or_version_leaves_the_old_data() {
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
        let place = Place::with_old_data().with_source(Ok(facts()));
        let report = place.run(&[candidate(never("a").planning(plan))]).await;
        assert_eq!(outcomes(&report), [("a", "rejected")], "{rule}");
        assert_eq!(report.attempts[0].rule.map(Rule::word), Some(rule));
        assert!(place.has("global/pg_control") && place.has("base/old"), "{rule}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_source_that_cannot_be_asked_is_for_later_where_the_method_needs_it() {
    let gone = || Err(SourceError::transient("connection refused"));
    let place = Place::with_old_data().with_source(gone());
    let needs = |name| ListedMethod { no_leader: false, ..candidate(never(name)) };
    let report = place.run(&[needs("a"), needs("b")]).await;
    assert_eq!(outcomes(&report), [("a", "retry-later"), ("b", "retry-later")]);
    assert_eq!(report.result.exit_code(), 75);
    assert!(place.has("global/pg_control"));

    let place = Place::with_old_data().with_source(gone());
    let report = place.run(&[needs("a"), candidate(restores("archive"))]).await;
    assert_eq!(report.result, RunResult::Created);
    assert!(report.attempts[1].findings.iter().any(|finding| finding.check == Rule::Source));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_source_that_answers_again_is_compared_with_the_plan() {
    let playground = Playground::new("loop").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let config = SourceConfig {
        conninfo: Conninfo::parse(&server.conninfo()).unwrap(),
        password: Some(Secret::new(REPLICATOR_PASSWORD)),
        passfile: None,
    };
    let mut place = Place::with_old_data();
    let cancel = CancellationToken::new();
    let source = Source::connect(&config, Path::new(BIN_DIR), &place.root.path().join("run"), &cancel).await;
    let restarting = Err(SourceError::transient("the database system is starting up"));
    place.job.source = Some(Arc::new(Source { facts: restarting, ..source.unwrap() }));

    let another_cluster = Plan { system_identifier: Some(OTHER_CLUSTER), ..Plan::default() };
    let needs = ListedMethod { no_leader: false, ..candidate(never("a").planning(another_cluster)) };
    let report = place.run(&[needs]).await;
    assert_eq!(report.attempts[0].rule, Some(Rule::SystemIdentifier), "{:?}", report.attempts);
    assert!(place.has("global/pg_control"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_25_another_clusters_data_goes_only_with_force_whoever_says_which_cluster_comes() {
    // The source says it: no method is tried.
    let mut place = Place::with_data_of(OTHER_CLUSTER).with_source(Ok(facts()));
    let report = place.run(&[candidate(never("a"))]).await;
    assert_eq!((report.result.exit_code(), report.attempts.len()), (3, 0));
    let message = report.message.unwrap();
    assert!(message.contains("--force") && message.contains(&OTHER_CLUSTER.to_string()), "{message}");
    assert!(place.has("global/pg_control") && place.has("base/old"));
    place.job.force = true;
    let report = place.run(&[candidate(restores("a"))]).await;
    assert_eq!(report.result, RunResult::Created);
    let told = &report.attempts[0].findings;
    assert!(
        told.iter().any(|one| one.check == Rule::OldData && one.message.contains("--force was given")),
        "{told:?}"
    );

    // The plan says it, where there is no source.
    let place = Place::with_data_of(OTHER_CLUSTER);
    let plan = || Plan { system_identifier: Some(CLUSTER), ..Plan::default() };
    let report = place.run(&[candidate(never("a").planning(plan()))]).await;
    assert_eq!(outcomes(&report), [("a", "rejected")]);
    assert_eq!(report.attempts[0].rule, Some(Rule::AnotherCluster));
    assert_eq!(report.result.exit_code(), 3);
    assert!(place.has("global/pg_control") && place.has("base/old"));

    // Nobody says it: the two are not compared, which is told.
    let report = place.run(&[candidate(restores("a"))]).await;
    assert_eq!(report.result, RunResult::Created);
    let told = &report.attempts[0].findings;
    assert!(
        told.iter().any(|one| one.check == Rule::OldData && one.message.contains("not compared")),
        "{told:?}"
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_25_unfinished_work_is_no_clusters() {
    let place = Place::new().with_source(Ok(facts()));
    let keeps = keeping_data(fails("a").planning(delta()));
    assert_eq!(place.run(&[keeps]).await.result.exit_code(), 1);
    assert_eq!(place.contents(), Contents::Unfinished);
    let report = place.run(&[candidate(restores("b"))]).await;
    assert_eq!(report.result, RunResult::Created);
    assert!(report.attempts[0].findings.iter().all(|one| one.check != Rule::OldData));
}
