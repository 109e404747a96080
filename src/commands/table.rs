//! Plain tables for terminals.

/// Rows under a header, columns as wide as they need; the last one is not padded.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let last = cells.len() - 1;
        let padded = cells.iter().enumerate().map(|(i, cell)| match i == last {
            true => (*cell).to_owned(),
            false => format!("{cell:<width$}", width = widths[i]),
        });
        padded.collect::<Vec<_>>().join("  ")
    };
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    let mut out = format!("{}\n{}\n", line(header.to_vec()), line(rule.iter().map(String::as_str).collect()));
    for row in rows {
        out += &line(row.iter().map(String::as_str).collect());
        out.push('\n');
    }
    out
}
