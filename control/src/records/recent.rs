//! What the last requests asked for, to try a spec with.

use std::collections::VecDeque;

use contract::record::Record;

/// Requests that are remembered.
const KEPT: usize = 1_000;

/// A request as far as records tell: without its query and header fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub method: String,
    pub host: String,
    pub path: String,
}

/// The last requests, oldest first.
#[derive(Default)]
pub struct Recent(VecDeque<Asked>);

impl Recent {
    pub fn take(&mut self, record: &Record<'_>) {
        // Not a request at all, or one cut to the length of a record.
        let cut = |text: &[u8]| text.len() >= contract::record::MAX_TEXT;
        if record.method.is_empty() || cut(record.path) || cut(record.host) {
            return;
        }
        let text = |bytes: &[u8], out: &mut String| {
            out.clear();
            out.push_str(&String::from_utf8_lossy(bytes));
        };
        // The oldest one's memory serves the newest.
        let reused = if self.0.len() >= KEPT { self.0.pop_front() } else { None };
        let mut asked = reused.unwrap_or_else(|| Asked {
            method: String::new(),
            host: String::new(),
            path: String::new(),
        });
        text(record.method, &mut asked.method);
        text(record.host, &mut asked.host);
        text(record.path, &mut asked.path);
        self.0.push_back(asked);
    }

    pub fn list(&self) -> Vec<Asked> {
        self.0.iter().cloned().collect()
    }
}
