//! The cache of compiled components: an image is used only if it is unchanged.

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

/// A directory for compiled components.
struct ImageCache {
    root: TempDir,
    path: PathBuf,
}

impl ImageCache {
    /// Makes an empty cache.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("components");
        Self { root, path }
    }

    /// Makes a cache with this component in it.
    fn with(name: &str) -> (Self, Inspection) {
        let cache = Self::new();
        let inspection = cache.compiling().inspect(component(name)).unwrap();
        (cache, inspection)
    }

    fn sandbox(&self, compiler: Compiler) -> Sandbox {
        let cache = Some(self.path.clone());
        Sandbox::new(SandboxSettings { cache, ..SandboxSettings::new(compiler) }).unwrap()
    }

    /// Makes a sandbox that can compile.
    fn compiling(&self) -> Sandbox {
        self.sandbox(Compiler::Here)
    }

    /// Makes a sandbox that cannot compile, and so can load components only from the cache.
    fn not_compiling(&self) -> Sandbox {
        let (executable, bounds) = ("/no/such/compiler".into(), CompileBounds::default());
        self.sandbox(Compiler::Child { executable, bounds })
    }

    fn load(&self, name: &str) -> Result<Inspection, Refusal> {
        self.not_compiling().inspect(component(name))
    }

    /// Checks that the cache has no usable image of this component.
    #[track_caller]
    fn has_no_image_of(&self, name: &str) {
        let refusal = self.load(name).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.contains("/no/such/compiler cannot be started"), "{refusal}");
    }

    /// Returns the files whose names have this ending.
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

