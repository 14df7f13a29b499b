//! Aligned tables for people.

/// Prints rows under headings, columns as wide as their widest cell, two spaces apart.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are blank, surplus ones are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.head.len()).map(one_line).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, one line each, no trailing blanks. Headings are bold when `color`.
    pub fn render(&self, color: bool) -> String {
        let widths: Vec<usize> = self
            .head
            .iter()
            .enumerate()
            .map(|(column, head)| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| width(cell)).fold(width(head), usize::max)
            })
            .collect();
        let mut text = String::new();
        let (bold, plain) = if color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        text.push_str(bold);
        line(&mut text, self.head.iter().copied(), &widths);
        text.push_str(plain);
        text.push('\n');
        for row in &self.rows {
            line(&mut text, row.iter().map(String::as_str), &widths);
            text.push('\n');
        }
        text
    }
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let start = text.len();
    for (cell, wide) in cells.zip(widths) {
        text.push_str(cell);
        let pad = wide.saturating_sub(width(cell)) + 2;
        text.extend(std::iter::repeat_n(' ', pad));
    }
    let end = text.trim_end_matches(' ').len().max(start);
    text.truncate(end);
}

/// Characters as a stand-in for columns: names here are ASCII nearly always.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Control characters would break the alignment (or the terminal).
fn one_line(cell: String) -> String {
    if cell.chars().any(char::is_control) {
        return cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", "EPOCH", "STATE"]);
        table.row(["a".into(), "12345678".into(), "ok".into()]);
        table.row(["föö-long".into(), "1".into()]);
        assert_eq!(
            table.render(false),
            "NAME      EPOCH     STATE\na         12345678  ok\nföö-long  1\n"
        );
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\x1b[31m\ny".into(), "z".into(), "surplus".into()]);
        assert_eq!(table.render(false), "A         B\nx [31m y  z\n");
    }

    #[test]
    fn color_only_touches_the_heading() {
        let mut table = Table::new(&["A"]);
        table.row(["x".into()]);
        assert_eq!(table.render(true), "\x1b[1mA\x1b[0m\nx\n");
    }
}
