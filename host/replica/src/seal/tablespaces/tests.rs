use std::fs;
use std::os::unix::fs::symlink;

use postgres_formats::written::ControlFile as Written;

use super::*;
use crate::{Directories, TablespaceKey, TablespaceMap};

const FOLDER: &str = "PG_15_202209061";

struct Scene {
    root: tempfile::TempDir,
    directories: Directories,
}

impl Scene {
    /// Returns a scene whose map gives `/old/fast` the directory `fast` and the tablespace 2 the directory `slow`.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for place in ["fast", "slow"] {
            fs::create_dir_all(at(place).join(FOLDER)).unwrap();
        }
        fs::create_dir_all(at("main/pg_tblspc")).unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        let map = vec![
            (TablespaceKey::Location("/old/fast".into()), at("fast")),
            (TablespaceKey::Oid(2), at("slow")),
            (TablespaceKey::Name("again".to_owned()), at("fast")),
        ];
        let directories =
            Directories { datadir: at("main"), wal: None, tablespaces: TablespaceMap::new(map) };
        Self { root, directories }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn map(&self, text: &str) {
        fs::write(self.at("main/tablespace_map"), text).unwrap();
    }

    fn link(&self, oid: u32, to: impl AsRef<Path>) {
        symlink(to, self.at("main/pg_tblspc").join(oid.to_string())).unwrap();
    }

    /// Makes the links, and returns where each leads.
    fn done(&self, planned: &[Tablespace]) -> Result<Vec<(String, PathBuf)>, Problem> {
        let places = Places::opened(&self.directories);
        let control = ControlFile::parse(&Written::in_production(7).bytes).unwrap();
        let tablespaces = judge(&places, planned, &control, 15, &mut Findings::default())?;
        apply(&places.top, &tablespaces, &mut Findings::default())?;
        assert!(!self.at("main/tablespace_map").exists());
        let mut links = Vec::new();
        for entry in fs::read_dir(self.at("main/pg_tblspc")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            links.push((name, fs::read_link(&path).unwrap_or_default()));
        }
        links.sort();
        Ok(links)
    }

    fn real(&self, name: &str) -> PathBuf {
        self.at(name).canonicalize().unwrap()
    }
}

fn planned(oid: u32, name: Option<&str>, location: &str) -> Tablespace {
    Tablespace { oid, name: name.map(str::to_owned), location: location.into() }
}

#[test]
fn the_host_makes_the_links_that_the_map_covers_and_removes_tablespace_map() {
    let scene = Scene::new();
    scene.map("1 /old/fast\n2 /old/slow\n");
    let expected = vec![("1".to_owned(), scene.real("fast")), ("2".to_owned(), scene.real("slow"))];
    assert_eq!(scene.done(&[]).unwrap(), expected);
    assert_eq!(scene.done(&[]).unwrap(), expected, "what it made it keeps");
}

#[test]
fn tablespaces_of_the_plan_get_their_links_and_names_count_by_object_identifier() {
    let scene = Scene::new();
    assert_eq!(
        scene.done(&[planned(2, None, "/old/slow"), planned(1, None, "/old/fast")]).unwrap(),
        [("1".to_owned(), scene.real("fast")), ("2".to_owned(), scene.real("slow"))]
    );
    let scene = Scene::new();
    scene.map("9 /somewhere\n");
    let named = planned(9, Some("again"), "/whatever");
    assert_eq!(scene.done(&[named]).unwrap(), [("9".to_owned(), scene.real("fast"))]);
}

#[test]
fn rule_30_a_tablespace_outside_the_map_is_refused_with_the_line_that_would_allow_it() {
    let scene = Scene::new();
    scene.map("1 /etc\n");
    let message = scene.done(&[]).unwrap_err().message;
    assert!(message.contains("tablespaces = { \"/etc\" ="), "{message}");
    let scene = Scene::new();
    assert!(scene.done(&[planned(1, None, "/etc")]).is_err());
    let scene = Scene::new();
    scene.map("1 /old/fast");
    assert!(scene.done(&[]).unwrap_err().message.contains("cut off"));
}

#[test]
fn links_that_lead_to_their_place_are_kept_or_made_direct() {
    let scene = Scene::new();
    symlink(scene.at("fast"), scene.at("via")).unwrap();
    scene.link(1, "../../via");
    scene.link(2, scene.real("slow"));
    assert_eq!(
        scene.done(&[planned(1, None, "/old/fast")]).unwrap(),
        [("1".to_owned(), scene.real("fast")), ("2".to_owned(), scene.real("slow"))]
    );
}

#[test]
fn rule_30_links_that_lead_elsewhere_are_refused() {
    let cases: [(u32, &str, &[Tablespace]); 4] = [
        // A link that is in neither the map nor the plan, to a directory that is not in the map.
        (7, "elsewhere", &[]),
        // A link to the directory of another tablespace, although the map has an entry for this object identifier.
        (2, "fast", &[]),
        // A link to a directory other than the one that the map gives for its location.
        (1, "slow", &[planned(1, None, "/old/fast")]),
        (1, "elsewhere", &[planned(1, None, "/old/fast")]),
    ];
    for (oid, to, plan) in &cases {
        let scene = Scene::new();
        scene.link(*oid, scene.at(to));
        let problem = scene.done(plan).unwrap_err();
        assert_eq!(problem.check, Some(Rule::Links), "{oid} to {to}");
    }
}

#[test]
fn rule_30_two_tablespaces_in_one_place_are_refused() {
    let scene = Scene::new();
    scene.link(1, scene.at("fast"));
    scene.link(3, scene.at("fast"));
    assert!(scene.done(&[]).unwrap_err().message.contains("both go to"));
}

#[test]
fn a_directory_in_place_of_a_link_is_replaced_only_if_it_is_empty() {
    let scene = Scene::new();
    scene.map("1 /old/fast\n");
    fs::create_dir(scene.at("main/pg_tblspc/1")).unwrap();
    assert_eq!(scene.done(&[]).unwrap(), [("1".to_owned(), scene.real("fast"))]);
    let scene = Scene::new();
    scene.map("1 /old/fast\n");
    fs::create_dir_all(scene.at("main/pg_tblspc/1/PG_15_202209061")).unwrap();
    assert!(scene.done(&[]).unwrap_err().message.contains("holds files"));
}

#[test]
fn rule_30_a_tablespace_whose_folder_was_not_restored_is_refused() {
    let scene = Scene::new();
    scene.map("1 /old/fast\n");
    fs::rename(scene.at("fast").join(FOLDER), scene.at("fast/PG_14_202107181")).unwrap();
    assert!(scene.done(&[]).unwrap_err().message.contains(FOLDER));
    symlink(scene.at("elsewhere"), scene.at("fast").join(FOLDER)).unwrap();
    assert!(scene.done(&[]).unwrap_err().message.contains(FOLDER), "a link is no folder");
}

#[test]
fn a_directory_with_more_entries_than_any_cluster_is_refused() {
    let scene = Scene::new();
    for oid in 0..=MOST {
        fs::write(scene.at("main/pg_tblspc").join(oid.to_string()), "").unwrap();
    }
    assert!(scene.done(&[]).unwrap_err().message.contains("more than"));
}
