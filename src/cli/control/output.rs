//! Lists as a table with tabs (as rabbitmqctl prints them), as JSON or as CSV.

use super::client::{EXIT_USAGE, Problem};
use super::table::Columns;
use serde_json::{Map, Value};
use std::io::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
}

pub(super) struct Output {
    pub(super) format: Format,
    pub(super) headline: bool,
    pub(super) header: bool,
}

impl Output {
    /// What is being done, for people: not in front of data for programs.
    pub(super) fn headline(&self, text: &str) {
        if self.headline && self.format == Format::Table {
            write(&format!("{text}\n"));
        }
    }

    /// A single value.
    pub(super) fn value(&self, value: &Value) {
        match self.format {
            Format::Json => write(&format!("{value}\n")),
            _ => write(&format!("{}\n", show(value))),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// A name and its value.
    pub(super) fn pair(&self, name: &str, value: &Value) {
        write(&format!("{name}\t{}\n", one_line(&show(value))));
    }

    /// # Errors
    /// A column that the list does not have.
    pub(super) fn rows(
        &self,
        columns: &Columns,
        wanted: &[String],
        rows: &Value,
    ) -> Result<(), Problem> {
        let chosen = columns.choose(wanted).map_err(|text| Problem::new(EXIT_USAGE, text))?;
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        let cells = rows.iter().map(|row| {
            chosen.iter().map(|(_, pointer)| row.pointer(pointer).cloned().unwrap_or(Value::Null))
        });
        let mut out = String::new();
        if self.format == Format::Json {
            let objects = cells.map(|cells| {
                let names = chosen.iter().map(|(name, _)| (*name).to_owned());
                Value::Object(names.zip(cells).collect::<Map<_, _>>())
            });
            out = Value::Array(objects.collect()).to_string();
            out.push('\n');
        } else {
            let (separator, cell): (&str, fn(&Value) -> String) = match self.format {
                Format::Csv => (",", |value| quote(&show(value))),
                _ => ("\t", |value| one_line(&show(value))),
            };
            if self.header && !rows.is_empty() {
                let names: Vec<&str> = chosen.iter().map(|(name, _)| *name).collect();
                out.push_str(&format!("{}\n", names.join(separator)));
            }
            for cells in cells {
                let line: Vec<String> = cells.map(|value| cell(&value)).collect();
                out.push_str(&format!("{}\n", line.join(separator)));
            }
        }
        write(&out);
        Ok(())
    }
}

/// A reader that closes early, as `head` does, is no error.
pub(super) fn write(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            format!("[{}]", words.join(", "))
        }
        other => other.to_string(),
    }
}

/// Names may hold anything; a row stays one line of so many fields.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_their_row_together() {
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(one_line("a\tb\nc"), "a\\tb\\nc");
        assert_eq!(show(&serde_json::json!(["a", "b"])), "[a, b]");
        assert_eq!(show(&serde_json::json!({"x": 1})), "{\"x\":1}");
    }
}
