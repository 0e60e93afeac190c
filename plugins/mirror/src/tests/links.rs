//! Symbolic links in the copy.

use super::*;

#[test]
fn links_to_granted_directories_are_followed() {
    let scene = Scene::new();
    scene.link("pg_wal", "elsewhere/wal");
    scene.link("pg_tblspc/16384", "elsewhere/fast");
    let location = scene.path("elsewhere/fast").to_str().unwrap().to_owned();
    assert_eq!(scene.plan().0.unwrap().tablespaces[0].location, location);
    scene.assert_copied();
}

#[test]
fn a_tablespace_map_of_the_copy_says_where_tablespaces_were() {
    let scene = Scene::new();
    scene.put("tablespace_map", "16384 /originally/here\n");
    assert_eq!(scene.plan().0.unwrap().tablespaces[0].location, "/originally/here");
    scene.assert_copied();
    assert!(!scene.path("data/tablespace_map").exists());
}

#[test]
fn links_out_of_the_grants_are_named_and_can_be_replaced_by_options() {
    let mut scene = Scene::new();
    scene.link("pg_wal", "outside/wal");
    let refusal = scene.refusal();
    assert!(refusal.contains("pg_wal is a link") && refusal.contains("option `wal`"), "{refusal}");
    fs::rename(scene.path("outside/wal"), scene.path("elsewhere/wal")).unwrap();
    fs::remove_file(scene.path("copy/pg_wal")).unwrap();
    symlink(scene.path("elsewhere/wal"), scene.path("copy/pg_wal")).unwrap();
    scene.request = scene.request.clone().with("wal", scene.path("elsewhere/wal").to_str().unwrap());

    scene.link("pg_tblspc/16384", "outside/fast");
    let refusal = scene.refusal();
    assert!(
        refusal.contains("tablespace 16384") && refusal.contains("`tablespaces = [\"16384=/path\"]`"),
        "{refusal}"
    );
    fs::rename(scene.path("outside/fast"), scene.path("elsewhere/fast")).unwrap();
    let elsewhere = format!("16384={}", scene.path("elsewhere/fast").display());
    scene.request = scene.request.clone().with("tablespaces", vec![elsewhere]);
    assert_eq!(
        scene.plan().0.unwrap().tablespaces[0].location,
        scene.path("elsewhere/fast").to_str().unwrap()
    );
    fs::remove_file(scene.path("copy/pg_tblspc/16384")).unwrap();
    symlink(scene.path("elsewhere/fast"), scene.path("copy/pg_tblspc/16384")).unwrap();
    scene.assert_copied();
}

#[test]
fn a_link_in_place_of_data_is_an_error() {
    for name in ["base/5/1259", "pg_xact", "global/1262"] {
        let scene = Scene::new();
        let path = scene.path("copy").join(name);
        if path.exists() {
            fs::rename(&path, scene.path("elsewhere/moved")).unwrap();
        }
        symlink(scene.path("elsewhere/moved"), &path).unwrap();
        let refusal = scene.refusal();
        assert!(refusal.contains(&format!("copy/{name} is a link")), "{refusal}");
    }
}

#[test]
fn a_link_to_a_configuration_file_within_the_copy_is_copied_as_the_file() {
    let scene = Scene::new();
    scene.put("etc/hba", "local all all trust");
    scene.put("etc/postgresql.base.conf", "port = 5433");
    fs::create_dir(scene.path("copy/conf.d")).unwrap();
    symlink("etc/hba", scene.path("copy/pg_hba.conf")).unwrap();
    symlink(scene.path("copy/etc/hba"), scene.path("copy/pg_ident.conf")).unwrap();
    symlink("../etc/../etc/postgresql.base.conf", scene.path("copy/conf.d/10.conf")).unwrap();
    symlink("conf.d/10.conf", scene.path("copy/again.conf")).unwrap();
    scene.assert_copied();
    for (name, text) in [
        ("pg_hba.conf", "local all all trust"),
        ("pg_ident.conf", "local all all trust"),
        ("conf.d/10.conf", "port = 5433"),
        ("again.conf", "port = 5433"),
    ] {
        let path = scene.path("data").join(name);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        assert_eq!(fs::read_to_string(path).unwrap(), text, "{name}");
    }
    assert_eq!(warnings(&scene.plan().1), "");
}

#[test]
fn a_link_out_of_the_copy_in_a_circle_or_to_nothing_is_logged_and_not_followed() {
    let scene = Scene::new();
    fs::write(scene.path("outside/secret"), "secret").unwrap();
    scene.put("inside", "x");
    symlink(scene.path("outside"), scene.path("copy/folder")).unwrap();
    for (name, target) in [
        ("pg_hba.conf", scene.path("outside/secret")),
        ("by-folder.conf", "folder/secret".into()),
        ("up.conf", "../outside/secret".into()),
        ("root.conf", "../../../../../../../../../../../../etc/hosts".into()),
        ("circle.conf", "circle.conf".into()),
        ("nothing.conf", "nothing".into()),
        ("conf.d", "base".into()),
    ] {
        symlink(target, scene.path("copy").join(name)).unwrap();
    }
    scene.assert_copied();
    let warnings = warnings(&scene.plan().1);
    for (name, told) in [
        ("pg_hba.conf", "out of the copy"),
        ("by-folder.conf", "out of the copy"),
        ("up.conf", "out of the copy"),
        ("root.conf", "out of the copy"),
        ("circle.conf", "leads nowhere"),
        ("nothing.conf", "leads nowhere"),
        ("conf.d", "to the folder"),
    ] {
        assert!(fs::symlink_metadata(scene.path("data").join(name)).is_err(), "{name}");
        let line = warnings.lines().find(|line| line.contains(&format!("copy/{name}:"))).unwrap();
        assert!(line.contains(told) && line.contains("PostgreSQL reads it"), "{line}");
    }
}
