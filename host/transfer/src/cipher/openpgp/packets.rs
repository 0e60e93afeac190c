//! Reads the packets of OpenPGP (RFC 9580, section 4) from a stream, in constant memory.

use std::io::{self, BufRead, Read};

use pgp::packet::PacketHeader;
use pgp::types::{PacketLength, Tag};

use super::{Source, damaged, truncated};
use crate::error::{Error, Kind};

/// How many packets without data may come before, between and after the packets with data. More than a message can have: a packet for each
/// recipient, and one or two for each signature.
const MOST_PACKETS: u32 = 256;

/// The longest packet without data in bytes. A session key that is encrypted with the longest RSA key (16,384 bits) has about 2 KiB.
pub(super) const LONGEST_PACKET: u64 = 64 << 10;

/// What may follow a packet in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing: the packet is the last one.
    Nothing,
    /// Packets that are [skipped](is_skipped), to the end of the stream.
    Skipped,
    /// Any other packet. The caller reads it.
    More,
}

/// A packet whose header was read.
pub(super) struct Packet {
    pub(super) header: PacketHeader,
    pub(super) body: Body,
}

impl Packet {
    pub(super) fn tag(&self) -> Tag {
        self.header.tag()
    }

    /// Reads the header of the next packet; `None` at the end of the stream.
    pub(super) fn next(mut source: Source) -> Result<Option<Self>, Error> {
        if source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let header = PacketHeader::try_from_reader(&mut source).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            io::ErrorKind::InvalidInput => damaged("a packet has no valid header"),
            _ => Error::from(error),
        })?;
        let (left, partial) = parts(header.packet_length());
        Ok(Some(Self { header, body: Body { source, left, partial, after: After::More } }))
    }
}

/// Returns whether readers skip packets of this kind. Signatures are skipped because the keys of those who sign are not known.
pub(super) fn is_skipped(tag: Tag) -> bool {
    matches!(tag, Tag::Marker | Tag::Padding | Tag::OnePassSignature | Tag::Signature)
}

/// Counts the packets without data of a message.
#[derive(Default)]
pub(super) struct Count(u32);

impl Count {
    /// Counts one more packet.
    ///
    /// # Errors
    /// `Limit` if there are too many.
    pub(super) fn one_more(&mut self) -> Result<(), Error> {
        self.0 += 1;
        if self.0 > MOST_PACKETS {
            return Err(Error::new(
                Kind::Limit,
                format!("the OpenPGP message has more than {MOST_PACKETS} packets without data"),
            ));
        }
        Ok(())
    }
}

/// Returns the length of the first part of a body, `None` if the body goes on to the end of the stream, and whether another part follows.
fn parts(length: PacketLength) -> (Option<u64>, bool) {
    match length {
        PacketLength::Fixed(length) => (Some(length.into()), false),
        PacketLength::Partial(length) => (Some(length.into()), true),
        PacketLength::Indeterminate => (None, false),
    }
}

/// The body of a packet, whose parts are read as one stream. At the end of the body the reader checks what follows.
pub(super) struct Body {
    source: Source,
    /// How many bytes of the current part are left; `None` if the body goes on to the end of the stream.
    left: Option<u64>,
    /// Whether another part follows the current one.
    partial: bool,
    after: After,
}

impl Body {
    /// Sets what may follow the packet.
    pub(super) fn before(self, after: After) -> Self {
        Self { after, ..self }
    }

    /// Reads a whole body of at most [`LONGEST_PACKET`] bytes. Returns it, and the stream behind it.
    pub(super) fn read_short(mut self) -> Result<(Vec<u8>, Source), Error> {
        let mut bytes = Vec::new();
        (&mut self).take(LONGEST_PACKET + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST_PACKET {
            return Err(Error::new(
                Kind::Limit,
                format!("a packet without data of the OpenPGP message has more than {LONGEST_PACKET} bytes"),
            ));
        }
        Ok((bytes, self.source))
    }

    /// Reads exactly one byte.
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Fills the buffer.
    pub(super) fn exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("a packet is too short"),
            _ => Error::from(error),
        })
    }

    /// Moves to the next part if the current one has ended, and checks what follows the last part.
    fn advance(&mut self) -> Result<(), Error> {
        while self.left == Some(0) && self.partial {
            let length =
                PacketLength::try_from_reader(&mut self.source).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => truncated(),
                    _ => Error::from(error),
                })?;
            (self.left, self.partial) = parts(length);
        }
        if self.left == Some(0) {
            self.end()?;
        }
        Ok(())
    }

    /// Checks what follows the packet.
    fn end(&mut self) -> Result<(), Error> {
        let after = std::mem::replace(&mut self.after, After::More);
        if after == After::More {
            return Ok(());
        }
        let mut count = Count::default();
        let mut source = std::mem::replace(&mut self.source, Box::new(io::empty()));
        while let Some(packet) = Packet::next(source)? {
            if after == After::Nothing || !is_skipped(packet.tag()) {
                return Err(damaged("something follows its data"));
            }
            count.one_more()?;
            source = packet.body.read_short()?.1;
        }
        Ok(())
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.advance()?;
        if self.left == Some(0) {
            return Ok(&[]);
        }
        let available = self.source.fill_buf()?;
        match self.left {
            Some(_) if available.is_empty() => Err(truncated().into()),
            Some(left) => Ok(&available[..available.len().min(usize::try_from(left).unwrap_or(usize::MAX))]),
            None => Ok(available),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.source.consume(amount);
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(amount as u64);
        }
    }
}

impl Read for Body {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(output.len());
        output[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
