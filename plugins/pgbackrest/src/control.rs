//! Reads the backup's control file in `plan`. The control file contains the size of a WAL segment. Reading this file also shows that the
//! files of the backup can be read and decrypted.

use std::io::Read;

use postgres_formats::control_file::{self, Beginning};
use postgres_formats::names::CONTROL_FILE;
use postgres_formats::segment::SegmentSize;
use understudy::digests::{Algorithm, Hasher};
use understudy::store::Range;
use understudy::{AtPath, Error, Failure};

use crate::blocks::BlockFile;
use crate::choice::Chosen;
use crate::manifest::File;

/// The content of the control file.
#[derive(Debug)]
pub(crate) struct ControlFile {
    pub(crate) control: Beginning,
    /// The size of a WAL segment, or why it cannot be read.
    pub(crate) segment_size: Result<SegmentSize, Failure>,
}

/// Reads the control file of `chosen`.
///
/// # Errors
/// Fails if the backup has no control file, or if the control file cannot be read or does not match the manifest.
pub(crate) fn read<C>(chosen: &Chosen<C>) -> Result<ControlFile, Failure> {
    let Some(file) = &chosen.head.control_file else {
        return Err(chosen.failed(format!("lists no {CONTROL_FILE}: a cluster does not start without it")));
    };
    if file.size != control_file::SIZE {
        let size = file.size;
        return Err(chosen
            .failed(format!("lists a {CONTROL_FILE} of {size} bytes instead of {}", control_file::SIZE)));
    }
    let repository = &chosen.repository;
    let object = repository.backup(&chosen.head.object(file));
    let shown = repository.shown(&object);
    let bytes = match &file.blocks {
        None => whole(chosen, file, &object)?,
        Some(blocks) => BlockFile::open(chosen, file, blocks)?.contents()?,
    };
    let mut sum = Hasher::new(Algorithm::Sha1);
    sum.update(&bytes);
    if sum.finish() != file.digest {
        return Err(Failure::failed(format!(
            "{shown} is damaged: {CONTROL_FILE} has a checksum that differs from the manifest"
        )));
    }
    let bad = |error| Failure::failed(format!("the {CONTROL_FILE} in {shown} {error}"));
    let segment_size = control_file::wal_segment_size(&bytes).map_err(|error| {
        Failure::failed(format!(
            "the {CONTROL_FILE} in {shown} {error}: set `wal = \"none\"` to restore without WAL"
        ))
    });
    Ok(ControlFile { control: Beginning::parse(&bytes).map_err(bad)?, segment_size })
}

/// Reads the control file `file` from the object `object`, which stores it whole.
fn whole<C>(chosen: &Chosen<C>, file: &File, object: &str) -> Result<Vec<u8>, Failure> {
    let repository = &chosen.repository;
    let shown = repository.shown(object);
    let pipeline = chosen.pipeline(chosen.head.wrapping(file));
    let range = file.bundled.map(|bundled| Range { offset: bundled.offset, length: bundled.length });
    let stream = repository.bucket.read(object, range, pipeline.as_ref()).map_err(|error| match error {
        Error::NotFound(_) => Failure::failed(format!(
            "{shown} is missing, which holds {CONTROL_FILE}: the backup {} expired or was removed",
            chosen.backup.label
        )),
        error => error.into(),
    })?;
    let mut bytes = Vec::new();
    stream.take(control_file::SIZE + 1).read_to_end(&mut bytes).at(&shown)?;
    Ok(bytes)
}
