//! Tries the package of Debian where nothing else is: in a fresh Debian below `target/`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{command, folder};
use crate::{say, setup};

/// What is done in the fresh Debian.
const SCRIPT: &str = include_str!("try.sh");

/// Makes a fresh Debian from the mirror that apt uses here, and runs [`SCRIPT`] in it.
///
/// Both run in a mount namespace and the script in a process namespace of its own: what they mount and start is gone with them, however
/// they end.
pub(super) fn package(package: &Path) -> Result<()> {
    setup::debootstrap()?;
    let begun = Instant::now();
    let release = release(&fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?)?;
    let targets = command("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"])
        .output()?;
    let mirror = mirror(&targets, &release)?;
    let debian = folder().join("debian");
    let place = debian.to_str().context("the project's path is not UTF-8")?;
    // Of an earlier run that failed. Nothing can be mounted there.
    setup::as_root(&["rm", "-rf", "--one-file-system", place])?;
    say(&format!("making a fresh Debian {release} in {place}"));
    setup::as_root(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "debootstrap",
        "--variant=minbase",
        &release,
        place,
        &mirror,
    ])?;
    say(&format!("made after {} s; trying the package in it", begun.elapsed().as_secs()));
    let script = folder().join("try.sh");
    fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
    for (file, name) in [(package, "understudy.deb"), (&script, "try.sh")] {
        let file = file.to_str().context("the project's path is not UTF-8")?;
        setup::as_root(&["install", "-m", "0644", file, &format!("{place}/{name}")])?;
    }
    setup::as_root(&[
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-euc",
        ENTER,
        "sh",
        place,
    ])?;
    setup::as_root(&["rm", "-rf", "--one-file-system", place])?;
    say(&format!("the package works in a fresh Debian {release}, after {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// Goes into the fresh Debian, whose path is the first argument.
const ENTER: &str = "mount -t proc proc \"$1/proc\" && mount -t tmpfs tmpfs \"$1/dev/shm\" && \
    exec chroot \"$1\" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} sh /try.sh";

/// The name of this machine's release, such as `bookworm`.
fn release(os_release: &str) -> Result<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.map(|name| name.trim_matches('"')).unwrap_or_default();
    ensure!(!name.is_empty(), "/etc/os-release has no VERSION_CODENAME: only Debian is known to this trial");
    Ok(name.to_owned())
}

/// Where apt has the packages of this release from. It lists a line for each component of each source.
fn mirror(targets: &str, release: &str) -> Result<String> {
    let wanted = format!("{release} main ");
    let found = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    let found = found.with_context(|| format!("apt has no source with {release} and its component main"))?;
    Ok(found.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_that_apt_has_the_release_from() {
        let targets = "bookworm-updates main http://one/debian/\nbookworm contrib http://two/debian/\n\
                       bookworm main http://three/debian/\nbookworm main http://four/other/\n";
        assert_eq!(mirror(targets, "bookworm").unwrap(), "http://three/debian/");
        mirror(targets, "trixie").unwrap_err();
        assert_eq!(release("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        release("ID=other\n").unwrap_err();
    }
}
