//! The requests of ioctl(2) that a confined program may make. Landlock does not restrict requests to files and directories, many of which
//! change something through a descriptor that is open only for reading: they set attributes of a file, make it immutable, or create a
//! subvolume in a directory. Each file system has its own, so every request that is not listed here is refused.

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::word;

/// The bits of a request that hold its type (`asm-generic/ioctl.h`; `_IOC_TYPE`).
const TYPE: i32 = 0xff00;

/// The types of which every request is allowed: those of terminals, pipes and descriptors (`asm-generic/ioctls.h`), and of sockets
/// (`linux/sockios.h`).
const ALLOWED_TYPES: [u8; 2] = [b'T', 0x89];

/// The other requests that are allowed. They read, or they write to a file that is open for writing (`linux/fs.h`, `linux/fiemap.h`).
const ALLOWED: [i32; 7] = [FIGETBSZ, FICLONE, FICLONERANGE, GETFLAGS, FIEMAP, FSGETXATTR, GETVERSION];

const FIGETBSZ: i32 = 0x2;
const FICLONE: i32 = 0x4004_9409;
const FICLONERANGE: i32 = 0x4020_940d;
const GETFLAGS: i32 = 0x8008_6601_u32 as i32;
const FIEMAP: i32 = 0xc020_660b_u32 as i32;
const FSGETXATTR: i32 = 0x801c_581f_u32 as i32;
const GETVERSION: i32 = 0x8008_7601_u32 as i32;

/// Returns the rules that match every request that is not allowed.
pub(super) fn not_allowed() -> Result<Vec<SeccompRule>, BackendError> {
    let condition =
        |operator, value| SeccompCondition::new(1, SeccompCmpArgLen::Dword, operator, word(value));
    let mut of_requests: Vec<u8> = ALLOWED.into_iter().map(type_of).collect();
    of_requests.sort_unstable();
    of_requests.dedup();
    let mut rules = Vec::new();
    for (mask, value) in others(&[&ALLOWED_TYPES[..], &of_requests].concat()) {
        let masked = SeccompCmpOp::MaskedEq(word(i32::from(mask) << 8));
        rules.push(SeccompRule::new(vec![condition(masked, i32::from(value) << 8)?])?);
    }
    for of in of_requests {
        let mut conditions = vec![condition(SeccompCmpOp::MaskedEq(word(TYPE)), i32::from(of) << 8)?];
        for request in ALLOWED.into_iter().filter(|request| type_of(*request) == of) {
            conditions.push(condition(SeccompCmpOp::Ne, request)?);
        }
        rules.push(SeccompRule::new(conditions)?);
    }
    Ok(rules)
}

fn type_of(request: i32) -> u8 {
    request.to_le_bytes()[1]
}

/// Returns masks and values: a byte is none of `known` exactly if its bits in one of the masks have that mask's value. A filter can compare
/// some bits of an argument only for equality.
fn others(known: &[u8]) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let mut prefixes = vec![(0_u8, 0_u8)];
    while let Some((mask, value)) = prefixes.pop() {
        if !known.iter().any(|byte| byte & mask == value) {
            found.push((mask, value));
        } else if let Some(bit) = 0x80_u8.checked_shr(mask.count_ones()).filter(|bit| *bit != 0) {
            prefixes.extend([(mask | bit, value), (mask | bit, value | bit)]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::forbid;
    use super::*;

    /// Makes requests to a descriptor that is not open, in a confined process, and returns the error of each.
    fn tried(requests: &[u32]) -> Vec<i32> {
        let list: String = requests.iter().map(|request| format!("{request},")).collect();
        let script = format!("for ({list}) {{ syscall({}, -1, $_, 0); print $! + 0, ' ' }}", libc::SYS_ioctl);
        let output = std::thread::spawn(move || {
            forbid(false).unwrap();
            std::process::Command::new("perl").args(["-e", &script]).output().unwrap()
        });
        let text = String::from_utf8(output.join().unwrap().stdout).unwrap();
        text.split_whitespace().map(|error| error.parse().unwrap()).collect()
    }

    #[test]
    fn every_byte_is_either_known_or_matched() {
        let known = [0x00, b'T', 0x89, 0xff];
        let others = others(&known);
        for byte in 0..=u8::MAX {
            let is_matched = others.iter().any(|(mask, value)| byte & mask == *value);
            assert_eq!(is_matched, !known.contains(&byte), "{byte}");
        }
    }

    #[test]
    fn requests_that_change_a_file_or_a_directory_fail_as_on_a_file_system_without_them() {
        // SETFLAGS, ENABLE_VERITY, SET_ENCRYPTION_POLICY, FSSETXATTR, FIFREEZE, SETVERSION, FIDEDUPERANGE, SUBVOL_CREATE, SNAP_CREATE,
        // SNAP_CREATE_V2, SET_RECEIVED_SUBVOL of btrfs, FAT's attributes, F2FS, CIFS, FIBMAP, BLKDISCARD.
        let changing = [
            0x4008_6602,
            0x4080_6685,
            0x400c_6613,
            0x401c_5820,
            0xc004_5877,
            0x4008_7602,
            0xc018_9436,
            0x5000_940e,
            0x5000_9401,
            0x5000_9417,
            0xc0c8_9425,
            0x4004_7211,
            0xf501,
            0x4004_cf03,
            0x1,
            0x1277,
        ];
        assert_eq!(tried(&changing), [libc::ENOTTY; 16]);
    }

    #[test]
    fn only_the_listed_requests_and_types_are_allowed() {
        let allowed: Vec<u32> = ALLOWED.iter().map(|request| *request as u32).collect();
        // TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, SIOCGIFCONF.
        let usual = [0x5401, 0x802c_542a, 0x5413, 0x541b, 0x5421, 0x5451, 0x8912];
        assert_eq!(tried(&[&allowed[..], &usual].concat()), [libc::EBADF; 14]);
        let of_every_type: Vec<u32> = (0..=u8::MAX).map(|of| u32::from(of) << 8 | 0xfe).collect();
        for (request, error) in of_every_type.iter().zip(tried(&of_every_type)) {
            let is_allowed = ALLOWED_TYPES.contains(&type_of(*request as i32));
            assert_eq!(error, if is_allowed { libc::EBADF } else { libc::ENOTTY }, "{request:x}");
        }
    }
}
