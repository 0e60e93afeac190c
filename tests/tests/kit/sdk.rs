//! The crate `understudy-sdk` as a package: a method outside this project builds with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::guest::Package;
use tests::program::{project, understudy};
use tests::server::run;

/// Makes the package of a small method with this dependency in `folder`, builds it, and checks what `understudy inspect` shows of it.
fn method_builds(folder: &Path, name: &str, dependency: &str) {
    let folder = folder.join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2024\"\n[workspace]\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\n{dependency}\n{PROFILE}"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/lib.rs"), METHOD).unwrap();
    let package = Package::new(&folder, &project().join("plugins/Cargo.lock")).unwrap();
    let component = package.component(&name.replace('-', "_")).unwrap();
    let shown = run(Command::new(understudy().unwrap()).arg("inspect").arg(&component)).unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(name) && shown.contains("1.2.3"), "{shown}");
}

/// The profile of `plugins/Cargo.toml`, so that its builds of the dependencies are used again.
const PROFILE: &str =
    "[profile.release]\ncodegen-units = 4\nlto = \"thin\"\npanic = \"abort\"\nstrip = true\n";

/// A method that uses a function of each kind: of the contract, of a store and of the data directory.
const METHOD: &str = r#"
use understudy::store::Bucket;
use understudy::{Datadir, Description, Failure, Method, Need, NeedKind, Plan, Request, progress, source};

struct Small;

impl Method for Small {
    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), "writes one file")
            .need(Need::new(NeedKind::Store, "repo", "the file is read from there"))
    }

    fn plan(_: &Request) -> Result<Plan, Failure> {
        Ok(Plan { backup: "one".to_owned(), system_identifier: source::system_identifier(), ..Plan::default() })
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        progress::phase("writing");
        let object = Bucket::open("repo")?.get(&plan.backup, None, 1024)?;
        Datadir::of(request)?.write("PG_VERSION", &mut &object[..]).map(drop)
    }
}

understudy::export!(Small);
"#;

/// Packs the crate, which also builds it natively from the package, and unpacks it into `folder`.
fn unpacked(folder: &Path) -> PathBuf {
    let manifest = project().join("plugins/Cargo.toml");
    let mut pack = Command::new(env!("CARGO"));
    pack.args(["package", "--package", "understudy-sdk", "--offline", "--allow-dirty", "--manifest-path"])
        .arg(manifest);
    run(pack.arg("--target-dir").arg(project().join("plugins/target"))).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let archive = project().join(format!("plugins/target/package/understudy-sdk-{version}.crate"));
    run(Command::new("tar")
        .args(["--extract", "--gzip", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder))
    .unwrap();
    folder.join(format!("understudy-sdk-{version}"))
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_method_outside_this_project_builds_with_the_packed_sdk() {
    let outside = tempfile::tempdir().unwrap();
    let sdk = unpacked(outside.path());
    // The package has the content of what is a link in the project.
    for (packed, original) in [
        ("wit/method.wit", "wit/method.wit"),
        ("wit/deps/io.wit", "wit/deps/io.wit"),
        ("LICENSE", "LICENSE"),
        ("src/names.rs", "host/postgres-formats/src/names/paths.rs"),
        ("writing-a-method.md", "docs/src/writing-a-method.md"),
    ] {
        assert!(!sdk.join(packed).is_symlink(), "{packed}");
        assert_eq!(
            fs::read(sdk.join(packed)).unwrap(),
            fs::read(project().join(original)).unwrap(),
            "{packed}"
        );
    }
    let dependency = format!("understudy-sdk = {{ path = \"{}\" }}", sdk.display());
    method_builds(outside.path(), "of-package", &dependency);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_method_outside_this_project_builds_with_the_sdk_of_a_git_repository() {
    let outside = tempfile::tempdir().unwrap();
    // A repository with what the crate needs, and with the links as Git stores them.
    let repository = outside.path().join("repository");
    fs::create_dir(&repository).unwrap();
    let mut copy = Command::new("cp");
    copy.args([
        "--archive",
        "--parents",
        "plugins/Cargo.toml",
        "plugins/sdk",
        "wit",
        "LICENSE",
        "docs/src/writing-a-method.md",
    ]);
    copy.arg("host/postgres-formats/src/names/paths.rs").arg(&repository);
    run(copy.current_dir(project())).unwrap();
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "The SDK"],
    ] {
        run(Command::new("git").args(arguments).current_dir(&repository)).unwrap();
    }
    let dependency = format!("understudy-sdk = {{ git = \"file://{}\" }}", repository.display());
    method_builds(outside.path(), "of-git", &dependency);
}