/// Changes a byte of a file in place, and keeps the time of its last modification.
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
    ImageCache::new().has_no_image_of("hostile");
    let (cache, inspection) = ImageCache::with("hostile");
    let stage = Stage::hostile("nothing");
    for _ in 0..2 {
        let sandbox = cache.not_compiling();
        assert_eq!(sandbox.inspect(component("hostile")).unwrap(), inspection);
        let method = sandbox.method(stage.settings.clone()).unwrap();
        let (request, run) = (stage.request(), stage.run());
        let plan = replica::Method::plan(&method, &request, &run).await.unwrap();
        replica::Method::create(&method, &request, &plan, &run).await.unwrap();
    }
    cache.has_no_image_of("no-exports");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_is_included_in_the_program_shares_the_image_of_a_file_with_the_same_bytes() {
    let (cache, inspection) = ImageCache::with("hostile");
    let bytes = fs::read(component("hostile")).unwrap().leak();
    let included = ComponentSource::Included { name: "hostile", bytes };
    assert_eq!(cache.not_compiling().inspect(included.clone()).unwrap(), inspection);
    assert_eq!(
        ImageCache::new().compiling().inspect(included).unwrap(),
        inspection,
        "it compiles as a file does"
    );
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn the_cache_belongs_to_this_user_alone() {
    let (cache, _) = ImageCache::with("hostile");
    assert_eq!(fs::metadata(&cache.path).unwrap().mode() & 0o777, 0o700);
    let files = cache.files("");
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_whose_image_was_changed_is_compiled_again() {
    let (cache, inspection) = ImageCache::with("hostile");
    let whole = fs::read(cache.only(".image")).unwrap();
    for at in [0, 100, whole.len() / 2, whole.len() - 1] {
        change_a_byte(&cache.only(".image"), at);
        cache.has_no_image_of("hostile");
        assert_eq!(cache.compiling().inspect(component("hostile")).unwrap(), inspection);
        assert!(fs::read(cache.only(".image")).unwrap() == whole, "byte {at} is restored");
        assert_eq!(cache.load("hostile").unwrap(), inspection);
    }
    fs::write(cache.only(".image"), &whole[..whole.len() / 2]).unwrap();
    cache.has_no_image_of("hostile");
    fs::remove_file(cache.only(".image")).unwrap();
    cache.has_no_image_of("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_cached_description_is_checked_by_the_rules_of_this_version() {
    let (cache, inspection) = ImageCache::with("hostile");
    // Writes the record as another version of the program would, with the key of the directory.
    let key = hmac::Key::new(hmac::HMAC_SHA256, &fs::read(cache.path.join("key")).unwrap());
    let path = cache.only(".record");
    let whole = fs::read(&path).unwrap();
    let write = |version: &str| {
        let mut record: serde_json::Value = serde_json::from_slice(&whole[32..]).unwrap();
        record["inspection"]["description"]["version"] = version.into();
        let text = serde_json::to_vec(&record).unwrap();
        fs::write(&path, [hmac::sign(&key, &text).as_ref(), &text].concat()).unwrap();
    };
    write("9.9");
    assert_eq!(cache.load("hostile").unwrap().description.version, "9.9");
    write("\u{1b}[31m");
    cache.has_no_image_of("hostile");
    assert_eq!(cache.compiling().inspect(component("hostile")).unwrap(), inspection);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_copied_image_is_used() {
    let (cache, inspection) = ImageCache::with("hostile");
    let image = cache.only(".image");
    let copy = image.with_extension("copy");
    fs::copy(&image, &copy).unwrap();
    fs::rename(&copy, &image).unwrap();
    assert_eq!(cache.load("hostile").unwrap(), inspection);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_changed_description_is_not_used() {
    let (cache, inspection) = ImageCache::with("hostile");
    let record = cache.only(".record");
    let whole = fs::read(&record).unwrap();
    let summary = inspection.description.summary.as_bytes();
    let within = whole.windows(summary.len()).position(|window| window == summary).unwrap();
    for at in [0, within, whole.len() - 1] {
        change_a_byte(&record, at);
        cache.has_no_image_of("hostile");
        fs::write(&record, &whole).unwrap();
    }
    for cut in [0, 31, 32, whole.len() / 2] {
        fs::write(&record, &whole[..cut]).unwrap();
        cache.has_no_image_of("hostile");
    }
    assert_eq!(cache.compiling().inspect(component("hostile")).unwrap(), inspection);
    assert_eq!(cache.load("hostile").unwrap(), inspection);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_record_signed_with_another_key_is_not_used() {
    let (cache, _) = ImageCache::with("hostile");
    let (other, _) = ImageCache::with("hostile");
    fs::copy(other.only("key"), cache.only("key")).unwrap();
    cache.has_no_image_of("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn an_image_under_the_file_name_of_another_component_is_not_used() {
    let (cache, _) = ImageCache::with("hostile");
    let (image, record) = (cache.only(".image"), cache.only(".record"));
    let tarball = cache.compiling().inspect(component("tarball")).unwrap();
    let is_other = |path: &PathBuf| *path != image && *path != record;
    for (from, ending) in [(&image, ".image"), (&record, ".record")] {
        let to = cache.files(ending).into_iter().find(is_other).unwrap();
        fs::copy(from, to).unwrap();
    }
    cache.has_no_image_of("tarball");
    assert_eq!(cache.compiling().inspect(component("tarball")).unwrap(), tarball);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn another_component_under_the_same_path_gets_its_own_image() {
    let cache = ImageCache::new();
    let path = cache.root.path().join("method.wasm");
    for (name, images) in [("hostile", 1), ("tarball", 2), ("hostile", 2)] {
        fs::copy(component(name), &path).unwrap();
        assert_eq!(cache.compiling().inspect(&path).unwrap().name, name);
        assert_eq!(cache.files(".image").len(), images);
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_is_refused_is_not_kept() {
    let cache = ImageCache::new();
    for name in ["no-exports", "foreign-import", "describe-traps"] {
        cache.compiling().inspect(component(name)).unwrap_err();
    }
    assert_eq!(cache.files(".image"), <[PathBuf; 0]>::default());
    assert_eq!(cache.files("tmp-"), <[PathBuf; 0]>::default());
}

/// Checks that the directory is not used, and that the component loads nevertheless.
#[track_caller]
fn is_not_used(cache: &ImageCache, why: &str) {
    let before = cache.files("");
    assert_eq!(cache.compiling().inspect(component("hostile")).unwrap().name, "hostile", "{why}");
    assert_eq!(cache.files(""), before, "{why}: nothing is written there");
    cache.has_no_image_of("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_that_others_may_change_is_not_used() {
    for others in [0o720, 0o702, 0o777, 0o1777] {
        let (cache, _) = ImageCache::with("hostile");
        mode(&cache.path, others);
        is_not_used(&cache, "others may write to it");
        mode(&cache.path, 0o700);
        cache.load("hostile").unwrap();
    }
    let (cache, _) = ImageCache::with("hostile");
    let real = cache.root.path().join("elsewhere");
    fs::rename(&cache.path, &real).unwrap();
    symlink(&real, &cache.path).unwrap();
    is_not_used(&cache, "a symbolic link");
    fs::remove_file(&cache.path).unwrap();
    fs::write(&cache.path, "").unwrap();
    is_not_used(&cache, "a file");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_of_another_user_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a directory to another user: nothing to try");
        return;
    }
    let (cache, _) = ImageCache::with("hostile");
    std::os::unix::fs::chown(&cache.path, Some(1), None).unwrap();
    is_not_used(&cache, "another user's");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_key_that_others_may_read_or_of_another_length_is_not_used() {
    let (cache, _) = ImageCache::with("hostile");
    let key = cache.only("key");
    mode(&key, 0o640);
    is_not_used(&cache, "others may read it");
    mode(&key, 0o600);
    cache.load("hostile").unwrap();
    fs::write(&key, [0; 31]).unwrap();
    is_not_used(&cache, "too short");
    fs::write(&key, [0; 33]).unwrap();
    is_not_used(&cache, "too long");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn runs_at_the_same_time_keep_and_use_the_same_directory() {
    let cache = ImageCache::new();
    let begin = Barrier::new(6);
    std::thread::scope(|scope| {
        for name in ["hostile", "tarball", "mirror"].into_iter().cycle().take(6) {
            let (cache, begin) = (&cache, &begin);
            scope.spawn(move || {
                begin.wait();
                for _ in 0..3 {
                    assert_eq!(cache.compiling().inspect(component(name)).unwrap().name, name);
                }
            });
        }
    });
    for name in ["hostile", "tarball", "mirror"] {
        assert_eq!(cache.load(name).unwrap().name, name);
    }
    assert_eq!((cache.files(".image").len(), cache.files(".record").len()), (3, 3));
    assert!(!cache.files("").iter().any(|file| file.to_str().unwrap().contains("tmp-")));
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn while_another_run_holds_the_lock_nothing_is_cached_and_components_still_load() {
    let cache = ImageCache::new();
    cache.compiling();
    let lock = fs::File::open(cache.only("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(cache.compiling().inspect(component("hostile")).unwrap().name, "hostile");
    cache.has_no_image_of("hostile");
    drop(lock);
    cache.compiling().inspect(component("hostile")).unwrap();
    cache.load("hostile").unwrap();
}

/// A tmpfs on a directory, unmounted on drop; `None` if this is not root, because only root can mount.
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
fn with_a_full_disk_nothing_is_cached_and_components_still_load() {
    let cache = ImageCache::new();
    let Some(_mounted) = Mounted::on(&cache.path, "size=64k") else { return };
    assert_eq!(cache.compiling().inspect(component("hostile")).unwrap().name, "hostile");
    assert!(
        cache.files("").iter().all(|file| fs::metadata(file).unwrap().len() <= 32),
        "{:?}",
        cache.files("")
    );
    cache.has_no_image_of("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_that_is_read_only_is_used_and_not_changed() {
    let cache = ImageCache::new();
    let Some(mounted) = Mounted::on(&cache.path, "size=64m") else { return };
    cache.compiling().inspect(component("hostile")).unwrap();
    mounted.again("ro");
    assert_eq!(cache.load("hostile").unwrap().name, "hostile");
    assert_eq!(cache.compiling().inspect(component("tarball")).unwrap().name, "tarball");
    cache.has_no_image_of("tarball");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_runs_from_a_cache_on_a_noexec_mount() {
    let cache = ImageCache::new();
    let Some(_mounted) = Mounted::on(&cache.path, "size=64m,noexec") else { return };
    let stage = Stage::hostile("nothing");
    for sandbox in [cache.compiling(), cache.not_compiling()] {
        let method = sandbox.method(stage.settings.clone()).unwrap();
        let (request, run) = (stage.request(), stage.run());
        let plan = replica::Method::plan(&method, &request, &run).await.unwrap();
        replica::Method::create(&method, &request, &plan, &run).await.unwrap();
    }
    change_a_byte(&cache.only(".image"), 1000);
    cache.has_no_image_of("hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn options_of_a_cached_component_are_checked() {
    let (cache, _) = ImageCache::with("hostile");
    let stage = Stage::hostile("nothing").option("behaves", text("x"));
    let method = cache.not_compiling().method(stage.settings.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refusal = runtime.block_on(replica::Method::preflight(&method, &stage.request())).unwrap_err();
    assert_eq!(refusal.rule, Rule::Option);
    assert!(refusal.message.contains("did you mean `behave`?"), "{refusal}");
}
