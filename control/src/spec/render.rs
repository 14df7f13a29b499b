//! Problems as a person likes to read them: the line, a caret under the place, and what to do.

use std::fmt::Write;

use super::problem::{Problem, Severity};

/// Longest piece of a source line that is shown, in characters.
const MAX_LINE: usize = 160;

/// The problems with the offending lines of `text`, and a count at the end.
pub fn render(problems: &[Problem], text: &str, color: bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for problem in problems {
        one(&mut out, problem, &lines, &Paint(color));
        out.push('\n');
    }
    if !problems.is_empty() {
        let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
        let _ = writeln!(out, "{}", summary(errors, problems.len() - errors));
    }
    out
}

fn summary(errors: usize, warnings: usize) -> String {
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (errors, 0) => count(errors, "error"),
        (0, warnings) => count(warnings, "warning"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
}

fn one(out: &mut String, problem: &Problem, lines: &[&str], paint: &Paint) {
    let tone = match problem.severity {
        Severity::Error => Tone::Error,
        Severity::Warning => Tone::Warning,
    };
    let head = format!("{}[{}]", problem.severity, problem.code);
    let _ = writeln!(out, "{}: {}", paint.with(tone, &head), plain(&problem.message));
    let widest = problem.line.max(problem.related.map_or(0, |(line, _)| line));
    let gutter = widest.to_string().len();
    let arrow = paint.with(Tone::Gutter, &format!("{:gutter$}-->", ""));
    let _ = writeln!(out, "{arrow} {}:{}:{}", problem.file, problem.line, problem.column);
    let length = problem.value.as_deref().map_or(1, |value| value.chars().count());
    snippet(out, lines, (problem.line, problem.column, length), gutter, (tone, "^"), paint);
    if let Some((line, column)) = problem.related {
        let dots = paint.with(Tone::Gutter, &format!("{:gutter$}:::", ""));
        let _ = writeln!(out, "{dots} {}:{line}:{column}", problem.file);
        snippet(out, lines, (line, column, 1), gutter, (Tone::Gutter, "-"), paint);
    }
    if !problem.field.is_empty() {
        let mark = paint.with(Tone::Gutter, &format!("{:gutter$} =", ""));
        let _ = writeln!(out, "{mark} field: {}", plain(&problem.field));
    }
}

fn snippet(
    out: &mut String,
    lines: &[&str],
    (line, column, length): (usize, usize, usize),
    gutter: usize,
    (tone, caret): (Tone, &str),
    paint: &Paint,
) {
    let Some(source) = line.checked_sub(1).and_then(|index| lines.get(index)) else { return };
    let before = column.saturating_sub(1);
    // A very long line (JSON in one line) is cut to the piece around the place.
    let skip = before.saturating_sub(MAX_LINE / 2);
    let shown: String = source.chars().skip(skip).take(MAX_LINE).map(printable).collect();
    let room = shown.chars().count().saturating_sub(before - skip).max(1);
    let carets = caret.repeat(length.clamp(1, room));
    let bar = |number: &str| paint.with(Tone::Gutter, &format!("{number:>gutter$} |"));
    let indent = " ".repeat(before - skip);
    let _ = writeln!(out, "{}", bar(""));
    let _ = writeln!(out, "{} {shown}", bar(&line.to_string()));
    let _ = writeln!(out, "{} {indent}{}", bar(""), paint.with(tone, &carets));
}

/// The text with control characters made harmless: a spec may come from anywhere.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { printable(c) }).collect()
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[derive(Clone, Copy)]
enum Tone {
    Error,
    Warning,
    Gutter,
}

struct Paint(bool);

impl Paint {
    fn with(&self, tone: Tone, text: &str) -> String {
        if !self.0 {
            return text.into();
        }
        let code = match tone {
            Tone::Error => "1;31",
            Tone::Warning => "1;33",
            Tone::Gutter => "1;34",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
