//! Prometheus's text format 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::{Display, Write};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What one scrape is answered with.
pub(super) struct Exposition {
    /// Of every name, with its underscore.
    prefix: String,
    text: String,
    /// Name, kind and help of the family that has begun.
    family: String,
}

impl Exposition {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}_"), text: String::new(), family: String::new() }
    }

    /// Begins a family: all samples until the next one are its own. One without samples is not
    /// mentioned.
    pub(super) fn family(&mut self, kind: Kind, name: &str, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = format!("{}{name}", self.prefix);
        let help = escaped(help, false);
        self.family = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, exposition: self }
    }

    /// A label that has the prefix, too.
    pub(super) fn label(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// One sample without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Gauge, name, help).sample(&[], value);
    }

    /// As [`Self::gauge`]. Names end in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(Kind::Counter, name, help).sample(&[], value);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

pub(super) struct Family<'a> {
    name: String,
    exposition: &'a mut Exposition,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.part("", labels, value)
    }

    /// Of a histogram: `_bucket`, `_sum`, `_count`.
    pub(super) fn part(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        value: impl Display,
    ) -> &mut Self {
        let text = &mut self.exposition.text;
        text.push_str(&std::mem::take(&mut self.exposition.family));
        text.push_str(&self.name);
        text.push_str(suffix);
        for (index, (label, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            let value = escaped(value, true);
            // Writing to a string cannot fail.
            let _ = write!(text, "{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
        self
    }
}

/// In a label's value quotes are escaped, too.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_once_before_its_samples_and_values_are_escaped() {
        let mut page = Exposition::new("understudy");
        page.gauge("one", "say \"x\"\\\n", 1);
        page.family(Kind::Gauge, "none", "not mentioned");
        let mut family = page.family(Kind::Counter, "two_total", "");
        family.sample(&[("queue", "a\"b\\c\nd"), ("vhost", "/")], 2);
        family.sample(&[("queue", ""), ("vhost", "\u{fc}")], 0.5);
        let expected = [
            "# HELP understudy_one say \"x\"\\\\\\n",
            "# TYPE understudy_one gauge",
            "understudy_one 1",
            "# HELP understudy_two_total ",
            "# TYPE understudy_two_total counter",
            r#"understudy_two_total{queue="a\"b\\c\nd",vhost="/"} 2"#,
            "understudy_two_total{queue=\"\",vhost=\"\u{fc}\"} 0.5",
            "",
        ];
        assert_eq!(page.into_text(), expected.join("\n"));
    }
}
