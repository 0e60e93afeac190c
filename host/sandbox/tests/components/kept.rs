//! Compiled components that are kept: used when they are what they were, and only then.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use replica::{Refusal, Rule};
use ring::hmac;
use sandbox::{CompileBounds, Compiler, ComponentSource, Inspection, Sandbox, SandboxSettings};
use tempfile::TempDir;

use crate::stage::{Stage, component, text};

/// Where compiled components are kept.
struct Kept {
    root: TempDir,
    path: PathBuf,
}

impl Kept {
    /// An empty one.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("components");
        Self { root, path }
    }

    /// With this component in it.
    fn with(name: &str) -> (Self, Inspection) {
        let kept = Self::new();
        let inspection = kept.compiling().inspect(component(name)).unwrap();
        (kept, inspection)
    }

    fn sandbox(&self, compiler: Compiler) -> Sandbox {
        let cache = Some(self.path.clone());
        Sandbox::new(SandboxSettings { cache, ..SandboxSettings::new(compiler) }).unwrap()
    }

    /// As in a run that may compile.
    fn compiling(&self) -> Sandbox {
        self.sandbox(Compiler::Here)
    }

    /// As in a run that has no compiler: what it loads was kept.
    fn not_compiling(&self) -> Sandbox {
        let (executable, bounds) = ("/no/such/compiler".into(), CompileBounds::default());
        self.sandbox(Compiler::Child { executable, bounds })
    }

    fn knows(&self, name: &str) -> Result<Inspection, Refusal> {
        self.not_compiling().inspect(component(name))
    }

    /// Nothing is kept of this component.
    #[track_caller]
    fn does_not_know(&self, name: &str) {
        let refusal = self.knows(name).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.contains("/no/such/compiler cannot be started"), "{refusal}");
    }

    /// The files whose names end so.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let files = entries.map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
    }

    fn only(&self, ending: &str) -> PathBuf {
        let [file] = &self.files(ending)[..] else { panic!("{:?}", self.files("")) };
        file.clone()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Changes a byte of a file in its place and leaves the time of its last modification as it was.
fn change_a_byte(path: &Path, at: usize) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_that_was_compiled_before_runs_without_a_compiler() {
    Kept::new().does_not_know("hostile");
    let (kept, said) = Kept::with("hostile");
    let stage = Stage::hostile("nothing");
    for _ in 0..2 {
        let sandbox = kept.not_compiling();
        assert_eq!(sandbox.inspect(component("hostile")).unwrap(), said);
        let method = sandbox.method(stage.settings.clone()).unwrap();
        let (request, run) = (stage.request(), stage.run());
        let plan = replica::Method::plan(&method, &request, &run).await.unwrap();
        replica::Method::create(&method, &request, &plan, &run).await.unwrap();
    }
    kept.does_not_know("no-exports");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_is_included_in_the_program_shares_the_image_of_a_file_with_the_same_bytes() {
    let (kept, said) = Kept::with("hostile");
    let bytes = fs::read(component("hostile")).unwrap().leak();
    let included = ComponentSource::Included { name: "hostile", bytes };
    assert_eq!(kept.not_compiling().inspect(included.clone()).unwrap(), said);
    assert_eq!(Kept::new().compiling().inspect(included).unwrap(), said, "it compiles as a file does");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_is_kept_is_this_users_alone() {
    let (kept, _) = Kept::with("hostile");
    assert_eq!(fs::metadata(&kept.path).unwrap().mode() & 0o777, 0o700);
    let files = kept.files("");
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn an_image_in_which_any_part_was_changed_is_compiled_again_and_never_run() {
    let (kept, said) = Kept::with("hostile");
    let whole = fs::read(kept.only(".image")).unwrap();
    for at in [0, 100, whole.len() / 2, whole.len() - 1] {
        change_a_byte(&kept.only(".image"), at);
        kept.does_not_know("hostile");
        assert_eq!(kept.compiling().inspect(component("hostile")).unwrap(), said);
        assert!(fs::read(kept.only(".image")).unwrap() == whole, "byte {at} is what it was");
        assert_eq!(kept.knows("hostile").unwrap(), said);
    }
    fs::write(kept.only(".image"), &whole[..whole.len() / 2]).unwrap();
    kept.does_not_know("hostile");
    fs::remove_file(kept.only(".image")).unwrap();
    kept.does_not_know("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_is_kept_of_a_component_is_held_to_the_rules_of_this_version() {
    let (kept, said) = Kept::with("hostile");
    // As another version would have written it, under the key of the directory.
    let key = hmac::Key::new(hmac::HMAC_SHA256, &fs::read(kept.path.join("key")).unwrap());
    let path = kept.only(".record");
    let whole = fs::read(&path).unwrap();
    let write = |version: &str| {
        let mut record: serde_json::Value = serde_json::from_slice(&whole[32..]).unwrap();
        record["inspection"]["description"]["version"] = version.into();
        let text = serde_json::to_vec(&record).unwrap();
        fs::write(&path, [hmac::sign(&key, &text).as_ref(), &text].concat()).unwrap();
    };
    write("9.9");
    assert_eq!(kept.knows("hostile").unwrap().description.version, "9.9");
    write("\u{1b}[31m");
    kept.does_not_know("hostile");
    assert_eq!(kept.compiling().inspect(component("hostile")).unwrap(), said);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn an_image_that_was_only_copied_is_as_good_as_before() {
    let (kept, said) = Kept::with("hostile");
    let image = kept.only(".image");
    let copy = image.with_extension("copy");
    fs::copy(&image, &copy).unwrap();
    fs::rename(&copy, &image).unwrap();
    assert_eq!(kept.knows("hostile").unwrap(), said);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_description_that_was_changed_is_not_believed() {
    let (kept, said) = Kept::with("hostile");
    let record = kept.only(".record");
    let whole = fs::read(&record).unwrap();
    let summary = said.description.summary.as_bytes();
    let within = whole.windows(summary.len()).position(|window| window == summary).unwrap();
    for at in [0, within, whole.len() - 1] {
        change_a_byte(&record, at);
        kept.does_not_know("hostile");
        fs::write(&record, &whole).unwrap();
    }
    for cut in [0, 31, 32, whole.len() / 2] {
        fs::write(&record, &whole[..cut]).unwrap();
        kept.does_not_know("hostile");
    }
    assert_eq!(kept.compiling().inspect(component("hostile")).unwrap(), said);
    assert_eq!(kept.knows("hostile").unwrap(), said);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_another_key_vouches_for_is_not_believed() {
    let (kept, _) = Kept::with("hostile");
    let (other, _) = Kept::with("hostile");
    fs::copy(other.only("key"), kept.only("key")).unwrap();
    kept.does_not_know("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn one_component_is_not_taken_for_another_whatever_the_names_of_the_files() {
    let (kept, _) = Kept::with("hostile");
    let (image, record) = (kept.only(".image"), kept.only(".record"));
    let tarball = kept.compiling().inspect(component("tarball")).unwrap();
    let is_other = |path: &PathBuf| *path != image && *path != record;
    for (from, ending) in [(&image, ".image"), (&record, ".record")] {
        let to = kept.files(ending).into_iter().find(is_other).unwrap();
        fs::copy(from, to).unwrap();
    }
    kept.does_not_know("tarball");
    assert_eq!(kept.compiling().inspect(component("tarball")).unwrap(), tarball);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_is_another_under_the_same_path_gets_an_image_of_its_own() {
    let kept = Kept::new();
    let path = kept.root.path().join("method.wasm");
    for (name, images) in [("hostile", 1), ("tarball", 2), ("hostile", 2)] {
        fs::copy(component(name), &path).unwrap();
        assert_eq!(kept.compiling().inspect(&path).unwrap().name, name);
        assert_eq!(kept.files(".image").len(), images);
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_is_refused_is_not_kept() {
    let kept = Kept::new();
    for name in ["no-exports", "foreign-import", "describe-traps"] {
        kept.compiling().inspect(component(name)).unwrap_err();
    }
    assert_eq!(kept.files(".image"), <[PathBuf; 0]>::default());
    assert_eq!(kept.files("tmp-"), <[PathBuf; 0]>::default());
}

/// The directory is not used, and the component runs all the same.
#[track_caller]
fn is_not_used(kept: &Kept, why: &str) {
    let before = kept.files("");
    assert_eq!(kept.compiling().inspect(component("hostile")).unwrap().name, "hostile", "{why}");
    assert_eq!(kept.files(""), before, "{why}: nothing is written there");
    kept.does_not_know("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_that_others_may_change_is_not_used() {
    for others in [0o720, 0o702, 0o777, 0o1777] {
        let (kept, _) = Kept::with("hostile");
        mode(&kept.path, others);
        is_not_used(&kept, "others may write to it");
        mode(&kept.path, 0o700);
        kept.knows("hostile").unwrap();
    }
    let (kept, _) = Kept::with("hostile");
    let real = kept.root.path().join("elsewhere");
    fs::rename(&kept.path, &real).unwrap();
    symlink(&real, &kept.path).unwrap();
    is_not_used(&kept, "a symbolic link");
    fs::remove_file(&kept.path).unwrap();
    fs::write(&kept.path, "").unwrap();
    is_not_used(&kept, "a file");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_of_another_user_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a directory to another user: nothing to try");
        return;
    }
    let (kept, _) = Kept::with("hostile");
    std::os::unix::fs::chown(&kept.path, Some(1), None).unwrap();
    is_not_used(&kept, "another user's");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_key_that_others_may_read_or_that_is_none_is_not_used() {
    let (kept, _) = Kept::with("hostile");
    let key = kept.only("key");
    mode(&key, 0o640);
    is_not_used(&kept, "others may read it");
    mode(&key, 0o600);
    kept.knows("hostile").unwrap();
    fs::write(&key, [0; 31]).unwrap();
    is_not_used(&kept, "too short");
    fs::write(&key, [0; 33]).unwrap();
    is_not_used(&kept, "too long");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn runs_at_the_same_time_keep_and_use_the_same_directory() {
    let kept = Kept::new();
    let begin = Barrier::new(6);
    std::thread::scope(|scope| {
        for name in ["hostile", "tarball", "mirror"].into_iter().cycle().take(6) {
            let (kept, begin) = (&kept, &begin);
            scope.spawn(move || {
                begin.wait();
                for _ in 0..3 {
                    assert_eq!(kept.compiling().inspect(component(name)).unwrap().name, name);
                }
            });
        }
    });
    for name in ["hostile", "tarball", "mirror"] {
        assert_eq!(kept.knows(name).unwrap().name, name);
    }
    assert_eq!((kept.files(".image").len(), kept.files(".record").len()), (3, 3));
    assert!(!kept.files("").iter().any(|file| file.to_str().unwrap().contains("tmp-")));
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_that_another_run_does_not_let_go_of_keeps_nothing_and_holds_nobody_up() {
    let kept = Kept::new();
    kept.compiling();
    let lock = fs::File::open(kept.only("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(kept.compiling().inspect(component("hostile")).unwrap().name, "hostile");
    kept.does_not_know("hostile");
    drop(lock);
    kept.compiling().inspect(component("hostile")).unwrap();
    kept.knows("hostile").unwrap();
}

/// A file system in memory on a directory, until it goes; none where only root mounts and this is another user.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=0700,{options}"), "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mounted.success() || !rustix::process::geteuid().is_root(), "root could not mount a tmpfs");
        mounted.success().then(|| Self(path.to_owned()))
    }

    fn again(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_full_disk_keeps_nothing_and_stops_nothing() {
    let kept = Kept::new();
    let Some(_mounted) = Mounted::on(&kept.path, "size=64k") else { return };
    assert_eq!(kept.compiling().inspect(component("hostile")).unwrap().name, "hostile");
    assert!(
        kept.files("").iter().all(|file| fs::metadata(file).unwrap().len() <= 32),
        "{:?}",
        kept.files("")
    );
    kept.does_not_know("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_that_is_read_only_is_used_and_not_changed() {
    let kept = Kept::new();
    let Some(mounted) = Mounted::on(&kept.path, "size=64m") else { return };
    kept.compiling().inspect(component("hostile")).unwrap();
    mounted.again("ro");
    assert_eq!(kept.knows("hostile").unwrap().name, "hostile");
    assert_eq!(kept.compiling().inspect(component("tarball")).unwrap().name, "tarball");
    kept.does_not_know("tarball");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_runs_also_from_where_nothing_may_be_executed() {
    let kept = Kept::new();
    let Some(_mounted) = Mounted::on(&kept.path, "size=64m,noexec") else { return };
    let stage = Stage::hostile("nothing");
    for sandbox in [kept.compiling(), kept.not_compiling()] {
        let method = sandbox.method(stage.settings.clone()).unwrap();
        let (request, run) = (stage.request(), stage.run());
        let plan = replica::Method::plan(&method, &request, &run).await.unwrap();
        replica::Method::create(&method, &request, &plan, &run).await.unwrap();
    }
    change_a_byte(&kept.only(".image"), 1000);
    kept.does_not_know("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn options_of_a_kept_component_are_checked_as_ever() {
    let (kept, _) = Kept::with("hostile");
    let stage = Stage::hostile("nothing").option("behaves", text("x"));
    let method = kept.not_compiling().method(stage.settings.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refusal = runtime.block_on(replica::Method::preflight(&method, &stage.request())).unwrap_err();
    assert_eq!(refusal.rule, Rule::Option);
    assert!(refusal.message.contains("did you mean `behave`?"), "{refusal}");
}
