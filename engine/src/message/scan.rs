//! Finding the end of a head, once over the bytes however they arrive.

use memchr::memchr;

/// What is wrong with the line structure of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// LF without CR before it, or CR without LF after it (RFC 9112 §2.2).
    LineEnd,
    /// More than two empty lines before the first line.
    LeadingLines,
    /// A control byte, which no part of a head may hold.
    Control,
    /// The first line is longer than allowed.
    FirstLine,
    /// The head, or its number of lines, is larger than allowed.
    Head,
}

/// Where the scan for the end of a head stands. Bytes seen once are not looked at again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Bytes looked at.
    seen: usize,
    /// Where the head begins, after leading empty lines.
    pub start: usize,
    /// Where the line in progress begins.
    line: usize,
    /// Complete lines, the first line included.
    lines: usize,
    /// End of the first line, without CRLF; 0 as long as it is not complete.
    pub first_end: usize,
}

/// Empty lines tolerated before a request line (RFC 9112 §2.2 asks for at least one).
const LEADING_LINES: usize = 2;

impl Scan {
    /// Goes on to the end of the head. `Some(end)`: just behind the empty line that ends it.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        leading_lines: bool,
        max_head: usize,
        max_line: usize,
        max_fields: usize,
    ) -> Result<Option<usize>, ScanError> {
        if self.seen < self.start || bytes.len() < self.seen {
            *self = Scan::default(); // Not the bytes of the last call: begin again.
        }
        if self.lines == 0 && self.seen == self.start && !self.skip_leading(bytes, leading_lines)? {
            return Ok(None);
        }
        let limit = self.start.saturating_add(max_head);
        let window = bytes.get(..limit).unwrap_or(bytes);
        let from = self.seen;
        while let Some(distance) = window.get(self.seen..).and_then(|rest| memchr(b'\n', rest)) {
            let lf = self.seen + distance;
            let end = lf.wrapping_sub(1);
            if lf == self.line || window.get(end) != Some(&b'\r') {
                return Err(ScanError::LineEnd);
            }
            self.seen = lf + 1;
            if end == self.line {
                return Ok(Some(lf + 1));
            }
            if self.lines == 0 {
                self.first_end = end;
                if end - self.start > max_line {
                    return Err(ScanError::FirstLine);
                }
            }
            self.lines += 1;
            self.line = lf + 1;
            if self.lines > max_fields + 1 {
                return Err(ScanError::Head);
            }
        }
        self.seen = window.len();
        self.check_unfinished(window, from)?;
        // One byte more than the line may have can still be the CR of its end.
        if self.lines == 0 && window.len() - self.start > max_line + 1 {
            return Err(ScanError::FirstLine);
        }
        if window.len() == limit {
            return Err(ScanError::Head);
        }
        Ok(None)
    }

    /// Whether a byte of the head itself was seen, not only empty lines before it.
    pub fn has_begun(&self) -> bool {
        self.seen > self.start
    }

    /// Whether the first line is complete in the bytes seen so far.
    pub fn has_first_line(&self) -> bool {
        self.lines > 0
    }

    fn skip_leading(&mut self, bytes: &[u8], allowed: bool) -> Result<bool, ScanError> {
        let allowed = if allowed { LEADING_LINES } else { 0 };
        loop {
            match bytes.get(self.start..).unwrap_or_default() {
                [] => return Ok(false),
                [b'\r'] if self.start / 2 < allowed => return Ok(false),
                [b'\r', b'\n', ..] if self.start / 2 < allowed => self.start += 2,
                [b'\r', b'\n', ..] => return Err(ScanError::LeadingLines),
                [b'\r' | b'\n', ..] => return Err(ScanError::LineEnd),
                _ => {
                    self.seen = self.start;
                    self.line = self.start;
                    return Ok(true);
                }
            }
        }
    }

    /// A head that can never become valid is refused at once, not when its time is up. Only bytes
    /// that are new in this call are looked at, so a slow sender costs no more than a fast one.
    fn check_unfinished(&self, window: &[u8], from: usize) -> Result<(), ScanError> {
        let mut before = from.checked_sub(1).and_then(|at| window.get(at)).copied();
        for &byte in window.get(from..).unwrap_or_default() {
            if before == Some(b'\r') && byte != b'\n' {
                return Err(ScanError::LineEnd);
            }
            if (byte < 0x20 && !matches!(byte, b'\r' | b'\n' | b'\t')) || byte == 0x7f {
                return Err(ScanError::Control);
            }
            before = Some(byte);
        }
        Ok(())
    }
}
