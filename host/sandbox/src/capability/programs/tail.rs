//! The end of a program's output, for the component that ran it.

use std::collections::VecDeque;

use replica::process::Line;

/// How many bytes of a program's output a component gets.
const BYTES: usize = 64 << 10;

/// The last lines of a program's output. Only whole lines are kept, so that no secret is cut before it is redacted.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Tail {
    /// Adds a line, and drops the oldest lines beyond the bound.
    pub(super) fn push(&mut self, line: &Line) {
        let left_out =
            || format!("[a line of more than {} bytes is left out]", line.bytes.len()).into_bytes();
        self.add(if line.is_whole { line.bytes.clone() } else { left_out() });
    }

    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > BYTES {
            let Some(dropped) = self.lines.pop_front() else { break };
            self.bytes -= dropped.len() + 1;
        }
    }

    /// Returns the redacted lines as one text, each with its line end. Invalid UTF-8 becomes U+FFFD.
    pub(super) fn into_bytes(self, redact: impl Fn(&str) -> String) -> Vec<u8> {
        let mut redacted = Self::default();
        for line in self.lines {
            // Redaction may have made the line longer.
            redacted.add(redact(&String::from_utf8_lossy(&line)).into_bytes());
        }
        redacted.lines.into_iter().flat_map(|line| line.into_iter().chain([b'\n'])).collect()
    }
}

#[cfg(test)]
mod tests {
    use replica::process::Stream;

    use super::*;

    fn line(bytes: &[u8], is_whole: bool) -> Line {
        Line { stream: Stream::Output, text: String::new(), bytes: bytes.to_vec(), is_whole }
    }

    #[test]
    fn the_last_lines_are_kept_within_the_bound() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.push(&line(format!("line {number}").as_bytes(), true));
        }
        let text = String::from_utf8(tail.into_bytes(str::to_owned)).unwrap();
        assert!(text.len() <= BYTES && text.len() > BYTES - 20, "{}", text.len());
        assert!(text.ends_with("line 99998\nline 99999\n"));
    }

    #[test]
    fn the_bound_also_holds_after_secrets_are_replaced_and_a_longer_line_is_left_out() {
        let mut tail = Tail::default();
        for _ in 0..10_000 {
            tail.push(&line(b"x", true));
        }
        let longer = tail.into_bytes(|text| text.replace('x', "<secret>"));
        assert!(longer.len() <= BYTES && longer.starts_with(b"<secret>\n"));
        let mut tail = Tail::default();
        tail.push(&line(&vec![b'x'; BYTES], false));
        tail.push(&line(b"\xff\0end", true));
        let text = String::from_utf8(tail.into_bytes(str::to_owned)).unwrap();
        assert_eq!(text, "[a line of more than 65536 bytes is left out]\n\u{fffd}\0end\n");
    }
}
