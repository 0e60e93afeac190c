//! Tests of the built program as the compiler of components: a child process with limits, which ends with its parent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::{Bytes, Directories, Method, Request, Rule, TablespaceMap};
use sandbox::{CompileBounds, Compiler, Grants, MethodSettings, Sandbox, SandboxSettings};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_understudy");

/// Returns the file of the component of this name, which `cargo xtask plugins` builds.
fn component(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/target/components/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins` first", path.display());
    path
}

fn sandbox(bounds: CompileBounds) -> Sandbox {
    let compiler = Compiler::Child { executable: PROGRAM.into(), bounds };
    Sandbox::new(SandboxSettings::new(compiler)).unwrap()
}

/// Encodes a number as WebAssembly does (LEB128).
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn with_size(bytes: Vec<u8>) -> Vec<u8> {
    [leb128(bytes.len()), bytes].concat()
}

fn section(id: u8, bytes: Vec<u8>) -> Vec<u8> {
    [vec![id], with_size(bytes)].concat()
}

/// Writes a component of 14 MB that takes many seconds to compile: in its functions every branch merges values that all stay live.
fn slow_component() -> (TempDir, PathBuf) {
    const FUNCTIONS: usize = 100;
    const BRANCHES: usize = 10_000;
    const LOCALS: u8 = 100;
    let branch = |at: usize| {
        let local = |step: usize| ((at * step + step) % usize::from(LOCALS)) as u8;
        // block; local.get; br_if 0; local.get; local.get; i32.add; local.set; end
        [0x02, 0x40, 0x20, local(1), 0x0d, 0, 0x20, local(7), 0x20, local(3), 0x6a, 0x21, local(5), 0x0b]
    };
    let mut body = vec![1, LOCALS, 0x7f];
    body.extend((0..BRANCHES).flat_map(branch));
    body.extend((0..LOCALS).flat_map(|local| [0x20, local]));
    body.extend((1..LOCALS).map(|_| 0x6a));
    body.push(0x0b);
    let functions = |each: Vec<u8>| [leb128(FUNCTIONS), each.repeat(FUNCTIONS)].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 0, 1, 0x7f]),
        section(3, functions(vec![0])),
        section(10, functions(with_size(body))),
    ];
    let component = [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module.concat())];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("slow.wasm");
    fs::write(&path, component.concat()).unwrap();
    (directory, path)
}

/// Calls `look` until it returns a value, for a limited time.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the compilers that a process has started and not waited for.
fn compilers_of(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children = tasks.flat_map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    });
    children.filter(|pid| is_compiler(*pid)).collect()
}

fn is_compiler(pid: u32) -> bool {
    arguments(pid).contains("--understudy-compiler")
}

/// Returns the arguments of a process; an empty text if it has ended.
fn arguments(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Checks that a compiler with many seconds of work left ends at once.
#[track_caller]
fn ends_at_once(compiler: u32) {
    let started = Instant::now();
    until("the end of the compiler", || (!is_compiler(compiler)).then_some(()));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_child_compiles_the_same_as_this_process() {
    let here = Sandbox::new(SandboxSettings::new(Compiler::Here)).unwrap();
    for name in ["tarball", "hostile"] {
        let path = component(name);
        let (in_child, here) = (sandbox(CompileBounds::default()).inspect(&path), here.inspect(&path));
        assert_eq!(in_child.unwrap(), here.unwrap());
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_file_that_is_not_a_component_is_refused_with_the_cause() {
    let complete = fs::read(component("hostile")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("half.wasm");
    fs::write(&path, &complete[..complete.len() / 2]).unwrap();
    let refusal = sandbox(CompileBounds::default()).inspect(&path).unwrap_err();
    assert_eq!(refusal.rule, Rule::Component);
    let says = format!("{}: is truncated: ", path.display());
    assert!(refusal.message.starts_with(&says) && refusal.message.len() > says.len() + 10, "{refusal}");

    // A complete file with a section that no component has.
    fs::write(&path, [b"\0asm\x0d\0\x01\0".to_vec(), section(0x7f, vec![0])].concat()).unwrap();
    let refusal = sandbox(CompileBounds::default()).inspect(&path).unwrap_err();
    let says = format!("{}: is not a component that this program supports: ", path.display());
    assert!(refusal.message.starts_with(&says) && refusal.message.len() > says.len() + 10, "{refusal}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn exceeding_each_limit_of_the_compiler_is_refused_with_its_own_message() {
    let (_directory, slow) = slow_component();
    let tarball = component("tarball");
    let bounds = CompileBounds::default();
    for (component, bounds, says) in [
        (
            &slow,
            CompileBounds { memory: Bytes(16 << 20), ..bounds },
            "needs more than 16.0 MiB of memory to be compiled: build a smaller one",
        ),
        (
            &slow,
            CompileBounds { time: Duration::from_millis(50), ..bounds },
            "is not compiled within 0.05 s: try again",
        ),
        (
            &slow,
            CompileBounds { processor: Duration::from_secs(1), ..bounds },
            "needs more than 1 s of processor time to be compiled: build a smaller one",
        ),
        (
            &tarball,
            CompileBounds { image: Bytes(64 << 10), ..bounds },
            "becomes more than 64.0 KiB of machine code: build a smaller one",
        ),
    ] {
        let refusal = sandbox(bounds).inspect(component).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.starts_with(&format!("{}: {says}", component.display())), "{refusal}");
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_that_cannot_be_started_or_fails_refuses_the_component() {
    for (executable, says) in [
        ("/no/such/program", "/no/such/program cannot be started: No such file"),
        ("/bin/false", "its compiler ended with exit status: 1"),
        ("/bin/true", "cannot be loaded"),
    ] {
        let compiler = Compiler::Child { executable: executable.into(), bounds: CompileBounds::default() };
        let sandbox = Sandbox::new(SandboxSettings::new(compiler)).unwrap();
        let refusal = sandbox.inspect(component("hostile")).unwrap_err();
        assert_eq!(refusal.rule, Rule::Component);
        assert!(refusal.message.contains(says), "{refusal}");
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_has_three_descriptors_one_variable_and_its_limits() {
    let (_directory, slow) = slow_component();
    // A descriptor without close-on-exec, as a careless parent might leave one.
    let inherited = fs::File::open("/dev/null").unwrap();
    let flags = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(inherited.as_fd(), flags).unwrap();
    let mut inspect = Command::new(PROGRAM)
        .arg("inspect")
        .arg(&slow)
        .env_clear()
        .env("PGPASSWORD", "secret")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiler = until("a compiler", || compilers_of(inspect.id()).first().copied());
    let of = |name: &str| fs::read_to_string(format!("/proc/{compiler}/{name}")).unwrap();
    // The limit of open files is the last that the compiler sets for itself.
    until("its bounds", || {
        let limits = of("limits");
        let line = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        (line("Max open files") == ["3", "3"]).then(|| {
            assert_eq!(line("Max address space"), ["1073741824", "1073741824"]);
            assert_eq!(line("Max cpu time"), ["120", "121"]);
            assert_eq!(line("Max file size"), ["0", "0"]);
            assert_eq!(line("Max core file size"), ["0", "0"]);
        })
    });
    let descriptors = fs::read_dir(format!("/proc/{compiler}/fd")).unwrap();
    let mut descriptors: Vec<_> =
        descriptors.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let environment = of("environ");
    assert!(environment.starts_with("RAYON_NUM_THREADS="), "{environment:?}");
    assert_eq!(environment.matches('\0').count(), 1, "{environment:?}");
    assert!(
        of("status").contains("NoNewPrivs:\t1"),
        "NoNewPrivs, without which there is no Landlock, is not set"
    );
    assert!(is_compiler(compiler), "the compiler ended while it was looked at");
    inspect.kill().unwrap();
    inspect.wait().unwrap();
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_compiler_dies_with_the_program_that_started_it() {
    let (_directory, slow) = slow_component();
    let mut inspect = Command::new(PROGRAM)
        .arg("inspect")
        .arg(&slow)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiler = until("a compiler", || compilers_of(inspect.id()).first().copied());
    inspect.kill().unwrap();
    inspect.wait().unwrap();
    ends_at_once(compiler);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_compiler_ends_when_its_caller_is_cancelled() {
    let (directory, slow) = slow_component();
    let settings = MethodSettings {
        name: "slow".to_owned(),
        component: slow.into(),
        options: Vec::new(),
        written: sandbox::Written::default(),
        cpu: None,
        grants: Grants::default(),
    };
    let bounds = CompileBounds { image: Bytes((200 << 20) + 7), ..CompileBounds::default() };
    let method = sandbox(bounds).method(settings).unwrap();
    let datadir = directory.path().join("data");
    let directories = Directories { datadir, wal: None, tablespaces: TablespaceMap::default() };
    let request = Request {
        context: None,
        keep_data: false,
        directories: Arc::new(directories),
        directory: None,
        bin_dir: PathBuf::new(),
        source: None,
    };
    let preflight = tokio::spawn(async move { method.preflight(&request).await.map(drop) });
    let compiler = loop {
        // Other tests in this process have compilers too, with other limits.
        let ours = |pid: &u32| arguments(*pid).contains(&bounds.image.0.to_string());
        if let Some(compiler) = compilers_of(std::process::id()).into_iter().find(ours) {
            break compiler;
        }
        assert!(!preflight.is_finished());
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    preflight.abort();
    assert!(preflight.await.unwrap_err().is_cancelled());
    ends_at_once(compiler);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn the_hidden_argument_of_the_compiler_fails_without_its_parent() {
    let output = Command::new(PROGRAM)
        .args(["--understudy-compiler-of-a-component", "1", "1", "1", "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let first = output.stderr.lines().next().unwrap().unwrap();
    assert_eq!(first, "cannot start the compiler: the parent is gone");
}

/// A temporary directory that the user of the run owns, with a configuration of the method `tarball`.
struct TarballSetup {
    root: TempDir,
}

impl TarballSetup {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path();
        fs::copy(component("tarball"), directory.join("tarball.wasm")).unwrap();
        let mut config = format!(
            "scope = \"batman\"\n[replica]\ndatadir = \"{0}/data\"\nbin_dir = \"{0}/bin\"\nstate_dir = \"{0}/state\"\n\
             methods = [\"tarball\"]\n",
            directory.display()
        );
        if rustix::process::geteuid().is_root() {
            config.push_str("user = \"nobody\"\n");
            let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
            std::os::unix::fs::chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        config.push_str(&format!(
            "[method.tarball]\nplugin = \"{0}/tarball.wasm\"\nno_leader = true\noptions.directory = \"{0}/backups\"\n\
             grants.read = [\"{0}/backups\"]\n",
            directory.display()
        ));
        fs::write(directory.join("u.toml"), config).unwrap();
        fs::set_permissions(
            directory.join("tarball.wasm"),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
        Self { root }
    }

    fn check(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["check", "--log-level", "debug", "--config"]).arg(self.root.path().join("u.toml"));
        command.env_clear().stdin(Stdio::null());
        command
    }

    fn log(&self) -> String {
        let output = self.check().output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn only_the_first_run_compiles_a_component_and_asks_it_for_its_description() {
    let setup = TarballSetup::new();
    let says = |log: &str| {
        ["compiling sha256:", "calling describe of sha256:", "was compiled before"]
            .map(|words| log.contains(words))
    };
    let first = setup.log();
    assert_eq!(says(&first), [true, true, false], "{first}");
    let second = setup.log();
    assert_eq!(says(&second), [false, false, true], "{second}");
    fs::remove_dir_all(setup.root.path().join("state/components")).unwrap();
    let third = setup.log();
    assert_eq!(says(&third), [true, true, false], "{third}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn runs_that_start_at_the_same_time_all_get_their_component() {
    let setup = TarballSetup::new();
    let runs: Vec<_> = (0..4)
        .map(|_| setup.check().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("compiling sha256:") || log.contains("was compiled before"), "{log}");
        assert!(!log.contains("WARN"), "{log}");
    }
    assert!(setup.log().contains("was compiled before"));
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_directory_of_compiled_components_that_others_may_change_is_not_used_and_logged() {
    let setup = TarballSetup::new();
    setup.log();
    let components = setup.root.path().join("state/components");
    fs::set_permissions(&components, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let log = setup.log();
    assert!(log.contains("as a cache") && log.contains("others may write to it (mode 0777)"), "{log}");
    assert!(log.contains("compiling sha256:"), "{log}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn inspect_keeps_compiled_components_in_the_cache_directory_unless_run_by_root() {
    let directory = tempfile::tempdir().unwrap();
    let inspect = || {
        let output = Command::new(PROGRAM)
            .arg("inspect")
            .arg(component("tarball"))
            .env_clear()
            .env("XDG_CACHE_HOME", directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = inspect();
    assert_eq!(inspect(), first);
    let kept = directory.path().join("understudy/components");
    let kept = fs::read_dir(kept).map(|entries| entries.count()).unwrap_or_default();
    assert_eq!(kept, if rustix::process::geteuid().is_root() { 0 } else { 4 });
}
