//! Tests for the limits on sizes and numbers.

use super::*;

#[test]
fn the_numbers_of_backups_and_clusters_are_bounded() {
    let lines = |count: usize, line: fn(usize) -> String| (1..=count).map(line).collect::<String>();
    for (section, lines, what) in [
        (
            "backup:current",
            lines(20_001, |number| {
                format!("20261126-{number:06}F={{\"backup-timestamp-stop\":1,\"db-id\":1}}\n")
            }),
            "one too many: at most 20000 backups",
        ),
        (
            "db:history",
            lines(1001, |number| format!("{number}={{\"db-system-id\":1,\"db-version\":\"15\"}}\n")),
            "one too many: at most 1000 clusters",
        ),
    ] {
        let scene = Scene::new();
        scene.put("backup/main/backup.info", sealed(&format!("[{section}]\n{lines}")));
        let refusal = scene.refusal();
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn the_numbers_of_links_and_tablespaces_are_bounded() {
    let scene = Scene::new();
    let links: String = (10_000..11_000)
        .map(|number| format!("pg_data/l{number}={{\"path\":\"/l\",\"type\":\"link\"}}\n"))
        .collect();
    scene.edit_manifest("pg_tblspc/16384={\"path\"", &format!("{links}pg_tblspc/16384={{\"path\""));
    let refusal = scene.refusal();
    assert!(refusal.contains("one too many: at most 1000 links"), "{refusal}");
    let scene = Scene::new();
    let files: String =
        (20_000..21_000).map(|oid| format!("pg_tblspc/{oid}/a={{\"size\":0,\"timestamp\":1}}\n")).collect();
    scene.edit_manifest("\n[target:file:default]", &format!("{files}\n[target:file:default]"));
    let refusal = scene.refusal();
    assert!(refusal.contains("more than 1000 tablespaces"), "{refusal}");
}

#[test]
fn the_target_of_a_link_and_the_name_of_a_tablespace_are_bounded() {
    for (from, to, what) in [
        (
            "\"/srv/fast\"",
            format!("\"/{}\"", "f".repeat(4096)),
            "an empty path, or to one of more than 4096 bytes",
        ),
        ("\"fast\"", format!("\"{}\"", "f".repeat(64)), "name has more than 63 bytes"),
    ] {
        let scene = Scene::new();
        let refusal = scene.edit_manifest(from, &to).refusal();
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn texts_of_a_repository_are_cut_in_messages() {
    let long = "y".repeat(4000);
    let scene = Scene::new();
    scene.edit_manifest(
        "pg_tblspc/16384={\"path\"",
        &format!("pg_data/log={{\"path\":\"/{long}\",\"type\":\"link\"}}\npg_tblspc/16384={{\"path\""),
    );
    let warnings = warnings(&scene.plan_of(&scene.request()).1);
    assert!(warnings.contains("log was a link to /yyy") && warnings.len() < 300, "{warnings}");
    scene.edit_manifest("backup-archive-stop=\"", &format!("backup-archive-stop=\"{long}"));
    let refusal = scene.refusal();
    assert!(refusal.contains("ends with `yyy") && refusal.len() < 400, "{refusal}");
    scene.put("backup/main/backup.info", sealed(&format!("[backup:current]\n20261126-043406F=\"{long}\"\n")));
    let refusal = scene.refusal();
    assert!(refusal.contains("is not what it should be") && refusal.len() < 400, "{refusal}");
}

#[test]
fn the_number_of_objects_in_a_folder_of_the_archive_is_bounded() {
    let scene = Scene::new();
    for number in 0..20_000 {
        scene.put(&format!("archive/main/15-1/0000000100000000/{number}"), "");
    }
    let refusal = scene.refusal();
    assert!(refusal.contains("more than 20000 objects"), "{refusal}");
}

#[test]
fn the_number_of_segments_is_bounded() {
    let scene = Scene::new();
    let segments: String = (0x40..0x40 + 100_001)
        .map(|number| {
            let (upper, lower) = (number / 4096, number % 4096);
            format!("pg_data/pg_wal/00000001{upper:08X}{lower:08X}={{\"size\":0,\"timestamp\":1}}\n")
        })
        .collect();
    scene.edit_manifest("pg_data/tablespace_map=", &format!("{segments}pg_data/tablespace_map="));
    let from = "backup-archive-stop=\"000000010000000000000040\"";
    scene.edit_manifest(from, "backup-archive-stop=\"0000000100000FFF00000000\"");
    let refusal = scene.refusal();
    assert!(refusal.contains("more than 100000 segments"), "{refusal}");
}

#[test]
fn the_number_of_names_is_bounded() {
    let scene = Scene::new();
    let lines: String = (0..200_000).map(|number| format!("{number}=1\n")).collect();
    scene.put("backup/main/backup.info", format!("[a]\n{lines}"));
    let refusal = scene.refusal();
    assert!(refusal.contains("line 200001 is one too many: at most 200000 names are allowed"), "{refusal}");
}
