//! Puts a file together from plain pieces.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::{Decoding, Origin, error_of, place};
use crate::raw::understudy::method::transfer::{Action, Assembly};
use crate::raw::understudy::method::types::Error;

/// Writes the file of `item`, unless the same file exists and `keep-same` is set.
pub(super) fn assemble(origins: &[Origin], item: &Assembly) -> Result<Action, Error> {
    let failed = |error: std::io::Error| error_of(&item.path, &error);
    let to = place(&item.path)?;
    let same = |bytes: &[u8]| bytes.len() as u64 == item.size && item.digest.is_of(bytes);
    super::super::done(item.size, 1);
    if item.keep_same && fs::read(&to).is_ok_and(|existing| same(&existing)) {
        return Ok(Action::Kept);
    }
    let mut bytes = vec![0; usize::try_from(item.size).map_err(|_| Error::Limit(item.path.clone()))?];
    for piece in &item.pieces {
        let origin = origins.get(piece.origin as usize);
        let origin = origin.ok_or_else(|| Error::Invalid(format!("there is no origin {}", piece.origin)))?;
        if origin.decoding != Decoding::Plain {
            return Err(Error::Invalid(format!("the stand-in decodes no pieces, such as {}", piece.object)));
        }
        let missing = |error: std::io::Error| error_of(&piece.object, &error);
        let file = File::open(origin.bucket.root.join(&piece.object)).map_err(missing)?;
        let start = piece.range.map_or(0, |range| range.offset);
        for extent in &piece.extents {
            let (at, length) = (extent.at as usize, extent.length as usize);
            let into = bytes.get_mut(at..at + length);
            let into = into.ok_or_else(|| Error::Invalid(format!("{}: an extent is outside", item.path)))?;
            file.read_exact_at(into, start + extent.offset).map_err(missing)?;
        }
    }
    if !same(&bytes) {
        return Err(Error::Corrupt(format!("{} has another digest", item.path)));
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(&to, bytes).map_err(failed)?;
    if let Some(mode) = item.mode {
        fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(Action::Written)
}
