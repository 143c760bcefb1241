//! ```text
//!   [["node", "hits"], ["0", "1,234"]]   ->   node   hits
//!                                             0     1,234
//! ```
//! Tables of text, for what is printed: words to the left, numbers to the right.

/// Rows under a header, their columns two spaces apart. A column is set to the right if all below its header begin with a
/// digit or a dash.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let right: Vec<bool> = (0..columns)
        .map(|column| rows.len() > 1 && rows[1..].iter().filter_map(|row| row.get(column)).all(is_number))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A number with its thousands apart: 1,234,567.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (at, digit) in digits[first..].chars().enumerate() {
        if at % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the unit that suits it: `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

/// A time in the unit that suits it: `5.1 s`, `21.3 ms`, `140 ns`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 172_800.0 => format!("{:.1} d", s / 86_400.0),
        s if s >= 7_200.0 => format!("{:.1} h", s / 3_600.0),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.1} us", s * 1e6),
        s if s > 0.0 => format!("{:.0} ns", s * 1e9),
        _ => "0 s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_under_each_other() {
        let rows = [["node", "hits"], ["zero", "1,234"], ["1", "5"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "node   hits\nzero  1,234\n1         5");
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1 << 20, (1 << 20) - 1].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB"]
        );
        assert_eq!(
            [0.0, 1.4e-7, 2.13e-2, 5.1, 90_000.0].map(duration),
            ["0 s", "140 ns", "21.3 ms", "5.1 s", "25.0 h"]
        );
    }
}
