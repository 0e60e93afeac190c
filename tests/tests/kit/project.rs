//! The project that `understudy new` writes: its own tests pass, and its method creates a replica from a backup in its format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::guest::Package;
use tests::primary::Primary;
use tests::program::{project, understudy};
use tests::server::run;

const NAME: &str = "acme-restore";

/// A project that `understudy new` wrote into the playground of a primary, and its component.
struct NewProject {
    folder: PathBuf,
    package: Package,
    component: PathBuf,
}

impl NewProject {
    fn new(primary: &Primary) -> Self {
        let mut new = Command::new(understudy().unwrap());
        new.args(["new", NAME, "--sdk"]).arg(project()).current_dir(primary.playground.path(""));
        run(&mut new).unwrap();
        let folder = primary.playground.path(NAME);
        let lock = project().join("host/understudy/templates/rust/Cargo.lock");
        let package = Package::new(&folder, &lock).unwrap();
        // The server's user may not be able to read the checkout.
        let component = primary.playground.path("acme-restore.wasm");
        fs::copy(package.component("acme_restore").unwrap(), &component).unwrap();
        primary.playground.user().own(&component).unwrap();
        Self { folder, package, component }
    }

    /// Returns a command that runs one of the project's scripts as the server's user.
    fn script(&self, primary: &Primary, name: &str) -> Command {
        let mut script = primary.playground.user().command(self.folder.join(name));
        script.env("BIN_DIR", primary.playground.bin_dir());
        script
    }

    /// Puts a copy of a data directory into the store, as a backup.
    fn back_up(&self, primary: &Primary, data: &Path, name: &str) {
        let store = primary.backups().unwrap();
        run(self.script(primary, "make-backup.sh").arg(data).arg(store).arg(name)).unwrap();
    }

    /// Returns the section of the method, with a grant for the store.
    fn section(&self, primary: &Primary) -> String {
        format!(
            "[method.{NAME}]\nplugin = \"{}\"\ngrants.stores.backups = {{ url = \"file://{}\" }}\n",
            self.component.display(),
            primary.backups().unwrap().display()
        )
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_new_project_passes_its_tests_and_its_method_creates_streaming_replicas() {
    let primary = Primary::start("new", 500).unwrap();
    let new = NewProject::new(&primary);
    run(new.package.cargo("fmt").arg("--check")).unwrap();
    run(&mut new.package.cargo("test")).unwrap();

    // A copy of the stopped primary, with its tablespace.
    primary.server.stop().unwrap();
    new.back_up(&primary, primary.server.datadir(), "2026-11-26");
    let primary = primary.restarted().unwrap();
    let replica = primary.replica("of-cold", &[NAME], "", &new.section(&primary)).unwrap();
    replica.created_by(NAME).unwrap();
    primary.streams_to(&replica).unwrap();

    // A copy of the running primary, which is newer.
    let copy = primary.playground.path("copy");
    let mapping =
        format!("{}={}", primary.tablespace().display(), primary.playground.path("copy-fast").display());
    let mut basebackup = primary.server.client("pg_basebackup");
    basebackup.args(["--checkpoint=fast", "--no-sync", "--tablespace-mapping", &mapping, "--pgdata"]);
    run(basebackup.arg(&copy)).unwrap();
    new.back_up(&primary, &copy, "2026-11-27");
    let replica = primary.replica("of-hot", &[NAME], "", &new.section(&primary)).unwrap();
    let ended = replica.created_by(NAME).unwrap();
    assert!(ended.output.contains("the backup is 2026-11-27"), "{}", ended.output);
    primary.streams_to(&replica).unwrap();

    let mut sandbox = new.script(&primary, "sandbox-test.sh");
    sandbox.env("UNDERSTUDY", primary.playground.path("understudy")).arg(&new.component);
    let tested = run(&mut sandbox).unwrap();
    assert!(String::from_utf8_lossy(&tested.stdout).ends_with("passed\n"), "{tested:?}");
}
