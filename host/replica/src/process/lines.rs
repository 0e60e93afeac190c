//! Splits a program's output into lines for a log. The lines have a maximum length and no control characters.

use foundation::printable::printable;

/// How many bytes of a line are logged. The rest is dropped.
pub const LONGEST_LINE: usize = 4096;

/// How many bytes of a line are kept as the program wrote them.
pub const LONGEST_KEPT_LINE: usize = 64 << 10;

/// Returns a line for a log: removes secrets with `redact`, then removes control characters, and last cuts the line to [`LONGEST_LINE`]
/// bytes, with a note. If the line were cut first, the beginning of a secret could stay in it. `is_whole` says whether `bytes` contains the
/// whole line.
pub(super) fn shown(bytes: &[u8], is_whole: bool, redact: impl FnOnce(&str) -> String) -> String {
    let mut text = printable(&redact(&String::from_utf8_lossy(bytes))).into_owned();
    if text.len() > LONGEST_LINE {
        text.truncate(text.floor_char_boundary(LONGEST_LINE));
        text.push_str(" [cut]");
    } else if !is_whole {
        // Without its secrets the text is so short that the end of `bytes`, which may be the beginning of another secret, would be shown.
        text = format!("[a line of more than {LONGEST_KEPT_LINE} bytes is left out]");
    }
    text
}

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The line without control characters, at most [`LONGEST_LINE`] bytes, with a note if the rest was cut. Still contains secrets.
    pub(super) text: String,
    /// The bytes that the program wrote, at most [`LONGEST_KEPT_LINE`].
    pub(super) bytes: Vec<u8>,
    /// Whether `bytes` contains the whole line.
    pub(super) is_whole: bool,
}

/// Splits a stream into lines. A line ends with a line feed, or with a carriage return, which programs use for progress. Drops empty lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    cut: bool,
}

impl Splitter {
    /// Returns the lines that end in `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Cut> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => lines.extend(self.finish()),
                _ if self.line.len() < LONGEST_KEPT_LINE => self.line.push(*byte),
                _ => self.cut = true,
            }
        }
        lines
    }

    /// Returns the line that has not ended yet.
    pub(super) fn finish(&mut self) -> Option<Cut> {
        let bytes = std::mem::take(&mut self.line);
        let is_whole = !std::mem::take(&mut self.cut);
        let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
        let mut text = printable(&String::from_utf8_lossy(shown)).into_owned();
        if shown.len() < bytes.len() || !is_whole {
            text.push_str(" [cut]");
        }
        (!bytes.is_empty()).then_some(Cut { text, bytes, is_whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PartialEq<&str> for Cut {
        fn eq(&self, text: &&str) -> bool {
            self.text == *text
        }
    }

    impl PartialEq<String> for Cut {
        fn eq(&self, text: &String) -> bool {
            self.text == *text
        }
    }

    #[test]
    fn lines_end_with_a_line_feed_or_a_carriage_return_wherever_the_reads_end() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"a\r\nb\n\n 1/2"), ["a", "b"]);
        assert_eq!(splitter.push(b" kB\r 2/2 kB\rlast"), [" 1/2 kB", " 2/2 kB"]);
        assert_eq!(splitter.finish().unwrap(), "last");
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut splitter = Splitter::default();
        let line = splitter.push("\x1b[31mred\x07\u{202e}\u{9b}\tend\0\n".as_bytes());
        assert_eq!(line, [r"\u{1b}[31mred\u{7}\u{202e}\u{9b} end\u{0}"]);
        assert_eq!(splitter.push(b"\xff\n"), ["\u{fffd}"]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_cut() {
        let mut splitter = Splitter::default();
        let line = splitter.push(&[&[b'x'; LONGEST_LINE + 1][..], b"\nnext\n"].concat());
        assert_eq!(line, [format!("{} [cut]", "x".repeat(LONGEST_LINE)), "next".to_owned()]);
        assert!(line[0].is_whole && line[0].bytes == [b'x'; LONGEST_LINE + 1]);
        let line = splitter.push(&[&[b'x'; LONGEST_KEPT_LINE + 1][..], b"\n"].concat());
        assert!(!line[0].is_whole && line[0].bytes == [b'x'; LONGEST_KEPT_LINE]);
        assert_eq!(splitter.push(b"\xff\x1b\n")[0].bytes, b"\xff\x1b");
    }
    #[test]
    fn a_secret_is_removed_before_the_line_is_cut() {
        let redact = |text: &str| text.replace("sw0rd\tfish", "<secret>");
        for padding in LONGEST_LINE - 10..LONGEST_LINE + 1 {
            let line = [&vec![b'x'; padding][..], b"sw0rd\tfish"].concat();
            let text = shown(&line, true, redact);
            assert!(!text.contains("sw") && text.starts_with("xxx"), "{padding}: {text}");
        }
        assert_eq!(shown(b"a sw0rd\tfish\x1b", true, redact), r"a <secret>\u{1b}");
        let whole = shown(&[b'x'; LONGEST_LINE], true, redact);
        assert_eq!(whole.len(), LONGEST_LINE);
    }

    #[test]
    fn a_line_that_was_not_read_to_its_end_shows_no_secret_at_its_end_either() {
        let secret = "s".repeat(1000);
        let redact = |text: &str| text.replace(&secret, "<secret>");
        let mut splitter = Splitter::default();
        let line = splitter.push(&[&vec![b's'; LONGEST_KEPT_LINE + 500][..], b"\n"].concat()).remove(0);
        let text = shown(&line.bytes, line.is_whole, redact);
        assert_eq!(text, "[a line of more than 65536 bytes is left out]");
    }
}
