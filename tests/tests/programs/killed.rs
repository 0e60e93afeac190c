//! Kills Understudy with SIGKILL while a native program runs.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::endings::wait_until;
use crate::stage::{Stage, with_mark};

/// How many times the host is killed, each time at a different moment.
const MOMENTS: u64 = 10;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_no_process_writes_after_the_host_was_killed_at_any_moment() {
    let stage = Stage::new("programs-killed");
    let mark = format!("mark-killed-{}", std::process::id());
    let place = stage.replica.directory("scratch").unwrap();
    // The writers are in their own groups and sessions, with and without a parent, and ignore signals.
    let script = format!(
        "if [ \"$1\" = {mark} ]; then trap '' TERM HUP INT; exec >&- 2>&-; while :; do echo x >> $PLACE/written; done; fi\n\
         echo begun >> $PLACE/written\n(setsid $0 {mark} &) &\nset -m; $0 {mark} & set +m\ntrap '' TERM HUP; \
         while :; do echo x >> $PLACE/written; done"
    );
    let script = stage.script("tool", &script);
    let keys = format!(
        ", write = [{place:?}], execute = [\"/usr/bin/setsid\", {script:?}], env = {{ PLACE = {place:?}, MARK = \"{mark}\" }}"
    );
    let written = place.join("written");
    let size = || fs::metadata(&written).map_or(0, |file| file.len());
    for moment in 0..MOMENTS {
        stage.tool("", &script, &keys);
        let before = size();
        let running = stage.replica.spawn(&[]).unwrap();
        let began = Instant::now();
        // The first moments are around the start of the program, the later ones while the program writes.
        if moment < MOMENTS / 2 {
            wait_until("the guard", || !guards_of(running.id()).is_empty() || size() > before);
        } else {
            wait_until("the program to write", || size() > before);
        }
        let pause = Duration::from_millis(moment * 7 % 40);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        running.signal(Signal::KILL).unwrap();
        let ended = stage.replica.wait_for_end(running).unwrap();
        assert_eq!(ended.code(), None, "{}", ended.output);
        let killed = Instant::now();
        let script = script.to_str().unwrap();
        while !(with_mark(&mark).is_empty() && with_mark(script).is_empty()) {
            assert!(
                killed.elapsed() < Duration::from_secs(3),
                "moment {moment}: {:?} {:?}",
                with_mark(&mark),
                with_mark(script)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let last = size();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(
            size(),
            last,
            "moment {moment}: a byte was written after the end, {:?} after the start",
            began.elapsed()
        );
    }
    assert!(size() > 0);
}

/// Returns the children of a process that are guards of native programs.
pub(crate) fn guards_of(pid: u32) -> Vec<String> {
    let is_child = |stat: &str| {
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        fields.get(1) == Some(&pid.to_string().as_str())
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if is_child(&stat) && String::from_utf8_lossy(&command).contains("guard-of-a-native-program") {
            found.push(entry.file_name().display().to_string());
        }
    }
    found
}
