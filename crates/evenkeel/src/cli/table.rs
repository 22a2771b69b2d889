//! Tables for people.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with these column heads.
pub(super) fn table<const N: usize>(heads: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // On a terminal long cells are wrapped to its width; a program that reads the output gets whole lines.
    if let Some(width) = terminal_width() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.set_header(heads);
    table
}

/// Columns of the terminal that standard output is; none when it is none, or too narrow to lay anything out.
#[cfg(unix)]
pub(super) fn terminal_width() -> Option<u16> {
    use std::io::IsTerminal as _;
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&out)
        .ok()
        .map(|size| size.ws_col)
        .filter(|w| *w >= 40)
}

#[cfg(not(unix))]
pub(super) fn terminal_width() -> Option<u16> {
    None
}

/// Prints a line; a reader that went away (`| head`) ends the command quietly.
pub(super) fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(0);
    }
}
